//! What each engine has of its own: its dialect, its error codes, the settings of its sessions, and how it applies
//! migrations.

pub(super) mod mysql;
pub(super) mod postgres;
pub(super) mod sqlite;

/// Evaluates an expression for whichever engine an enum holds: `on_engine!(Db, db, pool => …)`.
macro_rules! on_engine {
    ($enum:ident, $value:expr, $held:ident => $body:expr) => {
        match $value {
            $enum::Sqlite($held) => $body,
            $enum::MySql($held) => $body,
            $enum::Postgres($held) => $body,
        }
    };
}
pub(crate) use on_engine;

/// The kinds of errors that a database reports, by what a caller can do about them.
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
    /// The same, because the transaction conflicts with another one, and has to be repeated from its beginning.
    Conflict,
    /// The same, because another session held the lock of a table or a row for too long.
    LockTimeout,
    /// The server refuses writes, at the moment.
    ReadOnlyServer,
    /// The database is read-only by its file or its URL.
    ReadOnlyFile,
    /// The connection cannot be used any more.
    Lost,
    /// Any other error.
    Other,
}
