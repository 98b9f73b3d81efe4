//! What a command reports: counts, or an error with its exit code.

use std::fmt::Display;
use std::io;

use roster::config::Problems;
use roster::db;
use roster::db::migrations;
use roster::listing::file;

#[path = "../process/output.rs"]
mod output;

use output::READER_ENDED;
pub(super) use output::print;

/// A number with its noun, such as `1 row` and `2 rows`.
pub(super) fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// An error and the exit code that goes with it. Without a message, nothing is printed.
pub(super) struct Failure(pub(super) u8, pub(super) String);

impl Failure {
    pub(super) fn new(code: u8, message: &dyn Display) -> Self {
        Self(code, message.to_string())
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::new(78, &problems)
    }
}

impl From<db::Error> for Failure {
    fn from(error: db::Error) -> Self {
        let code = match error {
            db::Error::Value(_) => 65,
            db::Error::Schema(_) => 75,
            db::Error::Pooler => 78,
            _ if error.is_transient() => 69,
            _ => 71,
        };
        Self::new(code, &error)
    }
}

impl From<migrations::Error> for Failure {
    fn from(error: migrations::Error) -> Self {
        if let migrations::Error::Database(error) = error {
            return error.into();
        }
        let code = match &error {
            migrations::Error::Interrupted { .. } | migrations::Error::LockTimeout { .. } => 69,
            migrations::Error::Failed { cause, .. } if cause.is_transient() => 69,
            _ => 70,
        };
        Self::new(code, &error)
    }
}

impl From<file::Error> for Failure {
    fn from(error: file::Error) -> Self {
        let code = match error {
            file::Error::Database(error) => return error.into(),
            file::Error::Ids { .. } | file::Error::Stopped => 71,
            file::Error::NotText(_) | file::Error::Header(..) | file::Error::BadRows { .. } => 65,
            file::Error::Open(_) | file::Error::Read(_) => 66,
            file::Error::Write(error) => return error.into(),
        };
        Self::new(code, &error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self(READER_ENDED, String::new());
        }
        Self::new(74, &format_args!("cannot write: {error}"))
    }
}
