//! The stream of a connection, which keeps the time limits of its client.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use actix_web::rt::net::TcpStream;
use actix_web::web::Data;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::super::State;
use super::super::request;
use super::{Connection, LINGER, Phase};

/// The unsent bytes of a response that the kernel accepts. Without this limit it accepts megabytes, so the progress of a
/// slow client would be visible only after many seconds (tcp(7), `TCP_NOTSENT_LOWAT`).
const UNSENT_MAX: u32 = 128 * 1024;

/// A stream that fails when its client takes too long.
pub(super) struct GuardedStream {
    io: TcpStream,
    connection: Rc<Connection>,
    state: Data<State>,
    /// When the kernel stopped accepting bytes, because the client does not read.
    blocked: Option<Instant>,
    /// When the last response was sent and the stream was shut down.
    ending: Option<Instant>,
    /// Whether the client has closed its side.
    has_ended: bool,
    /// Fires at the next deadline or before. It is set again only after it fired, so a request costs no timer.
    timer: Pin<Box<Sleep>>,
}

impl GuardedStream {
    pub(super) fn new(io: TcpStream, connection: Rc<Connection>, state: Data<State>) -> Self {
        // Without these options, a connection is slower.
        let _ = io.set_nodelay(true);
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = SockRef::from(&io).set_tcp_notsent_lowat(UNSENT_MAX);
        state.connections.fetch_add(1, Ordering::Relaxed);
        let timer = Box::pin(sleep(state.limits.shortest()));
        Self { io, connection, state, blocked: None, ending: None, has_ended: false, timer }
    }

    /// When the client must have done what is expected.
    fn deadline(&self) -> Option<Instant> {
        let limits = &self.state.limits;
        if let Some(since) = self.ending {
            return Some(since + LINGER);
        }
        if let Some(since) = self.blocked {
            return Some(since + limits.request_timeout);
        }
        match self.connection.phase.get() {
            Phase::Idle(since) => Some(since + limits.keep_alive),
            Phase::Head(since) => Some(since + limits.request_timeout),
            Phase::Serving => None,
        }
    }

    /// Returns whether the deadline has passed. Otherwise, the task is woken at the deadline.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let deadline = self.deadline();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return true;
            }
            // Later phases have a full limit each, so none of their deadlines is earlier than this.
            let latest = now + self.state.limits.shortest();
            self.timer.as_mut().reset(deadline.map_or(latest, |deadline| deadline.min(latest)));
        }
        false
    }

    /// Whether the process stops, and the client has not begun another request.
    fn should_close(&self) -> bool {
        let is_idle = matches!(self.connection.phase.get(), Phase::Idle(_));
        is_idle && self.blocked.is_none() && self.state.idle_ends.is_cancelled()
    }

    /// Records bytes of a next request. Empty lines before a request are ignored (RFC 9112, section 2.2).
    fn record_read(&mut self, bytes: &[u8]) {
        self.has_ended |= bytes.is_empty();
        let mut tail = self.connection.tail.get();
        for &byte in &bytes[bytes.len().saturating_sub(tail.len())..] {
            tail = [tail[1], tail[2], byte];
        }
        self.connection.tail.set(tail);
        if matches!(self.connection.phase.get(), Phase::Idle(_)) && bytes.iter().any(|byte| !b"\r\n".contains(byte)) {
            self.connection.phase.set(Phase::Head(Instant::now()));
        }
    }
}

impl AsyncRead for GuardedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.io).poll_read(cx, buf) {
            Poll::Ready(read) => {
                read?;
                self.record_read(&buf.filled()[before..]);
                Poll::Ready(Ok(()))
            }
            // The end of the client's side ends an idle connection in order.
            Poll::Pending if self.should_close() => Poll::Ready(Ok(())),
            Poll::Pending if !self.is_late(cx) => Poll::Pending,
            Poll::Pending => match self.connection.phase.get() {
                Phase::Idle(_) => Poll::Ready(Ok(())),
                Phase::Head(_) | Phase::Serving => {
                    let answer = request::time_out(&self.state);
                    // It is short, and nothing waits before it. A client that does not read it loses nothing else.
                    let _ = Pin::new(&mut self.io).poll_write(cx, &answer);
                    Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
                }
            },
        }
    }
}

impl AsyncWrite for GuardedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.check_written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.check_written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    /// hyper flushes when it has written everything, and whenever a request is polled.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.connection.flush();
        if self.connection.phase.get() == Phase::Serving {
            // hyper does not read while it serves a request, so it would not detect that the client has reset the
            // connection. The end of the client's side is not an error, because it may still read.
            let mut byte = [0];
            if let Poll::Ready(Err(error)) = self.io.poll_peek(cx, &mut ReadBuf::new(&mut byte)) {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Ends this side, and reads what the client still sends until it ends its own.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ending.is_none() {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
            let now = Instant::now();
            self.ending = Some(now);
            self.timer.as_mut().reset(now + LINGER);
        }
        let mut bytes = [0; 4096];
        while !self.has_ended {
            let mut rest = ReadBuf::new(&mut bytes);
            if Pin::new(&mut self.io).poll_read(cx, &mut rest).is_pending() {
                return if self.is_late(cx) { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            self.has_ended = rest.filled().is_empty();
        }
        Poll::Ready(Ok(()))
    }
}

impl GuardedStream {
    /// Limits the time for which the client may not read.
    fn check_written(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.blocked = None;
        } else {
            let limit = self.state.limits.request_timeout;
            let since = *self.blocked.get_or_insert_with(Instant::now);
            if self.timer.deadline() > since + limit {
                self.timer.as_mut().reset(since + limit);
            }
            if self.is_late(cx) {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        written
    }
}

impl Drop for GuardedStream {
    fn drop(&mut self) {
        if self.connection.is_reset.get() {
            let _ = SockRef::from(&self.io).set_linger(Some(std::time::Duration::ZERO));
        }
        if self.state.connections.fetch_sub(1, Ordering::Release) == 1 {
            self.state.is_empty.notify_waiters();
        }
    }
}
