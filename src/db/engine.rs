//! What one engine has of its own: its error codes and the settings of its sessions.

pub(super) mod mysql;
pub(super) mod postgres;
pub(super) mod sqlite;

use sqlx::error::{DatabaseError, ErrorKind};
use sqlx::mysql::MySqlDatabaseError;
use sqlx::postgres::{PgDatabaseError, PgSeverity};

/// The kinds of errors that a database reports. [`super::Error`] has a variant for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A row violates a constraint.
    Constraint,
    /// A value does not fit its column or its type.
    Value,
    /// A table or a column is missing.
    Schema,
    /// A prepared statement is missing, or is that of another client.
    Statement,
    /// The same statement may succeed in a moment, on the same connection.
    Transient,
    /// The server refuses writes.
    ReadOnly,
    /// The connection cannot be used any more.
    Lost,
    /// Any other error.
    Other,
}

/// The kind of an error.
pub(super) fn kind(error: &dyn DatabaseError) -> Kind {
    if error.kind() != ErrorKind::Other {
        return Kind::Constraint;
    }
    if let Some(error) = error.try_downcast_ref::<MySqlDatabaseError>() {
        return mysql::kind(error.number(), error.code().unwrap_or_default());
    }
    if let Some(error) = error.try_downcast_ref::<PgDatabaseError>() {
        // The server ends a session after an error of these severities, whatever its code.
        if matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic) {
            return Kind::Lost;
        }
        return postgres::kind(error.code(), error.message());
    }
    let code = error.code().and_then(|code| code.parse().ok());
    sqlite::kind(code.unwrap_or_default(), error.message())
}
