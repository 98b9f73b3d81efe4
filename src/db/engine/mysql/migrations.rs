//! Migrations on MySQL and MariaDB, where a migration that changes the schema cannot be a transaction.

use sqlx::migrate::Migration;
use sqlx::mysql::MySqlArguments;
use sqlx::query::Query;
use sqlx::{Connection as _, Executor as _, MySql, MySqlConnection};

use super::reports_done;
use crate::db::error::Error as DbError;
use crate::db::migrations::engine::EngineMigrations;
use crate::db::migrations::error::Error;
use crate::db::migrations::files::{Files, MYSQL};

/// The name of the lock. Locks belong to the server, so it has the database in it; 64 characters at most.
macro_rules! lock_name {
    () => {
        "CONCAT('roster ', SHA2(DATABASE(), 224))"
    };
}

/// MySQL commits before and after each DDL statement, so a DDL migration cannot be a transaction. But each file is one
/// statement, and each statement is atomic (MySQL 8.0, MariaDB 10.6). After a kill, it took effect completely or not at
/// all. The row of the ledger is written before the statement, with a [`Mark`]. The next run compares the mark with the
/// schema. A statement that only changes rows is executed in one transaction with its row of the ledger.
impl EngineMigrations for MySqlConnection {
    const FILES: &'static [Files] = MYSQL;
    const INSTALLED_ON: &'static str = "DATE_FORMAT(installed_on, '%Y-%m-%dT%H:%i:%sZ')";
    const SHORT_LOCK_TIMEOUT: &'static str = "SET SESSION lock_wait_timeout = 1, SESSION innodb_lock_wait_timeout = 1";
    const DEFAULT_LOCK_TIMEOUT: &'static str =
        "SET SESSION lock_wait_timeout = DEFAULT, SESSION innodb_lock_wait_timeout = DEFAULT";

    async fn try_lock(&mut self) -> Result<bool, Error> {
        const LOCK: &str = concat!("SELECT GET_LOCK(", lock_name!(), ", 0)");
        // NULL is an error, such as no memory for the lock.
        let answer: Option<i64> = sqlx::query_scalar(LOCK).fetch_one(self).await?;
        Ok(answer.ok_or(Error::Lock)? == 1)
    }

    async fn unlock(&mut self) -> Result<(), DbError> {
        const UNLOCK: &str = concat!("SELECT RELEASE_LOCK(", lock_name!(), ")");
        Ok(self.execute(UNLOCK).await.map(drop)?)
    }

    async fn apply_step(&mut self, up: &Migration) -> Result<(), Error> {
        const INSERT: &str = "INSERT INTO roster_migrations (version, description, success, checksum, execution_time) VALUES (?, ?, ?, ?, ?)";
        let insert = |success: bool, mark: i64| {
            sqlx::query(INSERT).bind(up.version).bind(&*up.description).bind(success).bind(&*up.checksum).bind(mark)
        };
        if is_transactional(up) {
            return transact(self, up, insert(true, 0)).await;
        }
        let before = names(self).await?;
        insert(false, Mark::Apply.encode(before)).execute(&mut *self).await?;
        if let Err(cause) = self.execute(up.sql.clone()).await {
            return Err(undone(self, up, "up", before, REMOVE, cause).await);
        }
        record(self, up).await
    }

    async fn revert_step(&mut self, down: &Migration) -> Result<(), Error> {
        const BEGIN: &str = "UPDATE roster_migrations SET success = FALSE, execution_time = ? WHERE version = ?";
        const UNDO: &str = "UPDATE roster_migrations SET success = TRUE WHERE version = ?";
        let version = down.version;
        if is_transactional(down) {
            return transact(self, down, sqlx::query(REMOVE).bind(version)).await;
        }
        let before = names(self).await?;
        sqlx::query(BEGIN).bind(Mark::Revert.encode(before)).bind(version).execute(&mut *self).await?;
        if let Err(cause) = self.execute(down.sql.clone()).await {
            return Err(undone(self, down, "down", before, UNDO, cause).await);
        }
        remove(self, down).await
    }

    async fn finish_apply(&mut self, up: &Migration, mark: i64) -> Result<(), Error> {
        let now = names(self).await?;
        if mark == Mark::Apply.encode(now) {
            // The statement of `up` had no effect. If a foreign table has the same name, `apply_step` fails.
            remove(self, up).await?;
            return self.apply_step(up).await;
        }
        if mark != Mark::Revert.encode(now) {
            repeat(self, up, "up").await?;
        }
        record(self, up).await
    }

    async fn finish_revert(&mut self, down: &Migration, mark: i64) -> Result<(), Error> {
        let now = names(self).await?;
        if mark == Mark::Revert.encode(now) {
            return self.revert_step(down).await;
        }
        if mark != Mark::Apply.encode(now) {
            repeat(self, down, "down").await?;
        }
        remove(self, down).await
    }

    async fn lock_holder(&mut self) -> Option<String> {
        const SQL: &str = concat!(
            "SELECT CONCAT('connection ', id, ', user ', user, ', host ', host) \
             FROM information_schema.processlist WHERE id = IS_USED_LOCK(",
            lock_name!(),
            ")"
        );
        sqlx::query_scalar(SQL).fetch_optional(self).await.ok().flatten()
    }

    async fn transaction_holder(&mut self) -> Option<String> {
        const SQL: &str = "SELECT CONCAT('connection ', trx_mysql_thread_id, ', transaction since ', trx_started) \
             FROM information_schema.innodb_trx ORDER BY trx_started LIMIT 1";
        sqlx::query_scalar(SQL).fetch_optional(self).await.ok().flatten()
    }
}

/// The operation of an interrupted row. The column `execution_time` contains it with a hash of the names in the schema
/// before the statement. If the hash is unchanged, the statement had no effect.
#[derive(Clone, Copy)]
enum Mark {
    Apply,
    Revert,
}

impl Mark {
    /// The result is never -1, because sqlx writes that value.
    fn encode(self, names: u32) -> i64 {
        match self {
            Self::Apply => -2 - i64::from(names),
            Self::Revert => i64::from(names),
        }
    }
}

/// A hash of all names in the schema. A statement that changes no name, such as a change of a column type, may be
/// repeated.
async fn names(conn: &mut MySqlConnection) -> Result<u32, DbError> {
    const SQL: &str = "SELECT CAST(COALESCE(BIT_XOR(CRC32(CONCAT_WS('/', kind, parent, name))), 0) AS UNSIGNED) FROM ( \
         SELECT 'table' AS kind, table_type AS parent, table_name AS name FROM information_schema.tables WHERE table_schema = DATABASE() \
         UNION SELECT 'column', table_name, column_name FROM information_schema.columns WHERE table_schema = DATABASE() \
         UNION SELECT 'index', table_name, index_name FROM information_schema.statistics WHERE table_schema = DATABASE() \
         UNION SELECT 'constraint', table_name, constraint_name FROM information_schema.table_constraints WHERE table_schema = DATABASE() \
         UNION SELECT 'trigger', event_object_table, trigger_name FROM information_schema.triggers WHERE trigger_schema = DATABASE() \
         UNION SELECT 'event', '', event_name FROM information_schema.events WHERE event_schema = DATABASE() \
         UNION SELECT 'routine', routine_type, routine_name FROM information_schema.routines WHERE routine_schema = DATABASE() \
         ) AS names";
    let hash: u64 = sqlx::query_scalar(SQL).persistent(false).fetch_one(conn).await?;
    // CRC32 has 32 bits.
    Ok(u32::try_from(hash).unwrap_or_default())
}

/// Whether a statement only changes rows, so that it can be a part of a transaction.
fn is_transactional(migration: &Migration) -> bool {
    let code =
        migration.sql.as_str().lines().find(|line| !line.trim().is_empty() && !line.trim_start().starts_with("--"));
    let keyword = code.unwrap_or_default().split_whitespace().next().unwrap_or_default();
    ["INSERT", "UPDATE", "DELETE", "REPLACE", "WITH"].iter().any(|row| keyword.eq_ignore_ascii_case(row))
}

/// Executes the statement of a migration and its record in one transaction.
async fn transact(
    conn: &mut MySqlConnection,
    migration: &Migration,
    record: Query<'_, MySql, MySqlArguments>,
) -> Result<(), Error> {
    let mut transaction = conn.begin().await?;
    record.execute(&mut *transaction).await?;
    let failed = |cause: sqlx::Error| Error::Failed { version: migration.version, cause: cause.into() };
    transaction.execute(migration.sql.clone()).await.map_err(failed)?;
    Ok(transaction.commit().await?)
}

const REMOVE: &str = "DELETE FROM roster_migrations WHERE version = ?";

/// Records that a migration was applied.
async fn record(conn: &mut MySqlConnection, up: &Migration) -> Result<(), Error> {
    let sql = "UPDATE roster_migrations SET success = TRUE, checksum = ?, execution_time = 0 WHERE version = ?";
    let recorded = sqlx::query(sql).bind(&*up.checksum).bind(up.version).execute(conn).await;
    recorded.map(drop).map_err(|cause| Error::interrupted(up, "up", cause))
}

/// Removes the record of a migration.
async fn remove(conn: &mut MySqlConnection, down: &Migration) -> Result<(), Error> {
    let removed = sqlx::query(REMOVE).bind(down.version).execute(conn).await;
    removed.map(drop).map_err(|cause| Error::interrupted(down, "down", cause))
}

/// Removes the mark of a failed statement if the schema is unchanged. Otherwise, or if the server does not respond, the
/// next run completes the migration.
async fn undone(
    conn: &mut MySqlConnection,
    migration: &Migration,
    direction: &'static str,
    before: u32,
    undo: &'static str,
    cause: sqlx::Error,
) -> Error {
    let version = migration.version;
    let is_as_before = names(conn).await.is_ok_and(|after| after == before);
    if is_as_before && sqlx::query(undo).bind(version).execute(conn).await.is_ok() {
        Error::Failed { version, cause: cause.into() }
    } else {
        Error::interrupted(migration, direction, cause)
    }
}

/// Repeats a statement that may have taken effect.
async fn repeat(conn: &mut MySqlConnection, migration: &Migration, direction: &'static str) -> Result<(), Error> {
    let Err(cause) = conn.execute(migration.sql.clone()).await else { return Ok(()) };
    match cause.as_database_error().and_then(|error| error.try_downcast_ref()) {
        Some(error) if reports_done(error) => Ok(()),
        _ => Err(Error::interrupted(migration, direction, cause)),
    }
}
