//! What can go wrong with the database, sorted by what a caller can do about it.

use std::time::Duration;

use sqlx::error::{DatabaseError, ErrorKind};
use sqlx::mysql::MySqlDatabaseError;
use sqlx::sqlite::SqliteError;

use super::engine::{self, Kind};

/// A failed query, or one that could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Every connection of the pool stayed in use, or a new one could not be opened in time.
    #[error("no database connection became free within {} ms", .0.as_millis())]
    Acquire(Duration),
    /// The database cannot be reached, or lets nobody in.
    #[error("cannot connect to the database at {address}: {}", describe(cause))]
    Connect {
        /// The host and port, the socket or the file.
        address: String,
        /// The driver's error.
        cause: sqlx::Error,
    },
    /// The query ran into its time limit.
    #[error("the query took longer than {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The connection cannot be used any more.
    #[error("the connection to the database was lost: {}", describe(.0))]
    Lost(#[source] sqlx::Error),
    /// A fault that passes: a deadlock, a time-out of the server, a resource that is exhausted.
    #[error("the database cannot do this at the moment: {}", describe(.0))]
    Transient(#[source] sqlx::Error),
    /// The connection was lost while a transaction was committed: only the database knows whether it was.
    #[error("whether the transaction was committed is not known: {0}")]
    Unconfirmed(#[source] Box<Error>),
    /// The database refuses writes: it is a standby, or was set to read-only.
    #[error("{}", describe(.0))]
    ReadOnly(#[source] sqlx::Error),
    /// A table or a column is missing.
    #[error("the schema is older than this release, run `migrate up`: {}", describe(.0))]
    Schema(#[source] sqlx::Error),
    /// A prepared statement is gone, or another's is in its place: they are kept by the server's connection.
    #[error("{}: where a pooler lends connections for a transaction each, end DATABASE_URL with \
             statement-cache-capacity=0", describe(.0))]
    Statement(#[source] sqlx::Error),
    /// A pooler lends the server's connections for a transaction each, and so has none that would keep a lock.
    #[error(
        "DATABASE_URL: a pooler between this task and the database shares server sessions among its clients, and this \
         task needs a session of its own: use the URL of the server itself, without statement-cache-capacity=0 or \
         pgbouncer=true"
    )]
    Pooler,
    /// A row breaks a constraint, named as the database names it.
    #[error("the row breaks the constraint {0}")]
    Constraint(String),
    /// A signal came before the database answered.
    #[error("stopped before the database answered; nothing was changed")]
    Stopped,
    /// A value does not fit its column or its type. The database's message may quote it.
    #[error("a value does not fit its column (error {})", code(.0))]
    Value(#[source] sqlx::Error),
    /// Any other error: a mistake in our SQL, as far as we know.
    #[error("{}", describe(.0))]
    Query(#[source] sqlx::Error),
}

impl Error {
    pub(super) fn connect(address: &str, cause: sqlx::Error) -> Self {
        Self::Connect { address: address.to_owned(), cause }
    }

    /// Whether the same request may well succeed in a moment.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            // SQLite is read-only by its URL or by the rights of its file, and stays so.
            Self::ReadOnly(cause) => !cause.as_database_error().is_some_and(is_of_sqlite),
            Self::Query(_)
            | Self::Value(_)
            | Self::Constraint(_)
            | Self::Pooler
            | Self::Stopped
            | Self::Unconfirmed(_) => false,
            _ => true,
        }
    }

    /// Whether another session held the lock of a table or a row for too long.
    pub(super) fn is_lock_timeout(&self) -> bool {
        let Self::Transient(sqlx::Error::Database(cause)) = self else { return false };
        if let Some(mysql) = cause.try_downcast_ref::<MySqlDatabaseError>() {
            return mysql.number() == 1205;
        }
        let code = cause.code().unwrap_or_default();
        // SQLITE_BUSY in the low byte: https://sqlite.org/rescode.html#busy
        code == "55P03" || is_of_sqlite(cause.as_ref()) && code.parse::<i32>().is_ok_and(|code| code & 0xff == 5)
    }

    /// Whether the database refused the statement itself, such as for a missing right.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Query(sqlx::Error::Database(_)))
    }

    /// Whether the connection that met the error can serve another query: the error was the database's whole answer.
    /// A server that became read-only does not, because a new connection may reach the one that took over.
    pub(super) fn connection_is_reusable(&self) -> bool {
        match self {
            Self::Constraint(_) => true,
            Self::Transient(cause) | Self::Schema(cause) | Self::Value(cause) | Self::Query(cause) => {
                cause.as_database_error().is_some()
            }
            _ => false,
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(cause) => match engine::kind(cause.as_ref()) {
                Kind::Constraint => Self::Constraint(constraint(cause.as_ref()).to_owned()),
                Kind::Value => Self::Value(error),
                Kind::Schema => Self::Schema(error),
                Kind::Statement => Self::Statement(error),
                Kind::Transient => Self::Transient(error),
                Kind::ReadOnly => Self::ReadOnly(error),
                Kind::Lost => Self::Lost(error),
                Kind::Other => Self::Query(error),
            },
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
                Self::Lost(error)
            }
            _ => Self::Query(error),
        }
    }
}

fn is_of_sqlite(error: &dyn DatabaseError) -> bool {
    error.try_downcast_ref::<SqliteError>().is_some()
}

/// The database's code for an error.
fn code(error: &sqlx::Error) -> String {
    error.as_database_error().and_then(DatabaseError::code).unwrap_or_default().into_owned()
}

/// The name of a violated constraint. Only PostgreSQL's driver tells it apart; the others end
/// their message with it, behind the value, which must not be told.
fn constraint(cause: &dyn DatabaseError) -> &str {
    cause.constraint().unwrap_or_else(|| {
        // The message of MySQL continues after the name of a foreign key, and that of SQLite has no name.
        if let Some((_, name)) = cause.message().split_once("CONSTRAINT `") {
            return name.split('`').next().unwrap_or_default();
        }
        if cause.message().starts_with("FOREIGN KEY") {
            return "FOREIGN KEY";
        }
        let name = cause.message().rsplit([' ', '.']).next().unwrap_or_default();
        name.trim_matches(['\'', '`'])
    })
}

/// An error's text. That of a broken constraint would quote the row.
fn describe(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(cause) if cause.kind() != ErrorKind::Other => {
            format!("the row breaks the constraint {}", constraint(cause.as_ref()))
        }
        sqlx::Error::Database(cause) => match cause.message() {
            // SQLite's words, which do not tell what to do.
            "unable to open database file" => {
                "no such file, or no right to open it; ?mode=rwc at the end of its URL \
                 creates it, and ?immutable=true reads one where nothing can be written"
            }
            "attempt to write a readonly database" => {
                "it is read-only: its file, its folder or ?mode=ro forbids writing; ?immutable=true at the end of its URL \
                 reads a file in a read-only folder"
            }
            "file is not a database" => "its file is not an SQLite database",
            "disk I/O error" => "disk I/O error: its disk is full, or fails",
            "database or disk is full" => "its disk is full",
            message => return with_advice(message.to_owned()),
        }
        .to_owned(),
        sqlx::Error::Io(cause) => with_advice(cause.to_string()),
        other => with_advice(other.to_string()),
    }
}

/// What to do about a server's certificate, for whose errors the driver has no types, or about a read-only session.
fn with_advice(message: String) -> String {
    let advice = if message.contains("UnsupportedCertVersion") {
        "the server's certificate is of X.509 version 1, which is not supported; issue a certificate of version 3 that \
         has the server's name as a subjectAltName"
    } else if message.contains("CaUsedAsEndEntity") {
        "the server's certificate is that of an authority (CA:TRUE), which is not supported; issue one with \
         basicConstraints=CA:FALSE, which may be self-signed"
    } else if message.contains("UnknownIssuer") {
        "the server's certificate is not signed by a trusted authority; set sslrootcert (PostgreSQL) or ssl-ca (MySQL) \
         in DATABASE_URL to the file of the authority that signed it"
    } else if message.contains("certificate not valid for name") {
        "the server's certificate is for another name; use a name of the certificate in DATABASE_URL, or issue one \
         that has this name as a subjectAltName"
    } else if message.contains("server does not support TLS") {
        "enable TLS in the server; sslmode=prefer or ssl-mode=PREFERRED in DATABASE_URL allows plain text"
    } else if message.contains("in a read-only transaction") {
        "the server is a standby, or default_transaction_read_only is on for this server, database or user"
    } else if message.contains("READ ONLY transaction") {
        "transaction_read_only (tx_read_only on MariaDB) is on for this server"
    } else {
        return message;
    };
    format!("{message}: {advice}")
}
