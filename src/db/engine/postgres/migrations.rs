//! Migrations on PostgreSQL. Each is a transaction, unless its file excludes that. The lock is an advisory one.

use sqlx::migrate::{Migrate as _, Migration};
use sqlx::{Executor as _, PgConnection};

use crate::db::error::Error as DbError;
use crate::db::migrations::engine::{EngineMigrations, LEDGER};
use crate::db::migrations::error::Error;
use crate::db::migrations::files::{Files, POSTGRES};

/// The key of the lock: the bytes of this program's name. No other program may use it on this database.
fn lock_key() -> i64 {
    env!("CARGO_PKG_NAME").bytes().fold(0, |key: i64, byte| key.rotate_left(8) ^ i64::from(byte))
}

impl EngineMigrations for PgConnection {
    const FILES: &'static [Files] = POSTGRES;
    const INSTALLED_ON: &'static str = "to_char(installed_on AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')";
    const SHORT_LOCK_TIMEOUT: &'static str = "SET lock_timeout = '1s'";
    const DEFAULT_LOCK_TIMEOUT: &'static str = "RESET lock_timeout";

    async fn try_lock(&mut self) -> Result<bool, Error> {
        Ok(sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(lock_key()).fetch_one(self).await?)
    }

    async fn unlock(&mut self) -> Result<(), DbError> {
        Ok(sqlx::query("SELECT pg_advisory_unlock($1)").bind(lock_key()).execute(self).await.map(drop)?)
    }

    async fn apply_step(&mut self, up: &Migration) -> Result<(), Error> {
        if !up.no_tx {
            return Ok(self.apply(LEDGER, up).await.map(drop)?);
        }
        // `CREATE INDEX CONCURRENTLY` waits for the transactions of other sessions. It does not block them, and after a
        // time-out it would leave an index that is not valid.
        self.execute(Self::DEFAULT_LOCK_TIMEOUT).await?;
        self.apply(LEDGER, up).await.map_err(|error| Error::not_undone(error, up, "up"))?;
        Ok(self.execute(Self::SHORT_LOCK_TIMEOUT).await.map(drop)?)
    }

    async fn revert_step(&mut self, down: &Migration) -> Result<(), Error> {
        if !down.no_tx {
            return self.revert(LEDGER, down).await.map(drop).map_err(|error| Error::of_step(error, down));
        }
        self.execute(Self::DEFAULT_LOCK_TIMEOUT).await?;
        self.revert(LEDGER, down).await.map_err(|error| Error::not_undone(error, down, "down"))?;
        Ok(self.execute(Self::SHORT_LOCK_TIMEOUT).await.map(drop)?)
    }

    async fn lock_holder(&mut self) -> Option<String> {
        // The view has a key of 64 bits in two columns: https://www.postgresql.org/docs/current/view-pg-locks.html
        const SQL: &str = "SELECT concat_ws(', ', 'process ' || pid, 'user ' || usename, 'application ' || application_name, \
             'address ' || host(client_addr)) FROM pg_locks JOIN pg_stat_activity USING (pid) \
             WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
             AND classid::bigint = $1 >> 32 AND objid::bigint = $1 & 4294967295 AND objsubid = 1";
        sqlx::query_scalar(SQL).bind(lock_key()).fetch_optional(self).await.ok().flatten()
    }

    async fn transaction_holder(&mut self) -> Option<String> {
        const SQL: &str = "SELECT concat_ws(', ', 'process ' || pid, 'user ' || usename, 'application ' || application_name, \
             'transaction since ' || xact_start) FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL ORDER BY xact_start LIMIT 1";
        sqlx::query_scalar(SQL).fetch_optional(self).await.ok().flatten()
    }
}
