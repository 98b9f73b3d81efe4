//! Rows from a file.
//!
//! Files are read and written on threads of their own. So a signal stops a task that waits for a pipe, and the database
//! does not wait for a disk.

use std::io::{self, Read};
use std::{mem, thread};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::file::{Error, Format};
use super::new_row::NewRow;
use super::reader;
use super::statements::{Existing, Taken, insert, resync_ids, taken};
use super::table::{Table, is_taken};
use crate::db::{Error as DbError, Session};

/// Rows that a transaction sends at once: below every engine's limit of parameters, and below the 1,000 values from which
/// on MariaDB makes a temporary table of a list.
const BATCH: usize = 900;

/// What to import.
#[derive(Clone, Copy, Debug)]
pub struct Import {
    /// The table of the rows.
    pub table: &'static Table,
    /// The format of the file.
    pub format: Format,
    /// Whether rows that cannot be imported are left out. Otherwise one of them leaves the table unchanged.
    pub skip_bad: bool,
}

/// What an import did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Imported {
    /// Rows that were inserted.
    pub rows: u64,
    /// Rows that were left out.
    pub bad: u64,
}

/// The line of a row, and why it cannot be imported. The reason does not repeat a value.
pub type BadRow = (u64, String);

/// Inserts every row of a file in one transaction. The bad rows of each batch are reported in the order of their lines.
/// Unless bad rows are to be skipped, one of them leaves the table as it was. An error of `report` ends the import.
///
/// # Errors
/// Each leaves the table as it was, once the session is closed.
pub async fn import<R: Read>(
    session: &mut Session,
    Import { table, format, skip_bad }: Import,
    open: impl FnOnce() -> io::Result<R> + Send + 'static,
    stop: &CancellationToken,
    report: impl AsyncFnMut(Vec<BadRow>) -> io::Result<()>,
    progress: impl FnMut(u64),
) -> Result<Imported, Error> {
    let batches = read(table, open, format).map_err(Error::Read)?;
    // A stopped statement leaves its result unread, so the connection cannot be used again.
    let done = tokio::select! {
        biased;
        () = stop.cancelled() => Err(Error::Stopped),
        done = fill(session, table, batches, report, progress) => done,
    }?;
    if done.bad > 0 && !skip_bad {
        return Err(Error::BadRows { bad: done.bad, rows: done.bad + done.rows });
    }
    session.execute("COMMIT").await?;
    Ok(done)
}

/// Rows that are sent to the database together.
#[derive(Default)]
struct Batch {
    good: Vec<(u64, NewRow)>,
    bad: Vec<BadRow>,
}

/// The rows of a batch whose keys are not known to be taken, each with its line.
#[derive(Default)]
struct Sorted<'b> {
    with_ids: Vec<(u64, &'b NewRow)>,
    without_ids: Vec<(u64, &'b NewRow)>,
    bad: Vec<BadRow>,
}

impl<'b> Sorted<'b> {
    fn of(table: &Table, rows: &'b [(u64, NewRow)], mut taken: Taken) -> Self {
        let mut sorted = Self::default();
        for (line, row) in rows {
            match &*taken.claim(row) {
                [] if row.has_id(table) => sorted.with_ids.push((*line, row)),
                [] => sorted.without_ids.push((*line, row)),
                columns => sorted.bad.push((*line, is_taken(columns))),
            }
        }
        sorted
    }
}

/// Reads a file on a thread of its own, one batch ahead. After the last one comes `None`.
fn read<R: Read>(
    table: &'static Table,
    open: impl FnOnce() -> io::Result<R> + Send + 'static,
    format: Format,
) -> io::Result<mpsc::Receiver<Result<Option<Batch>, Error>>> {
    let (sender, batches) = mpsc::channel(1);
    thread::Builder::new().name("reader".to_owned()).spawn(move || {
        let send = |batch| sender.blocking_send(Ok(Some(batch))).is_ok();
        let read = || {
            let mut batch = Batch::default();
            for row in reader::rows(table, open().map_err(Error::Open)?, format)? {
                match row? {
                    (line, Ok(row)) => batch.good.push((line, row)),
                    (line, Err(reason)) => batch.bad.push((line, reason)),
                }
                if batch.good.len() + batch.bad.len() == BATCH && !send(mem::take(&mut batch)) {
                    break;
                }
            }
            send(batch);
            Ok(())
        };
        // There is no receiver any more when the import has failed or was stopped.
        let _ = sender.blocking_send(read().map(|()| None));
    })?;
    Ok(batches)
}

/// Begins a transaction, and inserts what can be inserted.
async fn fill(
    session: &mut Session,
    table: &'static Table,
    mut batches: mpsc::Receiver<Result<Option<Batch>, Error>>,
    mut report: impl AsyncFnMut(Vec<BadRow>) -> io::Result<()>,
    mut progress: impl FnMut(u64),
) -> Result<Imported, Error> {
    let mut done = Imported::default();
    let mut has_ids = false;
    // Whether rows of the next batch may be in the table already. Then a query for their keys avoids a failed insert.
    // Otherwise a query for each batch would take as long as the import itself.
    let mut may_be_known = true;
    let mut next = batches.recv().await;
    // Only now, because SQLite has one writer at a time, which must not wait for the beginning of a file.
    session.begin().await?;
    loop {
        let ended_early = || Err(Error::Read(io::Error::other("the reading thread ended early")));
        let Some(Batch { good, mut bad }) = next.unwrap_or_else(ended_early)? else { break };
        let rows = good.len() + bad.len();
        has_ids |= good.iter().any(|(_, row)| row.has_id(table));
        let known = if may_be_known { taken(session, table, &good).await? } else { Taken::none(table) };
        let mut sorted = Sorted::of(table, &good, known);
        let mut is_inserted = insert_all(session, table, &sorted, has_ids).await?;
        if !is_inserted && !may_be_known {
            sorted = Sorted::of(table, &good, taken(session, table, &good).await?);
            is_inserted = insert_all(session, table, &sorted, has_ids).await?;
        }
        may_be_known = !sorted.bad.is_empty();
        bad.append(&mut sorted.bad);
        if !is_inserted {
            insert_each(session, table, &sorted.with_ids, &mut bad).await?;
            if has_ids {
                resync(session, table).await?;
            }
            insert_each(session, table, &sorted.without_ids, &mut bad).await?;
        }
        done.bad += bad.len() as u64;
        done.rows += (rows - bad.len()) as u64;
        bad.sort_unstable();
        if !bad.is_empty() {
            report(bad).await.map_err(Error::Write)?;
        }
        progress(done.rows + done.bad);
        next = batches.recv().await;
    }
    if has_ids {
        resync(session, table).await?;
    }
    Ok(done)
}

async fn resync(session: &mut Session, table: &'static Table) -> Result<(), Error> {
    resync_ids(session, table).await.map_err(|error| match error {
        DbError::Query(_) => {
            Error::Ids { sequence: format!("{}_{}_seq", table.name, table.columns[0].name), cause: error }
        }
        error => error.into(),
    })
}

/// Inserts the rows of a batch, all of them or none. False when the table refuses one.
async fn insert_all(
    session: &mut Session,
    table: &'static Table,
    sorted: &Sorted<'_>,
    has_ids: bool,
) -> Result<bool, Error> {
    session.execute("SAVEPOINT batch").await?;
    let inserted = async {
        insert(session, table, &grouped(&sorted.with_ids), Existing::Refuse).await?;
        if has_ids && !sorted.without_ids.is_empty() {
            resync(session, table).await?;
        }
        Ok(insert(session, table, &grouped(&sorted.without_ids), Existing::Refuse).await?)
    };
    let is_refused = match inserted.await {
        Ok(()) => false,
        Err(Error::Database(DbError::Constraint(_))) => true,
        Err(error) => return Err(error),
    };
    if is_refused {
        session.execute("ROLLBACK TO SAVEPOINT batch").await?;
    }
    session.execute("RELEASE SAVEPOINT batch").await?;
    Ok(!is_refused)
}

/// Rows with values for the same columns together, because they share a statement.
fn grouped<'b>(rows: &[(u64, &'b NewRow)]) -> Vec<&'b NewRow> {
    let mut rows = rows_of(rows);
    rows.sort_by(|row, next| row.present().cmp(next.present()));
    rows
}

fn rows_of<'b>(rows: &[(u64, &'b NewRow)]) -> Vec<&'b NewRow> {
    rows.iter().map(|&(_, row)| row).collect()
}

/// Inserts those rows that the table accepts. Each range that it refuses is halved until single rows are left.
async fn insert_each(
    session: &mut Session,
    table: &Table,
    rows: &[(u64, &NewRow)],
    bad: &mut Vec<BadRow>,
) -> Result<(), DbError> {
    let mut ranges = vec![rows];
    while let Some(range) = ranges.pop() {
        session.execute("SAVEPOINT batch").await?;
        match insert(session, table, &rows_of(range), Existing::Refuse).await {
            Ok(()) => {}
            Err(DbError::Constraint(constraint)) => {
                session.execute("ROLLBACK TO SAVEPOINT batch").await?;
                if let [(line, _)] = range {
                    bad.push((*line, table.refusal(&constraint)));
                } else {
                    // The earlier half goes first: of two rows that collide, the first one stays.
                    let (first, second) = range.split_at(range.len() / 2);
                    ranges.extend([second, first]);
                }
            }
            Err(error) => return Err(error),
        }
        session.execute("RELEASE SAVEPOINT batch").await?;
    }
    Ok(())
}
