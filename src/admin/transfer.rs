//! Users from a file and to a file.
//!
//! Files are read and written on threads of their own: a task that waits for a silent pipe is stopped by a signal, and
//! the database does not wait for a disk.

use std::io::{self, Read};
use std::{mem, thread};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::output::Sink;
use super::reader;
use crate::db::users::{self, Existing, NewUser, Taken, User};
use crate::db::{Error as DbError, Session};
use crate::json;

/// Rows a transaction sends at once: below every engine's limit of parameters, and below the 1,000 values from which on
/// MariaDB makes a temporary table of a list.
const BATCH: usize = 900;
/// Bytes that an export writes at once.
const CHUNK: usize = 64 * 1024;

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated values under a header row.
    Csv,
    /// One JSON object a line.
    Ndjson,
}

/// Why a file could not be imported or exported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database failed; nothing was imported.
    #[error(transparent)]
    Database(#[from] DbError),
    /// The file is not text in UTF-8, but this.
    #[error("the file is {0}: save it as CSV or NDJSON in UTF-8")]
    NotText(&'static str),
    /// The line is not the header that the rows need.
    #[error(
        "line {0}: {1}; the header must name the columns username and email, and may name id, separated by commas, \
         semicolons or tabs"
    )]
    Header(u64, String),
    /// Some rows cannot be imported, so none was.
    #[error("{bad} of {rows} rows cannot be imported, so none was; correct them, or pass --skip-bad to leave them out")]
    BadRows {
        /// How many.
        bad: u64,
        /// Of how many.
        rows: u64,
    },
    /// Ids of the file are in the table, and those that the database chooses cannot continue after them.
    #[error("{0}: a file with ids needs the rights SELECT and UPDATE on the sequence users_id_seq")]
    Ids(#[source] DbError),
    /// The task was stopped.
    #[error("stopped before the end; the table and the file are unchanged")]
    Stopped,
    /// The file cannot be opened to be read.
    #[error("cannot open {0}")]
    Open(#[source] io::Error),
    /// The file cannot be read.
    #[error("cannot read: {0}")]
    Read(#[source] io::Error),
    /// The file cannot be written.
    #[error("cannot write: {0}")]
    Write(#[source] io::Error),
}

/// What an import did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Imported {
    /// Rows that are in the table now.
    pub users: u64,
    /// Rows that were left out.
    pub bad: u64,
}

/// The line of a row, and why it cannot be imported. The reason does not repeat a value.
pub type BadRow = (u64, String);

/// Inserts every user of a file in one transaction. The bad rows of each batch are reported in the order of their lines.
/// Unless bad rows are to be skipped, one of them leaves the table as it was.
///
/// # Errors
/// Each leaves the table as it was, once the session is closed.
pub async fn import<R: Read>(
    session: &mut Session,
    open: impl FnOnce() -> io::Result<R> + Send + 'static,
    format: Format,
    skip_bad: bool,
    stop: &CancellationToken,
    report: impl AsyncFnMut(Vec<BadRow>),
    progress: impl FnMut(u64),
) -> Result<Imported, Error> {
    let batches = read(open, format).map_err(Error::Read)?;
    // The statement that is stopped leaves the connection in the middle of its answer.
    let done = tokio::select! {
        biased;
        () = stop.cancelled() => Err(Error::Stopped),
        done = fill(session, batches, report, progress) => done,
    }?;
    if done.bad > 0 && !skip_bad {
        return Err(Error::BadRows { bad: done.bad, rows: done.bad + done.users });
    }
    session.execute("COMMIT").await?;
    Ok(done)
}

/// Rows that are sent to the database together.
#[derive(Default)]
struct Batch {
    good: Vec<(u64, NewUser)>,
    bad: Vec<BadRow>,
}

/// The users of a batch that nobody else is known to be, each with its line. A statement has an id for each of its rows or
/// for none.
#[derive(Default)]
struct Sorted<'b> {
    with_ids: Vec<(u64, &'b NewUser)>,
    without_ids: Vec<(u64, &'b NewUser)>,
    bad: Vec<BadRow>,
}

impl<'b> Sorted<'b> {
    fn of(users: &'b [(u64, NewUser)], mut taken: Taken) -> Self {
        let mut sorted = Self::default();
        for (line, user) in users {
            match &*taken.claim(user) {
                [] if user.id().is_some() => sorted.with_ids.push((*line, user)),
                [] => sorted.without_ids.push((*line, user)),
                columns => sorted.bad.push((*line, is_taken(columns))),
            }
        }
        sorted
    }
}

/// Reads a file on a thread of its own, one batch ahead. After the last one comes `None`.
fn read<R: Read>(
    open: impl FnOnce() -> io::Result<R> + Send + 'static,
    format: Format,
) -> io::Result<mpsc::Receiver<Result<Option<Batch>, Error>>> {
    let (sender, batches) = mpsc::channel(1);
    thread::Builder::new().name("reader".to_owned()).spawn(move || {
        let send = |batch| sender.blocking_send(Ok(Some(batch))).is_ok();
        let read = || {
            let mut batch = Batch::default();
            for row in reader::rows(open().map_err(Error::Open)?, format)? {
                match row? {
                    (line, Ok(user)) => batch.good.push((line, user)),
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
    mut batches: mpsc::Receiver<Result<Option<Batch>, Error>>,
    mut report: impl AsyncFnMut(Vec<BadRow>),
    mut progress: impl FnMut(u64),
) -> Result<Imported, Error> {
    let mut done = Imported::default();
    let mut has_ids = false;
    // Whether users of the next batch may be in the table already. If they are, the table is asked before it refuses them;
    // if not, a query for each batch would take as long as the import itself.
    let mut may_be_known = true;
    let mut next = batches.recv().await;
    // Only now, because SQLite has one writer at a time, which must not wait for the beginning of a file.
    session.begin().await?;
    loop {
        let ended_early = || Err(Error::Read(io::Error::other("the reading thread ended early")));
        let Some(Batch { good, mut bad }) = next.unwrap_or_else(ended_early)? else { break };
        let rows = good.len() + bad.len();
        has_ids |= good.iter().any(|(_, user)| user.id().is_some());
        let known = if may_be_known { users::taken(session, &good).await? } else { Taken::default() };
        let mut sorted = Sorted::of(&good, known);
        let mut is_inserted = insert_all(session, &sorted, has_ids).await?;
        if !is_inserted && !may_be_known {
            sorted = Sorted::of(&good, users::taken(session, &good).await?);
            is_inserted = insert_all(session, &sorted, has_ids).await?;
        }
        may_be_known = !sorted.bad.is_empty();
        bad.append(&mut sorted.bad);
        if !is_inserted {
            insert_each(session, &sorted.with_ids, &mut bad).await?;
            if has_ids {
                continue_ids(session).await?;
            }
            insert_each(session, &sorted.without_ids, &mut bad).await?;
        }
        done.bad += bad.len() as u64;
        done.users += (rows - bad.len()) as u64;
        bad.sort_unstable();
        if !bad.is_empty() {
            report(bad).await;
        }
        progress(done.users + done.bad);
        next = batches.recv().await;
    }
    if has_ids {
        continue_ids(session).await?;
    }
    Ok(done)
}

async fn continue_ids(session: &mut Session) -> Result<(), Error> {
    users::continue_ids(session).await.map_err(|error| match error {
        DbError::Query(_) => Error::Ids(error),
        error => error.into(),
    })
}

/// Inserts the users of a batch, all of them or none. False when the table refuses one.
async fn insert_all(session: &mut Session, sorted: &Sorted<'_>, has_ids: bool) -> Result<bool, Error> {
    session.execute("SAVEPOINT batch").await?;
    let inserted = async {
        users::insert(session, &users_of(&sorted.with_ids), Existing::Refuse).await?;
        if has_ids && !sorted.without_ids.is_empty() {
            continue_ids(session).await?;
        }
        Ok(users::insert(session, &users_of(&sorted.without_ids), Existing::Refuse).await?)
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

fn users_of<'b>(rows: &[(u64, &'b NewUser)]) -> Vec<&'b NewUser> {
    rows.iter().map(|&(_, user)| user).collect()
}

/// Inserts those rows that the table accepts. It refuses one only if another session has added to the table since it was
/// asked; then each range that it refuses is halved until single rows are left.
async fn insert_each(session: &mut Session, rows: &[(u64, &NewUser)], bad: &mut Vec<BadRow>) -> Result<(), DbError> {
    let mut ranges = vec![rows];
    while let Some(range) = ranges.pop() {
        session.execute("SAVEPOINT batch").await?;
        match users::insert(session, &users_of(range), Existing::Refuse).await {
            Ok(()) => {}
            Err(DbError::Constraint(constraint)) => {
                session.execute("ROLLBACK TO SAVEPOINT batch").await?;
                if let [(line, _)] = range {
                    bad.push((*line, breaks(&constraint)));
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

fn breaks(constraint: &str) -> String {
    match constraint {
        "users_username_key" | "username_key" => is_taken(&["username"]),
        "users_email_key" | "email_key" => is_taken(&["email"]),
        "users_pkey" | "PRIMARY" | "id" => is_taken(&["id"]),
        other => format!("it breaks the constraint {other}"),
    }
}

fn is_taken(columns: &[&str]) -> String {
    let columns: Vec<String> = columns.iter().map(|column| format!("{column} is taken")).collect();
    format!("{}, in the table or by an earlier line", columns.join(" and "))
}

/// Writes every user in ascending id, and returns how many.
///
/// # Errors
/// [`Error::Write`], [`Error::Stopped`] and those of the database; then what was written is not complete.
pub async fn export(
    session: &mut Session,
    mut sink: Sink,
    format: Format,
    stop: &CancellationToken,
) -> Result<u64, Error> {
    let write = async {
        let mut count = 0;
        // Encoded before the first user, so that no user at all is still a file with a header.
        let mut encoder = Encoder::new(format)?;
        users::export(session, async |user| {
            count += 1;
            if let Some(chunk) = encoder.push(user)? {
                sink.write(chunk).await.map_err(Error::Write)?;
            }
            Ok::<_, Error>(())
        })
        .await?;
        sink.write(encoder.finish()?).await.map_err(Error::Write)?;
        sink.finish().await.map_err(Error::Write)?;
        Ok(count)
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(Error::Stopped),
        count = write => count,
    }
}

/// Users in a file's format, in chunks.
pub(crate) enum Encoder {
    Csv(Box<csv::Writer<Vec<u8>>>),
    Ndjson(Vec<u8>),
}

impl Encoder {
    pub(crate) fn new(format: Format) -> Result<Self, Error> {
        match format {
            Format::Csv => {
                let mut writer = csv_writer();
                writer.write_record(["id", "username", "email"]).map_err(csv_error)?;
                Ok(Self::Csv(writer))
            }
            Format::Ndjson => Ok(Self::Ndjson(Vec::with_capacity(CHUNK))),
        }
    }

    /// Encodes a user. Returns a chunk when one is full.
    pub(crate) fn push(&mut self, user: User<'_>) -> Result<Option<Vec<u8>>, Error> {
        match self {
            Self::Csv(writer) => {
                writer.write_record([&user.id.to_string(), user.username, user.email]).map_err(csv_error)?;
                // Its own buffer fills it now and then.
                if writer.get_ref().len() < CHUNK {
                    return Ok(None);
                }
                Self::Csv(mem::replace(writer, csv_writer())).finish().map(Some)
            }
            Self::Ndjson(bytes) => {
                json::write(&mut *bytes, &user).map_err(|error| Error::Write(error.into()))?;
                bytes.push(b'\n');
                Ok((bytes.len() >= CHUNK).then(|| mem::replace(bytes, Vec::with_capacity(CHUNK))))
            }
        }
    }

    /// The last chunk.
    pub(crate) fn finish(self) -> Result<Vec<u8>, Error> {
        match self {
            Self::Csv(writer) => writer.into_inner().map_err(|error| Error::Write(error.into_error())),
            Self::Ndjson(bytes) => Ok(bytes),
        }
    }
}

fn csv_writer() -> Box<csv::Writer<Vec<u8>>> {
    let mut writer = csv::WriterBuilder::new();
    Box::new(writer.terminator(csv::Terminator::CRLF).from_writer(Vec::with_capacity(CHUNK + CHUNK / 4)))
}

fn csv_error(error: csv::Error) -> Error {
    Error::Write(error.into())
}
