//! The stream of log lines. Each line is one write of its own, from any thread, and nothing is buffered.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Instant;

use prometheus::IntCounter;
use prometheus::core::Collector;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
#[cfg(target_os = "linux")]
use rustix::io::{Errno, ReadWriteFlags, pwritev2};
use tracing_subscriber::fmt::MakeWriter;

/// The longest time that a line waits for a reader that does not read.
const STALL_MAX: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// A wait uses as many times its duration of the budget of [`Lines`], so lines wait for a tenth of the time at most: a
/// slow reader must not block the requests of a process, nor its shutdown.
const WAIT_COST: u64 = 10;
/// The budget, in milliseconds. A line waits only while half of it is left.
const WAIT_BUDGET: u64 = 10_000;
const NO_WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// The metric of log lines that were dropped, because their reader had stalled.
#[derive(Clone)]
pub struct DroppedLines(IntCounter);

impl DroppedLines {
    /// The metric for a registry.
    #[must_use]
    pub fn collector(&self) -> Box<dyn Collector> {
        Box::new(self.0.clone())
    }
}

impl Default for DroppedLines {
    fn default() -> Self {
        let help = "Log lines that were dropped, because the reader of the log did not read.";
        Self(IntCounter::new("log_lines_dropped_total", help).expect("the name is valid"))
    }
}

/// Whether a stream accepts a line without blocking, now or within a second.
pub fn accepts_line(stream: &impl AsFd) -> bool {
    is_writable(stream, STALL_MAX)
}

fn is_writable(stream: &impl AsFd, limit: Timespec) -> bool {
    let mut streams = [PollFd::new(stream, PollFlags::OUT)];
    poll(&mut streams, Some(&limit)).is_ok_and(|ready| ready > 0)
}

/// The stream of log lines. The stream of the standard library has a lock around each write, for which the workers of a
/// busy server wait.
pub(super) struct Lines {
    stream: File,
    kind: Kind,
    started: Instant,
    /// When the budget for waiting is complete again, in milliseconds since the start.
    budget_complete: AtomicU64,
    /// Held shared for a line that the stream accepts as a whole, and exclusively for a longer one.
    order: RwLock<()>,
    dropped: DroppedLines,
    /// Lines that were dropped since the last line was written.
    unreported: AtomicU64,
    /// Whether the last line is incomplete.
    is_torn: AtomicBool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Accepts a short line as a whole or not at all, and can be written without blocking.
    Pipe,
    /// Accepts a part of a line, and can be written without blocking.
    Socket,
    /// A file, a terminal or another device.
    Other,
}

impl Lines {
    /// The most bytes that a pipe accepts as a whole (`PIPE_BUF` of POSIX, which is 4096 on Linux, and 512 at least).
    const ATOMIC: usize = if cfg!(target_os = "linux") { 4096 } else { 512 };

    pub(super) fn to(stream: &impl AsFd) -> Self {
        let own = stream.as_fd().try_clone_to_owned().expect("a process that begins may open a file");
        let stream = File::from(own);
        let kind = match stream.metadata().map(|metadata| metadata.file_type()) {
            Ok(kind) if kind.is_fifo() => Kind::Pipe,
            Ok(kind) if kind.is_socket() => Kind::Socket,
            _ => Kind::Other,
        };
        Self {
            kind,
            stream,
            started: Instant::now(),
            budget_complete: AtomicU64::new(0),
            order: RwLock::default(),
            dropped: DroppedLines::default(),
            unreported: AtomicU64::new(0),
            is_torn: AtomicBool::new(false),
        }
    }

    pub(super) fn dropped(&self) -> DroppedLines {
        self.dropped.clone()
    }

    /// Writes a line, or returns false.
    fn accept(&self, line: &[u8]) -> io::Result<bool> {
        // Only the order is guarded, and a panic does not change it.
        let is_whole = line.len() <= Self::ATOMIC && self.kind != Kind::Socket;
        if is_whole {
            let _shared = self.order.read().unwrap_or_else(PoisonError::into_inner);
            // A thread that wrote a part of a line may have had the lock before.
            if !self.is_torn.load(Ordering::Relaxed) {
                return self.write_bounded(line).map(|rest| rest == 0);
            }
        }
        let _exclusive = self.order.write().unwrap_or_else(PoisonError::into_inner);
        if self.is_torn.load(Ordering::Relaxed) {
            if self.write_bounded(b"\n")? > 0 {
                return Ok(false);
            }
            self.is_torn.store(false, Ordering::Relaxed);
        }
        let rest = self.write_bounded(line)?;
        self.is_torn.store((1..line.len()).contains(&rest), Ordering::Relaxed);
        Ok(rest == 0)
    }

    /// Writes bytes while the stream accepts them, and returns the number of the others.
    fn write_bounded(&self, mut bytes: &[u8]) -> io::Result<usize> {
        while !bytes.is_empty() {
            match self.try_write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                Err(_) => {
                    if !self.wait() {
                        break;
                    }
                }
            }
        }
        Ok(bytes.len())
    }

    /// Waits until the stream accepts bytes, within the budget. Returns whether it does.
    fn wait(&self) -> bool {
        let now = || u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let began = now();
        let used = self.budget_complete.load(Ordering::Relaxed).saturating_sub(began);
        if self.unreported.load(Ordering::Relaxed) > 0 || used > WAIT_BUDGET / 2 {
            return is_writable(&self.stream, NO_WAIT);
        }
        let is_writable = is_writable(&self.stream, STALL_MAX);
        let end = now();
        let cost = (end - began) * WAIT_COST;
        let _ = self.budget_complete.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |complete| {
            Some(complete.max(end).saturating_add(cost))
        });
        is_writable
    }

    /// Writes without blocking. The flag `O_NONBLOCK` would also change the stream of other processes, because they share
    /// its description.
    #[cfg(target_os = "linux")]
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        if self.kind == Kind::Other {
            return self.write_if_writable(bytes);
        }
        // The offset -1 is that of a write.
        match pwritev2(&self.stream, &[io::IoSlice::new(bytes)], u64::MAX, ReadWriteFlags::NOWAIT) {
            // Before Linux 6.4.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => self.write_if_writable(bytes),
            written => Ok(written?),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.write_if_writable(bytes)
    }

    fn write_if_writable(&self, bytes: &[u8]) -> io::Result<usize> {
        if !is_writable(&self.stream, NO_WAIT) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // A longer write could block, because only some of it may fit.
        (&self.stream).write(&bytes[..bytes.len().min(Self::ATOMIC)])
    }
}

impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.write_all(line).map(|()| line.len())
    }

    fn write_all(&mut self, line: &[u8]) -> io::Result<()> {
        if !self.accept(line)? {
            self.dropped.0.inc();
            self.unreported.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        let dropped = self.unreported.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            tracing::warn!(dropped, "log lines were dropped, because the reader of the log did not read");
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _, pipe};
    use std::thread;

    use super::*;

    #[test]
    fn lines_of_many_threads_stay_whole() {
        let (reader, writer) = pipe().expect("a pipe");
        let lines = Lines::to(&writer);
        drop(writer);
        let reading = thread::spawn(move || BufReader::new(reader).lines().collect::<io::Result<Vec<_>>>());
        thread::scope(|scope| {
            for letter in 'a'..='d' {
                let lines = &lines;
                scope.spawn(move || {
                    for number in 1..=200 {
                        // Every other line is longer than what a pipe takes as one.
                        let length = number * if number % 2 == 0 { 100 } else { 10 };
                        let line = letter.to_string().repeat(length) + "\n";
                        let mut writer = lines.make_writer();
                        writer.write_all(line.as_bytes()).expect("a dropped line is no error");
                    }
                });
            }
        });
        // On a busy machine, the reader may be too slow.
        let dropped = usize::try_from(lines.dropped.0.get()).expect("at most 800");
        drop(lines);
        let read = reading.join().expect("it does not panic").expect("text");
        let is_whole = |line: &&String| !line.is_empty() && line.bytes().all(|byte| byte == line.as_bytes()[0]);
        assert_eq!(read.iter().filter(is_whole).count(), read.len());
        assert!(read.len() + dropped >= 800 && dropped < 800, "{} lines, {dropped} dropped", read.len());
    }

    /// A reader that stalls delays one line, and no later one.
    #[test]
    fn a_stalled_reader_blocks_no_writer() {
        let (mut reader, writer) = pipe().expect("a pipe");
        let lines = Lines::to(&writer);
        let line = format!("{}\n", "x".repeat(999));
        let long = format!("{}\n", "y".repeat(9999));
        let mut written = 0;
        while lines.dropped.0.get() == 0 {
            (&lines).write_all(line.as_bytes()).expect("a line is dropped, and that is no error");
            written += 1;
        }
        written -= 1;
        for count in 2..500 {
            (&lines).write_all(if count % 2 == 0 { &line } else { &long }.as_bytes()).expect("as before");
            assert_eq!(lines.dropped.0.get(), count);
        }
        let mut content = vec![0; written * line.len()];
        reader.read_exact(&mut content).expect("the pipe is full");
        // It flows again.
        (&lines).write_all(line.as_bytes()).expect("there is room");
        drop((lines, writer));
        reader.read_to_end(&mut content).expect("it is closed");
        let text = String::from_utf8(content).expect("text");
        assert_eq!(text.lines().filter(|read| *read == line.trim_end()).count(), written + 1);
        // A line that was longer than the room in the pipe may be incomplete.
        assert!(text.lines().filter(|read| *read != line.trim_end()).count() <= 1);
    }
}
