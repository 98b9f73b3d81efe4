//! The formats of files, and why a file cannot be imported or exported.

use std::io;

use crate::db::Error as DbError;

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
    /// The file is not UTF-8 text. The field is the detected format.
    #[error("the file is {0}: save it as CSV or NDJSON in UTF-8")]
    NotText(&'static str),
    /// The header is not valid: its line, and the reason.
    #[error("line {0}: {1}")]
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
    #[error("{cause}: a file with ids needs the rights SELECT and UPDATE on the sequence {sequence}")]
    Ids {
        /// The sequence of the ids.
        sequence: String,
        /// The database's error.
        cause: DbError,
    },
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
