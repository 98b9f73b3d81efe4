//! Why migrations were not applied.

use std::time::Duration;

use sqlx::migrate::{MigrateError, Migration};

use crate::db::error::Error as DbError;

/// Why a migration was not applied. The schema is unchanged, unless the message states otherwise.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database failed outside a migration.
    #[error(transparent)]
    Database(#[from] DbError),
    /// A migration's statement failed.
    #[error("migration {version} failed and was undone: {cause}")]
    Failed {
        /// Its number.
        version: i64,
        /// The database's error.
        cause: DbError,
    },
    /// A migration's statement may have taken effect without a record. This happens on MySQL only, where a migration is
    /// not a transaction.
    #[error("migration {version} was interrupted; run `migrate {direction}` again to finish it: {cause}")]
    Interrupted {
        /// Its number.
        version: i64,
        /// The command that finishes it.
        direction: &'static str,
        /// The database's error.
        cause: DbError,
    },
    /// The statement of a migration without a transaction failed. What it did before is not undone.
    #[error(
        "migration {version} is not a transaction, and failed: remove what it left, such as an index that is not valid, \
         then run `migrate {direction}` again: {cause}"
    )]
    NotUndone {
        /// Its number.
        version: i64,
        /// The command that repeats it.
        direction: &'static str,
        /// The database's error.
        cause: DbError,
    },
    /// A migration's file was changed after the migration was applied.
    #[error(
        "migration {0} was changed after it had been applied: restore its file, and put the change into a new migration"
    )]
    Modified(i64),
    /// A newer release applied a migration that this one does not have.
    #[error("migration {0} belongs to a newer release: run that release's `migrate`")]
    Newer(i64),
    /// The ledger of earlier releases exists, but the user may not read it.
    #[error(
        "cannot read the table _sqlx_migrations, in which an earlier release may have recorded its migrations: grant \
         SELECT on it to the user of DATABASE_URL: {0}"
    )]
    SharedLedger(DbError),
    /// The server did not return whether the lock was acquired.
    #[error("GET_LOCK returned NULL instead of 0 or 1; see the server's log, then run `migrate` again")]
    Lock,
    /// Another session held a lock for too long.
    #[error("{lock} is still held by another session after {} s: {holder}; end it, or raise --lock-timeout", .waited.as_secs())]
    LockTimeout {
        /// Which lock.
        lock: &'static str,
        /// The time that the run waited.
        waited: Duration,
        /// The session, if the engine reports it.
        holder: String,
    },
    /// The migrations to revert are not those that were confirmed.
    #[error("the migrations changed after the confirmation; nothing was reverted; run `migrate down` again")]
    NotConfirmed,
    /// A signal arrived while the run waited for a lock.
    #[error("stopped while waiting for a lock; nothing was changed")]
    Stopped,
}

impl Error {
    /// The error of a step that was undone. It can be that of the record, too.
    pub(in crate::db) fn of_step(error: MigrateError, migration: &Migration) -> Self {
        match error {
            MigrateError::Execute(cause) => Self::Failed { version: migration.version, cause: cause.into() },
            other => other.into(),
        }
    }

    /// The error of a step that was not a transaction.
    pub(in crate::db) fn not_undone(error: MigrateError, migration: &Migration, direction: &'static str) -> Self {
        match Self::of_step(error, migration) {
            Self::Failed { version, cause } => Self::NotUndone { version, direction, cause },
            other => other,
        }
    }

    pub(in crate::db) fn interrupted(migration: &Migration, direction: &'static str, cause: sqlx::Error) -> Self {
        Self::Interrupted { version: migration.version, direction, cause: cause.into() }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

impl From<MigrateError> for Error {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::ExecuteMigration(cause, version) => Self::Failed { version, cause: cause.into() },
            MigrateError::Execute(cause) => Self::Database(cause.into()),
            other => Self::Database(sqlx::Error::Configuration(other.into()).into()),
        }
    }
}
