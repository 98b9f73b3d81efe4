//! The schema's migrations and their safety (factor XII: admin processes).
//!
//! The files in `migrations/` have the same numbers and the same meaning on every engine and are part
//! of the binary. The table `roster_migrations` is the ledger of applied migrations. It has the columns of sqlx's
//! ledger, but another name, because several applications may share a database.
//!
//! sqlx applies migrations on engines where a migration is a transaction. sqlx's lock is a no-op on SQLite, and ignores
//! that `GET_LOCK` can return NULL on MariaDB. So this module implements the locks, and the migrations on MySQL:
//!
//! | engine | lock | after a process was killed during a migration |
//! |---|---|---|
//! | PostgreSQL | a session-level advisory lock | the transaction was rolled back |
//! | SQLite | `BEGIN IMMEDIATE` around the whole run | the transaction was rolled back |
//! | MySQL, MariaDB | `GET_LOCK`, with its result checked | the next run checks whether the statement took effect, and completes the migration |

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType};
use sqlx::mysql::{MySqlArguments, MySqlDatabaseError};
use sqlx::{
    Connection as _, Executor as _, MySql, MySqlConnection, PgConnection, QueryBuilder, SqlStr, SqliteConnection,
};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Dialect, Error as DbError, Session, on_engine};

/// The ledger.
const TABLE: &str = "roster_migrations";
/// The ledger while it is created.
const NEW_TABLE: &str = "roster_migrations_new";
/// The default ledger of sqlx, which several applications may share. Earlier releases of this one wrote it, too.
const SHARED_TABLE: &str = "_sqlx_migrations";
/// The names of the locks in log lines and errors.
const MIGRATIONS: &str = "the migration lock";
const TABLE_LOCK: &str = "a table lock";
/// The interval between two attempts to take a lock.
const LOCK_POLL: Duration = Duration::from_millis(100);
/// The interval between two log lines of a waiting run.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// The longest time for a statement that needs no table lock.
const SHORT_STATEMENT: Duration = Duration::from_secs(10);
/// The key of the lock on PostgreSQL. No other program may use it on this database.
const LOCK_KEY: i64 = 0x726f_7374_6572;

/// The name of the lock on MySQL. Locks belong to the server, so it has the database in it; 64 characters at most.
macro_rules! lock_name {
    () => {
        "CONCAT('roster ', SHA2(DATABASE(), 224))"
    };
}

/// The files of one engine, in order: every migration has an `up` and a `down`.
macro_rules! embedded {
    ($engine:literal: $($version:literal $name:literal),+) => {
        [$(
            (
                $version,
                $name,
                include_str!(concat!("../../migrations/", $engine, "/000", $version, "_", $name, ".up.sql")),
                include_str!(concat!("../../migrations/", $engine, "/000", $version, "_", $name, ".down.sql")),
            ),
        )+]
    };
}

const SQLITE: [(i64, &str, &str, &str); 3] = embedded!("sqlite": 1 "users", 2 "friends", 3 "friends_since");
const MYSQL: [(i64, &str, &str, &str); 3] = embedded!("mysql": 1 "users", 2 "friends", 3 "friends_since");
const POSTGRES: [(i64, &str, &str, &str); 3] = embedded!("postgres": 1 "users", 2 "friends", 3 "friends_since");

/// A migration: its files for both directions.
struct Step {
    version: i64,
    name: &'static str,
    up: Migration,
    down: Migration,
}

fn steps(session: &Session) -> Vec<Step> {
    let files = match session {
        Session::Sqlite(_) => SQLITE,
        Session::MySql(_) => MYSQL,
        Session::Postgres(_) => POSTGRES,
    };
    let migration = |version, name: &'static str, kind, sql| {
        Migration::new(version, name.into(), kind, SqlStr::from_static(sql), false)
    };
    files
        .into_iter()
        .map(|(version, name, up, down)| Step {
            version,
            name,
            up: migration(version, name, MigrationType::ReversibleUp, up),
            down: migration(version, name, MigrationType::ReversibleDown, down),
        })
        .collect()
}

/// The version of the newest migration in this binary.
pub const LATEST: i64 = SQLITE[SQLITE.len() - 1].0;

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
    /// A signal arrived while the run waited for a lock.
    #[error("stopped while waiting for a lock; nothing was changed")]
    Stopped,
}

impl Error {
    fn interrupted(migration: &Migration, direction: &'static str, cause: sqlx::Error) -> Self {
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
            other => Self::Database(DbError::Query(sqlx::Error::Configuration(other.into()))),
        }
    }
}

/// When a run stops early: at a signal, or after a wait for locks.
#[derive(Clone, Copy)]
pub struct Limits<'a> {
    /// Cancelled by a signal. A run then ends before the next migration.
    pub stop: &'a CancellationToken,
    /// The longest time that a run waits for locks of other sessions.
    pub lock_timeout: Duration,
}

impl<'a> Limits<'a> {
    /// The default of [`Limits::lock_timeout`], in seconds.
    pub const LOCK_TIMEOUT_SECONDS: u16 = 600;

    /// The default limits.
    #[must_use]
    pub const fn new(stop: &'a CancellationToken) -> Self {
        Self { stop, lock_timeout: Duration::from_secs(Self::LOCK_TIMEOUT_SECONDS as u64) }
    }
}

/// What a run did.
#[derive(Debug)]
pub struct Run {
    /// The migrations that it applied or reverted, in that order.
    pub done: Vec<i64>,
    /// Whether a signal ended it before the last one.
    pub stopped: bool,
}

/// A line of the ledger, or a migration that is not in it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Status {
    /// The migration's number.
    pub version: i64,
    /// Its name, unless the binary is older than the migration.
    pub name: Option<&'static str>,
    /// Where it stands.
    pub state: State,
    /// When it was applied, in UTC.
    pub applied_at: Option<String>,
}

/// Where a migration stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its statements ran.
    Applied,
    /// `migrate up` will apply it.
    Pending,
    /// Its process was killed during the migration; `migrate up` or `migrate down` completes it.
    Interrupted,
    /// It was applied from a file that has changed since.
    Modified,
    /// It was applied by a newer release.
    Newer,
}

/// Every migration that the binary or the database knows, in order.
///
/// # Errors
/// Those of the database, and [`Error::LockTimeout`] if another session locks the ledger.
pub async fn status(session: &mut Session, limits: Limits<'_>) -> Result<Vec<Status>, Error> {
    let steps = steps(session);
    let ledger = readable_ledger(session, &steps, limits).await?;
    let mut lines: Vec<Status> = ledger
        .iter()
        .map(|entry| {
            let step = steps.iter().find(|step| step.version == entry.version);
            Status {
                version: entry.version,
                name: step.map(|step| step.name),
                state: match step {
                    _ if !entry.success => State::Interrupted,
                    None => State::Newer,
                    Some(step) if *step.up.checksum != *entry.checksum => State::Modified,
                    Some(_) => State::Applied,
                },
                applied_at: Some(entry.at.clone()),
            }
        })
        .collect();
    for step in steps {
        if !lines.iter().any(|line| line.version == step.version) {
            lines.push(Status {
                version: step.version,
                name: Some(step.name),
                state: State::Pending,
                applied_at: None,
            });
        }
    }
    lines.sort_by_key(|line| line.version);
    Ok(lines)
}

/// The migrations that [`up`] would apply, each with its SQL, without a lock or a change.
///
/// # Errors
/// As those of [`up`].
pub async fn pending(
    session: &mut Session,
    to: Option<i64>,
    limits: Limits<'_>,
) -> Result<Vec<(i64, &'static str, String)>, Error> {
    let steps = steps(session);
    let ledger = readable_ledger(session, &steps, limits).await?;
    check(&ledger, &steps)?;
    Ok(steps
        .into_iter()
        .filter(|step| to.is_none_or(|to| step.version <= to))
        .filter(|step| !ledger.iter().any(|entry| entry.version == step.version && entry.success))
        .map(|step| (step.version, step.name, step.up.sql.as_str().to_owned()))
        .collect())
}

/// Applies every pending migration, or those up to a version. Any number of processes may do so at once: one applies
/// them, and the others wait. Without pending migrations, it reads the ledger and acquires no lock. So it succeeds on a
/// standby, on a read-only server and without the right to change the schema.
///
/// # Errors
/// [`Error::Failed`] names the migration; those before it stay applied, except on SQLite, where the
/// whole run is one transaction.
pub async fn up(session: &mut Session, to: Option<i64>, limits: Limits<'_>) -> Result<Run, Error> {
    let steps = steps(session);
    let wanted = |step: &&Step| to.is_none_or(|to| step.version <= to);
    let is_applied = |ledger: &[Entry], step: &Step| ledger.iter().any(|it| it.version == step.version && it.success);
    let mut wait = Wait::new(limits);
    if let Some(ledger) = own_ledger(session, &mut wait).await? {
        check(&ledger, &steps)?;
        if steps.iter().filter(wanted).all(|step| is_applied(&ledger, step)) {
            return Ok(Run { done: Vec::new(), stopped: false });
        }
    }
    with_lock(session, &mut wait, async |conn, wait| {
        let ledger = wait.retry(conn, async |conn| ensure_ledger(conn, &steps).await).await?;
        check(&ledger, &steps)?;
        let mut done = Vec::new();
        for step in steps.iter().filter(wanted).filter(|step| !is_applied(&ledger, step)) {
            if limits.stop.is_cancelled() {
                return Ok(Run { done, stopped: true });
            }
            let version = step.version;
            if ledger.iter().any(|entry| entry.version == version) {
                tracing::warn!(version, "the migration was interrupted; finishing it");
            }
            // A failed attempt may have changed its row of the ledger.
            let apply = wait.retry(conn, async |conn| match entry(conn, version).await? {
                Some(entry) => conn.finish_apply(&step.up, &entry).await,
                None => conn.apply_step(&step.up).await,
            });
            reported(version, apply).await?;
            tracing::info!(version, name = step.name, "migration applied");
            done.push(version);
        }
        Ok(Run { done, stopped: false })
    })
    .await
}

/// Reverts the last migration, or every one above a version.
///
/// # Errors
/// [`Error::Failed`] names the migration; [`Error::Newer`] one whose down file this binary does not have.
pub async fn down(session: &mut Session, to: Option<i64>, limits: Limits<'_>) -> Result<Run, Error> {
    let steps = steps(session);
    with_lock(session, &mut Wait::new(limits), async |conn, wait| {
        let ledger = wait.retry(conn, async |conn| ensure_ledger(conn, &steps).await).await?;
        let last = ledger.last().map_or(0, |entry| entry.version);
        let to = to.unwrap_or(last - 1);
        let mut done = Vec::new();
        for entry in ledger.iter().rev().filter(|entry| entry.version > to) {
            if limits.stop.is_cancelled() {
                return Ok(Run { done, stopped: true });
            }
            let version = entry.version;
            let known = steps.iter().find(|step| step.version == version).ok_or(Error::Newer(version))?;
            if !entry.success {
                tracing::warn!(version, "the migration was interrupted; reverting it");
            }
            let revert = wait.retry(conn, async |conn| match self::entry(conn, version).await? {
                Some(entry) if entry.success => conn.revert_step(&known.down).await,
                Some(entry) => conn.finish_revert(&known.down, &entry).await,
                None => Ok(()),
            });
            reported(version, revert).await?;
            tracing::info!(version, name = known.name, "migration reverted");
            done.push(version);
        }
        Ok(Run { done, stopped: false })
    })
    .await
}

/// Checks that this binary can continue the history.
fn check(ledger: &[Entry], steps: &[Step]) -> Result<(), Error> {
    for entry in ledger {
        match steps.iter().find(|step| step.version == entry.version) {
            Some(step) if entry.success && *step.up.checksum != *entry.checksum => {
                return Err(Error::Modified(entry.version));
            }
            // A newer release applied it before a roll back. It stays.
            None if !entry.success => return Err(Error::Newer(entry.version)),
            _ => {}
        }
    }
    Ok(())
}

/// A row of the ledger.
struct Entry {
    version: i64,
    name: String,
    checksum: Vec<u8>,
    success: bool,
    /// In an interrupted row on MySQL, the [`Mark`] of the interrupted operation.
    mark: i64,
    at: String,
}

/// Operations that migrations need in addition to sqlx's trait.
trait Ledger: Migrate + Send {
    fn entries(&mut self, table: &'static str) -> BoxFuture<'_, Result<Vec<Entry>, DbError>>;

    /// Copies a row of the shared ledger into the new one.
    fn adopt<'a>(&'a mut self, entry: &'a Entry) -> BoxFuture<'a, Result<(), DbError>>;

    fn run(&mut self, sql: &'static str) -> BoxFuture<'_, Result<(), DbError>>;

    /// Applies a migration and records it.
    fn apply_step<'a>(&'a mut self, migration: &'a Migration) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async { Ok(self.apply(TABLE, migration).await.map(drop)?) })
    }

    /// Reverts a migration and removes its record.
    fn revert_step<'a>(&'a mut self, migration: &'a Migration) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async {
            self.revert(TABLE, migration).await.map(drop).map_err(|error| match error {
                MigrateError::Execute(cause) => Error::Failed { version: migration.version, cause: cause.into() },
                other => other.into(),
            })
        })
    }

    /// Completes an interrupted migration. A migration that is a transaction is never interrupted.
    fn finish_apply<'a>(&'a mut self, up: &'a Migration, _: &'a Entry) -> BoxFuture<'a, Result<(), Error>> {
        self.apply_step(up)
    }

    /// Reverts a migration that was interrupted.
    fn finish_revert<'a>(&'a mut self, down: &'a Migration, _: &'a Entry) -> BoxFuture<'a, Result<(), Error>> {
        self.revert_step(down)
    }

    /// The session that holds the migration lock, if the engine reports it.
    fn lock_holder(&mut self) -> BoxFuture<'_, Option<String>> {
        Box::pin(async { None })
    }

    /// The session with the oldest open transaction, which probably holds the table lock.
    fn transaction_holder(&mut self) -> BoxFuture<'_, Option<String>> {
        Box::pin(async { None })
    }
}

/// Methods with the same code for the types of each driver.
macro_rules! common {
    () => {
        fn entries(&mut self, table: &'static str) -> BoxFuture<'_, Result<Vec<Entry>, DbError>> {
            fn query<C: sqlx::Connection<Database: Dialect>>(_: &C, table: &'static str) -> QueryBuilder<C::Database> {
                let mut query = QueryBuilder::new("SELECT version, description, checksum, success, execution_time, ");
                query.push(<C::Database as Dialect>::INSTALLED_ON).push(" FROM ").push(table).push(" ORDER BY version");
                query
            }
            Box::pin(async move {
                let mut query = query(self, table);
                let rows: Vec<(i64, String, Vec<u8>, bool, i64, String)> =
                    query.build_query_as().persistent(false).fetch_all(self).await?;
                let entry =
                    |(version, name, checksum, success, mark, at)| Entry { version, name, checksum, success, mark, at };
                Ok(rows.into_iter().map(entry).collect())
            })
        }

        fn adopt<'a>(&'a mut self, entry: &'a Entry) -> BoxFuture<'a, Result<(), DbError>> {
            Box::pin(async move {
                let mut query = QueryBuilder::new("INSERT INTO ");
                query.push(NEW_TABLE).push(" (version, description, success, checksum, execution_time) VALUES (");
                query.push_bind(entry.version).push(", ").push_bind(entry.name.as_str()).push(", ");
                query.push_bind(entry.success).push(", ").push_bind(entry.checksum.as_slice()).push(", ");
                query.push_bind(entry.mark).push(")").build().execute(self).await?;
                Ok(())
            })
        }

        fn run(&mut self, sql: &'static str) -> BoxFuture<'_, Result<(), DbError>> {
            Box::pin(async move { Ok(self.execute(sql).await.map(drop)?) })
        }
    };
}

impl Ledger for SqliteConnection {
    common!();
}

impl Ledger for PgConnection {
    common!();

    fn lock_holder(&mut self) -> BoxFuture<'_, Option<String>> {
        // The view has a key of 64 bits in two columns: https://www.postgresql.org/docs/current/view-pg-locks.html
        const SQL: &str = "SELECT concat_ws(', ', 'process ' || pid, 'user ' || usename, 'application ' || application_name, \
             'address ' || host(client_addr)) FROM pg_locks JOIN pg_stat_activity USING (pid) \
             WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
             AND classid::bigint = $1 >> 32 AND objid::bigint = $1 & 4294967295 AND objsubid = 1";
        Box::pin(async { sqlx::query_scalar(SQL).bind(LOCK_KEY).fetch_optional(self).await.ok().flatten() })
    }

    fn transaction_holder(&mut self) -> BoxFuture<'_, Option<String>> {
        const SQL: &str = "SELECT concat_ws(', ', 'process ' || pid, 'user ' || usename, 'application ' || application_name, \
             'transaction since ' || xact_start) FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL ORDER BY xact_start LIMIT 1";
        Box::pin(async { sqlx::query_scalar(SQL).fetch_optional(self).await.ok().flatten() })
    }
}

/// MySQL commits before and after each DDL statement, so a DDL migration cannot be a transaction. But each file is one
/// statement, and each statement is atomic (MySQL 8.0, MariaDB 10.6). After a kill, it took effect completely or not at
/// all. The row of the ledger is written before the statement, with a [`Mark`]. The next run compares the mark with the
/// schema. A statement that only changes rows is executed in one transaction with its row of the ledger.
impl Ledger for MySqlConnection {
    common!();

    fn apply_step<'a>(&'a mut self, up: &'a Migration) -> BoxFuture<'a, Result<(), Error>> {
        const INSERT: &str = "INSERT INTO roster_migrations (version, description, success, checksum, execution_time) VALUES (?, ?, ?, ?, ?)";
        let insert = |success: bool, mark: i64| {
            sqlx::query(INSERT).bind(up.version).bind(&*up.description).bind(success).bind(&*up.checksum).bind(mark)
        };
        Box::pin(async move {
            if is_transactional(up) {
                return transact(self, up, insert(true, 0)).await;
            }
            let before = names(self).await?;
            insert(false, Mark::Apply.encode(before)).execute(&mut *self).await?;
            if let Err(cause) = self.execute(up.sql.clone()).await {
                return Err(undone(self, up, "up", before, REMOVE, cause).await);
            }
            record(self, up).await
        })
    }

    fn revert_step<'a>(&'a mut self, down: &'a Migration) -> BoxFuture<'a, Result<(), Error>> {
        const BEGIN: &str = "UPDATE roster_migrations SET success = FALSE, execution_time = ? WHERE version = ?";
        const UNDO: &str = "UPDATE roster_migrations SET success = TRUE WHERE version = ?";
        Box::pin(async move {
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
        })
    }

    fn finish_apply<'a>(&'a mut self, up: &'a Migration, entry: &'a Entry) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let now = names(self).await?;
            if entry.mark == Mark::Apply.encode(now) {
                // The statement of `up` had no effect. If a foreign table has the same name, `apply_step` fails.
                remove(self, up).await?;
                return self.apply_step(up).await;
            }
            if entry.mark != Mark::Revert.encode(now) {
                repeat(self, up, "up").await?;
            }
            record(self, up).await
        })
    }

    fn finish_revert<'a>(&'a mut self, down: &'a Migration, entry: &'a Entry) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let now = names(self).await?;
            if entry.mark == Mark::Revert.encode(now) {
                return self.revert_step(down).await;
            }
            if entry.mark != Mark::Apply.encode(now) {
                repeat(self, down, "down").await?;
            }
            remove(self, down).await
        })
    }

    fn lock_holder(&mut self) -> BoxFuture<'_, Option<String>> {
        const SQL: &str = concat!(
            "SELECT CONCAT('connection ', id, ', user ', user, ', host ', host) \
             FROM information_schema.processlist WHERE id = IS_USED_LOCK(",
            lock_name!(),
            ")"
        );
        Box::pin(async { sqlx::query_scalar(SQL).fetch_optional(self).await.ok().flatten() })
    }

    fn transaction_holder(&mut self) -> BoxFuture<'_, Option<String>> {
        const SQL: &str = "SELECT CONCAT('connection ', trx_mysql_thread_id, ', transaction since ', trx_started) \
             FROM information_schema.innodb_trx ORDER BY trx_started LIMIT 1";
        Box::pin(async { sqlx::query_scalar(SQL).fetch_optional(self).await.ok().flatten() })
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
    record: sqlx::query::Query<'_, MySql, MySqlArguments>,
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

/// Whether this error of MySQL or MariaDB means that the statement took effect before. The numbers are those of MySQL 9
/// and MariaDB 10.11, which differ for constraints.
#[must_use]
pub fn reports_done(error: &MySqlDatabaseError) -> bool {
    match error.number() {
        // A foreign key exists (MariaDB, with HA_ERR_FOUND_DUPP_KEY), or is wrong.
        1005 => error.message().contains("errno: 121"),
        // The object exists: a table or view, a column, an index, a primary key, a routine, a trigger, an event, a foreign
        // key (MySQL) or check (MariaDB), a check (MySQL).
        1050 | 1060 | 1061 | 1068 | 1304 | 1359 | 1537 | 1826 | 3822
        // The object has its new name: a column, a table, an index.
        | 1054 | 1146 | 1176
        // The object does not exist: a table, a column or key, a routine, a trigger, an event, a check, a constraint, a
        // view (MariaDB).
        | 1051 | 1091 | 1305 | 1360 | 1539 | 3821 | 3940 | 4092 => true,
        _ => false,
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

/// Reads the rows of the ledger without a change. If the ledger does not exist, reads this application's rows of the
/// shared ledger.
async fn readable_ledger(session: &mut Session, steps: &[Step], limits: Limits<'_>) -> Result<Vec<Entry>, Error> {
    let mut wait = Wait::new(limits);
    match own_ledger(session, &mut wait).await? {
        Some(ledger) => Ok(ledger),
        None => read(session, &mut wait, async |conn| shared_entries(conn, steps).await).await,
    }
}

/// The rows of the ledger, if it exists.
async fn own_ledger(session: &mut Session, wait: &mut Wait<'_>) -> Result<Option<Vec<Entry>>, Error> {
    let rows = async |conn: &mut dyn Ledger| match short(conn.entries(TABLE)).await {
        Err(DbError::Schema(_)) => Ok(None),
        rows => Ok(Some(rows?)),
    };
    read(session, wait, rows).await
}

/// Reads with a short lock timeout, again while another session holds a table lock.
async fn read<T>(
    session: &mut Session,
    wait: &mut Wait<'_>,
    statements: impl AsyncFnMut(&mut dyn Ledger) -> Result<T, Error>,
) -> Result<T, Error> {
    set_lock_timeout(session, SHORT_LOCK_TIMEOUT).await?;
    let rows = on_engine!(Session, &mut *session, conn => wait.retry(conn, statements).await)?;
    set_lock_timeout(session, DEFAULT_LOCK_TIMEOUT).await?;
    Ok(rows)
}

/// A row of the ledger.
async fn entry(conn: &mut dyn Ledger, version: i64) -> Result<Option<Entry>, DbError> {
    Ok(short(conn.entries(TABLE)).await?.into_iter().find(|entry| entry.version == version))
}

/// The rows of the shared ledger that this application wrote. They have the version, the name and the checksum of one
/// of its migrations.
async fn shared_entries(conn: &mut dyn Ledger, steps: &[Step]) -> Result<Vec<Entry>, Error> {
    let is_ours = |entry: &Entry| {
        let step = steps.iter().find(|step| step.version == entry.version && step.name == entry.name);
        step.is_some_and(|step| *step.up.checksum == *entry.checksum)
    };
    match short(conn.entries(SHARED_TABLE)).await {
        Ok(entries) => Ok(entries.into_iter().filter(is_ours).collect()),
        Err(DbError::Schema(_)) => Ok(Vec::new()),
        Err(error @ DbError::Query(_)) => {
            // Without this table, no earlier release has applied a migration.
            let has_users =
                !matches!(short(conn.run("SELECT id FROM users WHERE id = 0")).await, Err(DbError::Schema(_)));
            if error.is_refusal() && has_users {
                return Err(Error::SharedLedger(error));
            }
            tracing::info!(%error, "_sqlx_migrations is ignored, because it is not a ledger of this application");
            Ok(Vec::new())
        }
        Err(error) => Err(error.into()),
    }
}

/// Creates the ledger with this application's rows of the shared ledger, unless it exists, and returns its rows. The
/// table is renamed when it is complete, because not every engine can create and fill a table in one transaction. The
/// shared ledger is kept for a roll back.
async fn ensure_ledger(conn: &mut dyn Ledger, steps: &[Step]) -> Result<Vec<Entry>, Error> {
    match short(conn.entries(TABLE)).await {
        Err(DbError::Schema(_)) => {}
        other => return Ok(other?),
    }
    let adopted = shared_entries(conn, steps).await?;
    short(conn.run("DROP TABLE IF EXISTS roster_migrations_new")).await?;
    conn.ensure_migrations_table(NEW_TABLE).await?;
    for entry in &adopted {
        short(conn.adopt(entry)).await?;
        tracing::info!(version = entry.version, "migration adopted from _sqlx_migrations");
    }
    short(conn.run("ALTER TABLE roster_migrations_new RENAME TO roster_migrations")).await?;
    Ok(short(conn.entries(TABLE)).await?)
}

/// Limits the time of a statement that needs no table lock, so that an unresponsive server is detected.
async fn short<T>(statement: impl Future<Output = Result<T, DbError>>) -> Result<T, DbError> {
    timeout(SHORT_STATEMENT, statement).await.unwrap_or(Err(DbError::Timeout(SHORT_STATEMENT)))
}

/// Logs at intervals that a migration is still running. It has no time limit, because it may take long on a large
/// table.
async fn reported<T>(version: i64, migration: impl Future<Output = T>) -> T {
    let started = Instant::now();
    tokio::pin!(migration);
    loop {
        if let Ok(done) = timeout(REPORT_INTERVAL, &mut migration).await {
            return done;
        }
        tracing::info!(version, seconds = started.elapsed().as_secs(), "the migration is still running");
    }
}

/// Whether a statement failed because another session held a table lock. The statement then had no effect.
fn is_lock_timeout(error: &Error) -> bool {
    let (Error::Failed { cause, .. } | Error::Interrupted { cause, .. } | Error::Database(cause)) = error else {
        return false;
    };
    cause.is_lock_timeout()
}

/// The wait of one run for locks that other sessions hold.
struct Wait<'a> {
    limits: Limits<'a>,
    started: Option<Instant>,
    last_reported: Option<Instant>,
}

impl<'a> Wait<'a> {
    const fn new(limits: Limits<'a>) -> Self {
        Self { limits, started: None, last_reported: None }
    }

    /// Executes statements, again while another session holds a table lock.
    async fn retry<T>(
        &mut self,
        conn: &mut dyn Ledger,
        mut statements: impl AsyncFnMut(&mut dyn Ledger) -> Result<T, Error>,
    ) -> Result<T, Error> {
        loop {
            match statements(conn).await {
                Err(error) if is_lock_timeout(&error) => self.pause(TABLE_LOCK, conn.transaction_holder()).await?,
                done => return done,
            }
        }
    }

    /// Waits for the next attempt if SQLite reports that another process writes. Returns any other error.
    async fn pause_if_busy(&mut self, error: sqlx::Error) -> Result<(), Error> {
        let error = DbError::from(error);
        if !error.is_lock_timeout() {
            return Err(error.into());
        }
        self.pause(MIGRATIONS, std::future::ready(None)).await
    }

    /// Waits for the next attempt, or fails after the time limit.
    async fn pause(&mut self, lock: &'static str, holder: impl Future<Output = Option<String>>) -> Result<(), Error> {
        let waited = self.started.get_or_insert_with(Instant::now).elapsed();
        let is_over = waited >= self.limits.lock_timeout;
        if is_over || self.last_reported.is_none_or(|last| last.elapsed() >= REPORT_INTERVAL) {
            self.last_reported = Some(Instant::now());
            let holder = timeout(SHORT_STATEMENT, holder).await.ok().flatten();
            let holder = holder.unwrap_or_else(|| "the engine does not report it".to_owned());
            if is_over {
                return Err(Error::LockTimeout { lock, waited, holder });
            }
            tracing::warn!(lock, holder, seconds = waited.as_secs(), "waiting for a lock of another session");
        }
        tokio::select! {
            () = sleep(LOCK_POLL) => Ok(()),
            () = self.limits.stop.cancelled() => Err(Error::Stopped),
        }
    }
}

/// The statements that set the longest wait of a session for a lock: for SQLite, MySQL and PostgreSQL.
type LockTimeout = [&'static str; 3];

/// Each attempt is short, so that a signal or the time limit ends the run. A statement that waits for a table lock also
/// blocks all later statements on the table.
const SHORT_LOCK_TIMEOUT: LockTimeout = [
    "PRAGMA busy_timeout = 100",
    "SET SESSION lock_wait_timeout = 1, SESSION innodb_lock_wait_timeout = 1",
    "SET lock_timeout = '1s'",
];
/// The default of the driver, or that of the server.
const DEFAULT_LOCK_TIMEOUT: LockTimeout = [
    "PRAGMA busy_timeout = 5000",
    "SET SESSION lock_wait_timeout = DEFAULT, SESSION innodb_lock_wait_timeout = DEFAULT",
    "RESET lock_timeout",
];

async fn set_lock_timeout(session: &mut Session, [sqlite, mysql, postgres]: LockTimeout) -> Result<(), DbError> {
    short(async {
        match session {
            Session::Sqlite(conn) => conn.run(sqlite).await,
            Session::MySql(conn) => conn.run(mysql).await,
            Session::Postgres(conn) => conn.run(postgres).await,
        }
    })
    .await
}

/// Does some work while no other process can. The lock ends with the work, or with the session when
/// the work fails.
async fn with_lock<T>(
    session: &mut Session,
    wait: &mut Wait<'_>,
    work: impl AsyncFnOnce(&mut dyn Ledger, &mut Wait<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    set_lock_timeout(session, SHORT_LOCK_TIMEOUT).await?;
    let done = match session {
        Session::Sqlite(conn) => {
            // With the write-ahead log, a property of the file, readers and a writer do not wait for each other:
            // https://sqlite.org/wal.html. It cannot be turned on in a transaction.
            while let Err(error) = conn.execute("PRAGMA journal_mode = WAL").await {
                wait.pause_if_busy(error).await?;
            }
            let mut transaction = loop {
                match conn.begin_with("BEGIN IMMEDIATE").await {
                    Ok(transaction) => break transaction,
                    Err(error) => wait.pause_if_busy(error).await?,
                }
            };
            let done = work(&mut *transaction, wait).await?;
            transaction.commit().await?;
            done
        }
        Session::MySql(conn) => {
            const LOCK: &str = concat!("SELECT GET_LOCK(", lock_name!(), ", 0)");
            const UNLOCK: &str = concat!("SELECT RELEASE_LOCK(", lock_name!(), ")");
            loop {
                let answer = async { Ok(sqlx::query_scalar(LOCK).fetch_one(&mut *conn).await?) };
                let answer: Option<i64> = short(answer).await?;
                match answer {
                    Some(1) => break,
                    Some(_) => wait.pause(MIGRATIONS, conn.lock_holder()).await?,
                    None => return Err(Error::Lock),
                }
            }
            let done = work(conn, wait).await?;
            conn.execute(UNLOCK).await?;
            done
        }
        Session::Postgres(conn) => {
            loop {
                let answer = async {
                    Ok(sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
                        .bind(LOCK_KEY)
                        .fetch_one(&mut *conn)
                        .await?)
                };
                if short(answer).await? {
                    break;
                }
                wait.pause(MIGRATIONS, conn.lock_holder()).await?;
            }
            let done = work(conn, wait).await?;
            sqlx::query("SELECT pg_advisory_unlock($1)").bind(LOCK_KEY).execute(&mut *conn).await?;
            done
        }
    };
    set_lock_timeout(session, DEFAULT_LOCK_TIMEOUT).await?;
    Ok(done)
}
