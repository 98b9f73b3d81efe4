//! Users from a file and to a file, as CSV (RFC 4180) or as NDJSON.

use std::io::{BufRead, BufReader, Read, Write};

use serde::Deserialize as _;
use tokio_util::sync::CancellationToken;

use crate::db::users::{self, Existing, NewUser};
use crate::db::{Error as DbError, Session};
use crate::json;

/// Users an `INSERT`, below every engine's limit of parameters.
const BATCH: usize = 1_000;

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
    /// The file's first line is not the header that its rows need.
    #[error("the header must name the columns username and email, and may name id: {0}")]
    Header(String),
    /// Some rows cannot be imported, so none was.
    #[error("{bad} of {rows} rows cannot be imported, so none was; mend them, or pass --skip-bad to leave them out")]
    BadRows {
        /// How many.
        bad: u64,
        /// Of how many.
        rows: u64,
    },
    /// The task was asked to stop.
    #[error("stopped before the end; the table is as it was")]
    Stopped,
    /// The file cannot be read.
    #[error("cannot read: {0}")]
    Read(#[source] std::io::Error),
    /// The file cannot be written.
    #[error("cannot write: {0}")]
    Write(#[source] std::io::Error),
}

/// What an import did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Imported {
    /// Rows that are in the table now.
    pub users: u64,
    /// Rows that were left out.
    pub bad: u64,
}

/// A row as the file has it: its line, and a user or the reason why it is none.
type Line = (u64, Result<NewUser, String>);

/// Inserts every user of a file in one transaction. Each row that cannot be inserted is told by its
/// line and the reason, which repeats no value. Unless bad rows are to be skipped, one of them leaves
/// the table as it was.
///
/// # Errors
/// Each leaves the table as it was.
pub async fn import(
    session: &mut Session,
    file: impl Read,
    format: Format,
    skip_bad: bool,
    stop: &CancellationToken,
    mut tell_bad: impl FnMut(u64, &str),
    mut progress: impl FnMut(u64),
) -> Result<Imported, Error> {
    let mut lines: Box<dyn Iterator<Item = Result<Line, Error>>> = match format {
        Format::Csv => Box::new(csv_lines(file)?),
        Format::Ndjson => Box::new(ndjson_lines(file)),
    };
    let mut done = Imported::default();
    let mut with_ids = false;
    session.execute("BEGIN").await?;
    loop {
        let mut batch: Vec<(u64, NewUser)> = Vec::with_capacity(BATCH);
        let mut ended = false;
        while batch.len() < BATCH {
            let Some(line) = lines.next().transpose()? else {
                ended = true;
                break;
            };
            match line {
                (line, Ok(user)) => batch.push((line, user)),
                (line, Err(reason)) => {
                    done.bad += 1;
                    tell_bad(line, &reason);
                }
            }
        }
        with_ids |= batch.iter().any(|(_, user)| user.id.is_some());
        // A statement has an id for each of its rows or for none.
        for rows in batch.chunk_by(|(_, one), (_, next)| one.id.is_some() == next.id.is_some()) {
            if with_ids && rows.iter().any(|(_, user)| user.id.is_none()) {
                users::continue_ids(session).await?;
            }
            let bad = insert(session, rows, &mut tell_bad).await?;
            done.bad += bad;
            done.users += rows.len() as u64 - bad;
        }
        progress(done.users + done.bad);
        if stop.is_cancelled() {
            session.execute("ROLLBACK").await?;
            return Err(Error::Stopped);
        }
        if ended {
            break;
        }
    }
    if done.bad > 0 && !skip_bad {
        session.execute("ROLLBACK").await?;
        return Err(Error::BadRows { bad: done.bad, rows: done.bad + done.users });
    }
    if with_ids {
        users::continue_ids(session).await?;
    }
    session.execute("COMMIT").await?;
    Ok(done)
}

/// Inserts those rows that the table takes, halving each range that it refuses until a single row is
/// left to blame. Tells how many it refused.
async fn insert(
    session: &mut Session,
    rows: &[(u64, NewUser)],
    tell_bad: &mut impl FnMut(u64, &str),
) -> Result<u64, DbError> {
    let mut bad = 0;
    let mut ranges = vec![rows];
    while let Some(range) = ranges.pop() {
        let users: Vec<NewUser> = range.iter().map(|(_, user)| user.clone()).collect();
        session.execute("SAVEPOINT batch").await?;
        match users::insert(session, &users, Existing::Refuse).await {
            Ok(()) => session.execute("RELEASE SAVEPOINT batch").await?,
            Err(DbError::Constraint(constraint)) => {
                session.execute("ROLLBACK TO SAVEPOINT batch").await?;
                session.execute("RELEASE SAVEPOINT batch").await?;
                if let [(line, _)] = range {
                    bad += 1;
                    tell_bad(*line, &taken(&constraint));
                } else {
                    // The earlier half goes first: of two rows that collide, the first one stays.
                    let (first, second) = range.split_at(range.len() / 2);
                    ranges.extend([second, first]);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(bad)
}

fn taken(constraint: &str) -> String {
    let column = match constraint {
        "users_username_key" | "username_key" => "username",
        "users_email_key" | "email_key" => "email",
        "users_pkey" | "PRIMARY" | "id" => "id",
        other => return format!("it breaks the constraint {other}"),
    };
    format!("{column} is taken, in the table or by an earlier line")
}

fn csv_lines(file: impl Read) -> Result<impl Iterator<Item = Result<Line, Error>>, Error> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(file);
    let header = reader.headers().map_err(read_error)?.clone();
    for column in ["username", "email"] {
        if !header.iter().any(|name| name == column) {
            return Err(Error::Header(format!("{column} is missing")));
        }
    }
    if let Some(unknown) = header.iter().find(|name| !["id", "username", "email"].contains(name)) {
        // A file without a header has a user there, who is not to be repeated.
        let named = unknown.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        let unknown = if named { unknown } else { "what stands there" };
        return Err(Error::Header(format!("{unknown} is not a column")));
    }
    let mut last = 1;
    Ok(reader.into_records().map(move |record| {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                let line = error.position().map_or(last + 1, csv::Position::line);
                last = line;
                return match error.into_kind() {
                    csv::ErrorKind::Io(error) => Err(Error::Read(error)),
                    _ => Ok((line, Err("it is not UTF-8".to_owned()))),
                };
            }
        };
        let line = record.position().map_or(last + 1, csv::Position::line);
        last = line;
        if record.len() != header.len() {
            return Ok((line, Err(format!("it has {} fields, the header {}", record.len(), header.len()))));
        }
        let user = record
            .deserialize::<NewUser>(Some(&header))
            .map_err(|_| "id is not a whole number".to_owned())
            .and_then(|user| user.check().map(|()| user));
        Ok((line, user))
    }))
}

fn ndjson_lines(file: impl Read) -> impl Iterator<Item = Result<Line, Error>> {
    (1..).zip(BufReader::new(file).split(b'\n')).filter_map(|(line, bytes)| {
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => return Some(Err(Error::Read(error))),
        };
        if bytes.trim_ascii().is_empty() {
            return None;
        }
        let mut json = serde_json::Deserializer::from_slice(&bytes);
        let user = NewUser::deserialize(&mut json).and_then(|user| json.end().map(|()| user));
        let user = match user {
            Ok(user) => user.check().map(|()| user),
            Err(error) => {
                Err(format!("it is not an object of username, email and perhaps id (column {})", error.column()))
            }
        };
        Some(Ok((line, user)))
    })
}

fn read_error(error: csv::Error) -> Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => Error::Read(error),
        _ => Error::Header("it is not UTF-8".to_owned()),
    }
}

/// Writes every user in ascending id, and tells how many.
///
/// # Errors
/// [`Error::Write`] and those of the database; then what was written is not everything.
pub async fn export(
    session: &mut Session,
    file: impl Write,
    format: Format,
    stop: &CancellationToken,
) -> Result<u64, Error> {
    let mut count = 0;
    let mut go_on = || {
        count += 1;
        if stop.is_cancelled() { Err(Error::Stopped) } else { Ok(()) }
    };
    match format {
        Format::Csv => {
            let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(file);
            let write_error = |error: csv::Error| Error::Write(error.into());
            // Written first, so that no user at all is still a file with a header.
            writer.write_record(["id", "username", "email"]).map_err(write_error)?;
            users::export(session, |user| {
                go_on()?;
                writer.write_record([&user.id.to_string(), user.username, user.email]).map_err(write_error)
            })
            .await?;
            writer.flush().map_err(Error::Write)?;
        }
        Format::Ndjson => {
            let mut writer = std::io::BufWriter::new(file);
            users::export(session, |user| {
                go_on()?;
                json::write(&mut writer, &user).map_err(|error| Error::Write(error.into()))?;
                writer.write_all(b"\n").map_err(Error::Write)
            })
            .await?;
            writer.flush().map_err(Error::Write)?;
        }
    }
    Ok(count)
}
