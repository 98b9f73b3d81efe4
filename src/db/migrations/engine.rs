//! What migrations need of an engine. Implemented in `engine/`, for the connection of each driver.

use sqlx::migrate::{Migrate, Migration};

use super::error::Error;
use super::files::Files;
use crate::db::error::Error as DbError;

/// The ledger.
pub(in crate::db) const LEDGER: &str = "roster_migrations";

/// How an engine locks, applies and records migrations.
pub(in crate::db) trait EngineMigrations: Migrate + Sized {
    /// Its files.
    const FILES: &'static [Files];
    /// Selects the time in the ledger, in UTC by RFC 3339.
    const INSTALLED_ON: &'static str;
    /// Makes each wait for a lock short, so that a signal or the time limit ends the run. A statement that waits for a
    /// table lock also blocks all later statements on the table.
    const SHORT_LOCK_TIMEOUT: &'static str;
    /// Restores the default of the driver, or that of the server.
    const DEFAULT_LOCK_TIMEOUT: &'static str;

    /// Takes the migration lock, unless another session has it. The lock ends with the session at the latest.
    async fn try_lock(&mut self) -> Result<bool, Error>;

    /// Releases the lock.
    async fn unlock(&mut self) -> Result<(), DbError>;

    /// Applies a migration and records it.
    async fn apply_step(&mut self, up: &Migration) -> Result<(), Error>;

    /// Reverts a migration and removes its record.
    async fn revert_step(&mut self, down: &Migration) -> Result<(), Error>;

    /// Completes a migration whose row in the ledger says that it was interrupted. `mark` is from that row. A migration
    /// that is a transaction is never interrupted.
    async fn finish_apply(&mut self, up: &Migration, _mark: i64) -> Result<(), Error> {
        self.apply_step(up).await
    }

    /// Reverts a migration that was interrupted.
    async fn finish_revert(&mut self, down: &Migration, _mark: i64) -> Result<(), Error> {
        self.revert_step(down).await
    }

    /// The session that holds the migration lock, if the engine reports it.
    async fn lock_holder(&mut self) -> Option<String> {
        None
    }

    /// The session with the oldest open transaction, which probably holds the table lock.
    async fn transaction_holder(&mut self) -> Option<String> {
        None
    }
}
