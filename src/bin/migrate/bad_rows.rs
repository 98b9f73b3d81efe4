//! The rows that an import leaves out: the first are listed, the others are counted by reason.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;

use indicatif::{HumanCount, ProgressBar};
use roster::listing::import::BadRow;
use roster::listing::output::Sink;
use tokio_util::sync::CancellationToken;

/// The rows that are listed on standard error.
const LISTED_MAX: usize = 100;
/// The reasons that are counted separately. A reason can contain a number of the file, so there may be many.
const REASONS_MAX: usize = 20;

pub(super) struct BadRows {
    /// None after an error of standard error, which is ignored: the exit code reports bad rows.
    list: Option<Sink>,
    /// All rows, if they were asked for.
    file: Option<Sink>,
    listed: usize,
    /// The number of rows that are not listed, by reason.
    others: BTreeMap<String, u64>,
    /// Those with a further reason.
    rest: u64,
}

impl BadRows {
    pub(super) fn new(bar: ProgressBar, file: Option<Sink>) -> io::Result<Self> {
        let list = Sink::start(|| Ok(AboveBar(bar)))?;
        Ok(Self { list: Some(list), file, listed: 0, others: BTreeMap::new(), rest: 0 })
    }

    /// Lists or counts these rows.
    pub(super) async fn report(&mut self, rows: Vec<BadRow>) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            file.write(text(&rows).into()).await?;
        }
        let (listed, others) = rows.split_at(rows.len().min(LISTED_MAX - self.listed));
        self.listed += listed.len();
        self.list(text(listed)).await;
        for (_, reason) in others {
            if let Some(count) = self.others.get_mut(reason) {
                *count += 1;
            } else if self.others.len() < REASONS_MAX {
                self.others.insert(reason.clone(), 1);
            } else {
                self.rest += 1;
            }
        }
        Ok(())
    }

    /// Writes the counts of the rows that are not listed, unless a signal ends the wait for standard error. Returns the
    /// file, which the caller completes.
    pub(super) async fn finish(mut self, stop: &CancellationToken) -> Option<Sink> {
        let file = self.file.take();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.sum_up(file.is_some()) => {}
        }
        file
    }

    async fn sum_up(mut self, has_file: bool) {
        let total = self.others.values().sum::<u64>() + self.rest;
        if total > 0 {
            let advice = if has_file { "" } else { " (--bad-rows FILE writes all of them to a file)" };
            let mut summary = format!("and {} more{advice}:\n", HumanCount(total));
            let mut others: Vec<_> = std::mem::take(&mut self.others).into_iter().collect();
            others.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
            for (reason, count) in others {
                let _ = writeln!(summary, "{:>11}  {reason}", HumanCount(count).to_string());
            }
            if self.rest > 0 {
                let _ = writeln!(summary, "{:>11}  other reasons", HumanCount(self.rest).to_string());
            }
            self.list(summary).await;
        }
        if let Some(list) = self.list {
            let _ = list.finish().await;
        }
    }

    async fn list(&mut self, text: String) {
        if let Some(list) = &mut self.list
            && list.write(text.into()).await.is_err()
        {
            self.list = None;
        }
    }
}

fn text(rows: &[BadRow]) -> String {
    let mut text = String::new();
    for (line, reason) in rows {
        let _ = writeln!(text, "line {line}: {reason}");
    }
    text
}

/// Standard error, above a progress bar if there is one.
struct AboveBar(ProgressBar);

impl io::Write for AboveBar {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Meanwhile the bar is locked, and a pipe may block indefinitely.
        if self.0.is_hidden() { io::stderr().write(bytes) } else { self.0.suspend(|| io::stderr().write(bytes)) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
