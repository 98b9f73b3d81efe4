//! Migrations on SQLite. A run is one transaction, which is also its lock.

use sqlx::migrate::{Migrate as _, Migration};
use sqlx::{Executor as _, SqliteConnection};

use crate::db::error::Error as DbError;
use crate::db::migrations::engine::{EngineMigrations, LEDGER};
use crate::db::migrations::error::Error;
use crate::db::migrations::files::{Files, SQLITE};

impl EngineMigrations for SqliteConnection {
    const FILES: &'static [Files] = SQLITE;
    const INSTALLED_ON: &'static str = "strftime('%Y-%m-%dT%H:%M:%SZ', installed_on)";
    const SHORT_LOCK_TIMEOUT: &'static str = "PRAGMA busy_timeout = 100";
    const DEFAULT_LOCK_TIMEOUT: &'static str = "PRAGMA busy_timeout = 5000";

    async fn try_lock(&mut self) -> Result<bool, Error> {
        // With the write-ahead log, a property of the file, readers and a writer do not wait for each other:
        // https://sqlite.org/wal.html. It cannot be turned on in a transaction.
        for sql in ["PRAGMA journal_mode = WAL", "BEGIN IMMEDIATE"] {
            match self.execute(sql).await.map_err(DbError::from) {
                Ok(_) => {}
                Err(error) if error.is_lock_timeout() => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    async fn unlock(&mut self) -> Result<(), DbError> {
        Ok(self.execute("COMMIT").await.map(drop)?)
    }

    async fn apply_step(&mut self, up: &Migration) -> Result<(), Error> {
        Ok(self.apply(LEDGER, &in_run(up)).await.map(drop)?)
    }

    async fn revert_step(&mut self, down: &Migration) -> Result<(), Error> {
        self.revert(LEDGER, &in_run(down)).await.map(drop).map_err(|error| Error::of_step(error, down))
    }
}

/// The migration without a transaction of its own, because it is a part of that of the run.
fn in_run(migration: &Migration) -> Migration {
    Migration { no_tx: true, ..migration.clone() }
}
