//! The progress of a task: a bar on a terminal, otherwise a log line every two seconds.

use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, HumanCount, ProgressBar, ProgressStyle};

/// The interval of the log lines.
const INTERVAL: Duration = Duration::from_secs(2);

pub(super) struct Progress {
    bar: ProgressBar,
    unit: &'static str,
    started: Instant,
    last_logged: Instant,
}

impl Progress {
    /// No progress yet, in rows of this unit. With a length, the bar shows the part that is done.
    pub(super) fn new(unit: &'static str, length: Option<u64>) -> Self {
        let bar = if io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        if let Some(length) = length {
            set_length(&bar, length);
        }
        let now = Instant::now();
        Self { bar, unit, started: now, last_logged: now }
    }

    /// The bar. The caller moves it, in units of its length.
    pub(super) const fn bar(&self) -> &ProgressBar {
        &self.bar
    }

    /// Shows the rows and the bytes so far.
    pub(super) fn at(&mut self, rows: u64, bytes: Option<u64>) {
        let per_second = per_second(rows, self.started.elapsed());
        if !self.bar.is_hidden() {
            self.bar.set_message(message(rows, self.unit, per_second, bytes));
        } else if self.last_logged.elapsed() >= INTERVAL {
            self.last_logged = Instant::now();
            tracing::info!(rows, unit = self.unit, per_second, bytes, length = self.bar.length(), "progress");
        }
    }

    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// Turns the spinner into a bar, when the length is known.
pub(super) fn set_length(bar: &ProgressBar, length: u64) {
    let style = ProgressStyle::with_template("{bar:30} {percent}%, {msg}, {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_length(length);
}

fn message(rows: u64, unit: &str, per_second: u64, bytes: Option<u64>) -> String {
    let bytes = bytes.map(|bytes| format!(", {}", BinaryBytes(bytes))).unwrap_or_default();
    format!("{} {unit}, {}/s{bytes}", HumanCount(rows), HumanCount(per_second))
}

fn per_second(rows: u64, elapsed: Duration) -> u64 {
    let milliseconds = elapsed.as_millis().max(1);
    u64::try_from(u128::from(rows) * 1000 / milliseconds).unwrap_or(u64::MAX)
}
