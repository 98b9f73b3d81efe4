//! What can go wrong with the database, sorted by what a caller can do about it.

use std::sync::Arc;
use std::time::Duration;

use sqlx::error::{DatabaseError, ErrorKind};

use super::engine::{Kind, mysql, postgres, sqlite};

/// A failed query, or one that could not be sent.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Every connection of the pool stayed in use, or a new one could not be opened in time.
    #[error("no database connection became free within {} ms", .0.as_millis())]
    Acquire(Duration),
    /// The engine has one writer, and another transaction of this process did not end in time.
    #[error("another write of this process did not end within {} ms", .0.as_millis())]
    Writer(Duration),
    /// The database is unreachable, or rejects the login.
    #[error("cannot connect to the database at {address}: {}", describe(cause))]
    Connect {
        /// The host and port, the socket or the file.
        address: String,
        /// The driver's error.
        cause: Arc<sqlx::Error>,
    },
    /// The query ran into its time limit.
    #[error("the query took longer than {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The connection cannot be used any more.
    #[error("the connection to the database was lost: {}", describe(.0))]
    Lost(#[source] Arc<sqlx::Error>),
    /// A temporary fault: a deadlock, a time-out of the server, an exhausted resource.
    #[error("the database cannot do this at the moment: {}", describe(.0))]
    Transient(#[source] Arc<sqlx::Error>),
    /// The outcome of COMMIT is unknown: the connection failed, or there was no response in time.
    #[error("the outcome of COMMIT is unknown: {0}")]
    Unconfirmed(#[source] Box<Error>),
    /// The database refuses writes: it is a standby, or was set to read-only.
    #[error("{}", describe(.0))]
    ReadOnly(#[source] Arc<sqlx::Error>),
    /// A table or a column is missing.
    #[error("the schema is older than this release, run `migrate up`: {}", describe(.0))]
    Schema(#[source] Arc<sqlx::Error>),
    /// A prepared statement is missing, or is that of another client, because a pooler shares the server's sessions.
    #[error("{}: with transaction pooling, add the parameter statement-cache-capacity=0 to \
             DATABASE_URL", describe(.0))]
    Statement(#[source] Arc<sqlx::Error>),
    /// A pooler shares the server's sessions among its clients, so none of them keeps a lock.
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
    Value(#[source] Arc<sqlx::Error>),
    /// Any other error, probably a mistake in this crate's SQL.
    #[error("{}", describe(.0))]
    Query(#[source] Arc<sqlx::Error>),
}

impl Error {
    pub(super) fn connect(address: &str, cause: sqlx::Error) -> Self {
        Self::Connect { address: address.to_owned(), cause: Arc::new(cause) }
    }

    /// Whether the same request may succeed in a moment.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::ReadOnly(cause) => !is_of_kind(cause, Kind::ReadOnlyFile),
            Self::Query(_)
            | Self::Value(_)
            | Self::Constraint(_)
            | Self::Pooler
            | Self::Stopped
            | Self::Unconfirmed(_) => false,
            _ => true,
        }
    }

    /// Whether the transaction conflicts with another one, and may succeed if it is repeated immediately.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Self::Transient(cause) if is_of_kind(cause, Kind::Conflict))
    }

    /// Whether another session held the lock of a table or a row for too long.
    pub(crate) fn is_lock_timeout(&self) -> bool {
        matches!(self, Self::Transient(cause) if is_of_kind(cause, Kind::LockTimeout))
    }

    /// Whether the database refused the statement itself, such as for a missing right.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Query(cause) if cause.as_database_error().is_some())
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
        let error = Arc::new(error);
        match &*error {
            sqlx::Error::Database(cause) => match kind(cause.as_ref()) {
                Kind::Constraint => Self::Constraint(constraint(cause.as_ref()).to_owned()),
                Kind::Value => Self::Value(error),
                Kind::Schema => Self::Schema(error),
                Kind::Statement => Self::Statement(error),
                Kind::Transient | Kind::Conflict | Kind::LockTimeout => Self::Transient(error),
                Kind::ReadOnlyServer | Kind::ReadOnlyFile => Self::ReadOnly(error),
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

/// The kind of an error, by its engine.
fn kind(error: &dyn DatabaseError) -> Kind {
    const ENGINES: [fn(&dyn DatabaseError) -> Option<Kind>; 3] = [sqlite::kind, mysql::kind, postgres::kind];
    if error.kind() != ErrorKind::Other {
        return Kind::Constraint;
    }
    ENGINES.iter().find_map(|kind| kind(error)).unwrap_or(Kind::Other)
}

fn is_of_kind(error: &sqlx::Error, expected: Kind) -> bool {
    error.as_database_error().is_some_and(|error| kind(error) == expected)
}

/// The database's code for an error.
fn code(error: &sqlx::Error) -> String {
    error.as_database_error().and_then(DatabaseError::code).unwrap_or_default().into_owned()
}

/// The name of a violated constraint. Only PostgreSQL's driver has it. The messages of the others end with it, after the
/// value, which must not be shown.
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
    // [only servers]
    if let Some(text) = with_advice(error) {
        return text;
    }
    // [end]
    match error {
        sqlx::Error::Database(cause) if cause.kind() != ErrorKind::Other => {
            format!("the row breaks the constraint {}", constraint(cause.as_ref()))
        }
        sqlx::Error::Database(cause) => {
            const REWORDED: [fn(&str) -> Option<&'static str>; 1] = [sqlite::reworded];
            let message = cause.message();
            let reworded = REWORDED.iter().find_map(|reworded| reworded(message));
            reworded.unwrap_or(message).to_owned()
        }
        sqlx::Error::Io(cause) => cause.to_string(),
        other => other.to_string(),
    }
}

// [only servers]
/// The fixes for errors of a server's certificate, for which the drivers have no types, and of read-only sessions: a part of
/// the message, and the fix.
const ADVICE: [(&str, &str); 7] = [
    (
        "UnsupportedCertVersion",
        "the server's certificate is of X.509 version 1, which is not supported; issue a certificate of version 3 that \
         has the server's name as a subjectAltName",
    ),
    (
        "CaUsedAsEndEntity",
        "the server's certificate is that of an authority (CA:TRUE), which is not supported; issue one with \
         basicConstraints=CA:FALSE, which may be self-signed",
    ),
    (
        "UnknownIssuer",
        "the server's certificate is not signed by a trusted authority; set sslrootcert or ssl-ca in DATABASE_URL to the \
         file of the authority that signed it",
    ),
    (
        "certificate not valid for name",
        "the server's certificate is for another name; use a name of the certificate in DATABASE_URL, or issue one \
         that has this name as a subjectAltName",
    ),
    (
        "server does not support TLS",
        "enable TLS in the server; sslmode=prefer or ssl-mode=PREFERRED in DATABASE_URL allows plain text",
    ),
    (
        "in a read-only transaction",
        "the server is a standby, or default_transaction_read_only is on for this server, database or user",
    ),
    // MariaDB and MySQL have the same message, and MariaDB another name.
    ("READ ONLY transaction", "transaction_read_only (tx_read_only on MariaDB) is on for this server"),
];

/// The text of an error that has a fix.
fn with_advice(error: &sqlx::Error) -> Option<String> {
    let message = match error {
        sqlx::Error::Database(cause) if cause.kind() != ErrorKind::Other => return None,
        sqlx::Error::Database(cause) => cause.message().to_owned(),
        sqlx::Error::Io(cause) => cause.to_string(),
        other => other.to_string(),
    };
    let (_, advice) = ADVICE.iter().find(|(part, _)| message.contains(part))?;
    Some(format!("{message}: {advice}"))
}
// [end]
