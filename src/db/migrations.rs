//! The schema's migrations and their safety (factor XII: admin processes).
//!
//! The files in `migrations/` have the same numbers and the same meaning on every engine and are part
//! of the binary. sqlx applies them and keeps the ledger, the table `_sqlx_migrations`. Its lock does
//! not hold on MariaDB and is nothing on SQLite, so the locks are ours, and so is what follows a
//! process that was killed half-way:
//!
//! | engine | lock | killed half-way |
//! |---|---|---|
//! | PostgreSQL | a session's advisory lock | the transaction never happened |
//! | SQLite | `BEGIN IMMEDIATE` around the whole run | the transaction never happened |
//! | MySQL, MariaDB | `GET_LOCK`, its answer checked | the ledger has a row without success, and the next run repeats its one statement |

use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType};
use sqlx::{Connection as _, Executor as _, MySqlConnection, PgConnection, SqlStr, SqliteConnection};
use tokio_util::sync::CancellationToken;

use super::{Dialect, Error as DbError, Session, on_engine};

const TABLE: &str = "_sqlx_migrations";
/// How often a waiting process asks for the lock.
const LOCK_POLL: Duration = Duration::from_millis(100);
/// Names the lock; any number that no other program uses on this database.
const LOCK_KEY: i64 = 0x726f_7374_6572;

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

const SQLITE: [(i64, &str, &str, &str); 2] = embedded!("sqlite": 1 "users", 2 "friends");
const MYSQL: [(i64, &str, &str, &str); 2] = embedded!("mysql": 1 "users", 2 "friends");
const POSTGRES: [(i64, &str, &str, &str); 2] = embedded!("postgres": 1 "users", 2 "friends");

/// A migration and its way back.
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

/// Why a migration did not happen. Nothing is left half-done, unless the text says so.
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
        /// What the database said.
        cause: DbError,
    },
    /// A migration's file is not the one that was applied.
    #[error(
        "migration {0} was changed after it had been applied: restore its file, and put the change into a new migration"
    )]
    Modified(i64),
    /// A release newer than this one was here.
    #[error("migration {0} belongs to a newer release: run that release's `migrate`")]
    Newer(i64),
    /// The server refused to say whether the lock is taken.
    #[error("GET_LOCK failed: the server gave NULL instead of an answer; see its log, then run `migrate` again")]
    Lock,
    /// A signal came before the lock did.
    #[error("stopped while waiting for another `migrate` to end; nothing was changed")]
    Stopped,
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

/// A line of the ledger, or a migration that is not in it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Status {
    /// The migration's number.
    pub version: i64,
    /// Its name, which a binary older than the migration does not know.
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
    /// It waits for `migrate up`.
    Pending,
    /// Its process was killed on the way; `migrate up` or `migrate down` finishes it.
    Interrupted,
    /// It was applied from a file that has changed since.
    Modified,
    /// It was applied by a newer release.
    Newer,
}

/// Every migration that the binary or the database knows, in order.
///
/// # Errors
/// Those of the database.
pub async fn status(session: &mut Session) -> Result<Vec<Status>, Error> {
    let steps = steps(session);
    let ledger = on_engine!(Session, session, conn => ledger_or_none(conn).await)?;
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
pub async fn pending(session: &mut Session, to: Option<i64>) -> Result<Vec<(i64, &'static str, String)>, Error> {
    let steps = steps(session);
    let ledger = on_engine!(Session, session, conn => ledger_or_none(conn).await)?;
    check(&ledger, &steps)?;
    Ok(steps
        .into_iter()
        .filter(|step| to.is_none_or(|to| step.version <= to))
        .filter(|step| !ledger.iter().any(|entry| entry.version == step.version && entry.success))
        .map(|step| (step.version, step.name, step.up.sql.as_str().to_owned()))
        .collect())
}

/// Applies every pending migration, or those up to a version, and tells which. Any number of processes
/// may do so at once: one works, the others wait and find nothing left to do. When `stop` is cancelled
/// it ends before the next migration.
///
/// # Errors
/// [`Error::Failed`] names the migration; those before it stay applied, except on SQLite, where the
/// whole run is one transaction.
pub async fn up(session: &mut Session, to: Option<i64>, stop: &CancellationToken) -> Result<Vec<i64>, Error> {
    let steps = steps(session);
    if let Session::Sqlite(conn) = session {
        write_ahead(conn, stop).await?;
    }
    with_lock(session, stop, async |conn| {
        conn.ensure_migrations_table(TABLE).await?;
        let ledger = conn.ledger().await?;
        check(&ledger, &steps)?;
        let mut done = Vec::new();
        for step in steps.iter().filter(|step| to.is_none_or(|to| step.version <= to)) {
            let version = step.version;
            match ledger.iter().find(|entry| entry.version == version) {
                Some(entry) if entry.success => continue,
                _ if stop.is_cancelled() => break,
                Some(_) => {
                    tracing::warn!(version, "the migration was interrupted; its statement is repeated");
                    conn.finish_up(&step.up).await?;
                }
                None => {
                    if let Err(error) = conn.apply(TABLE, &step.up).await {
                        conn.forget_failure(version, false).await?;
                        return Err(error.into());
                    }
                }
            }
            tracing::info!(version, name = step.name, "migration applied");
            done.push(version);
        }
        Ok(done)
    })
    .await
}

/// Reverts the last migration, or every one above a version, and tells which. When `stop` is
/// cancelled it ends before the next one.
///
/// # Errors
/// [`Error::Failed`] names the migration; [`Error::Newer`] one whose way back this binary does not have.
pub async fn down(session: &mut Session, to: Option<i64>, stop: &CancellationToken) -> Result<Vec<i64>, Error> {
    let steps = steps(session);
    with_lock(session, stop, async |conn| {
        conn.ensure_migrations_table(TABLE).await?;
        let ledger = conn.ledger().await?;
        let last = ledger.last().map_or(0, |entry| entry.version);
        let to = to.unwrap_or(last - 1);
        let mut done = Vec::new();
        for entry in ledger.iter().rev().filter(|entry| entry.version > to) {
            if stop.is_cancelled() {
                break;
            }
            let version = entry.version;
            let known = steps.iter().find(|step| step.version == version).ok_or(Error::Newer(version))?;
            if entry.success {
                if let Err(error) = conn.revert(TABLE, &known.down).await {
                    conn.forget_failure(version, true).await?;
                    return Err(match error {
                        MigrateError::Execute(cause) => Error::Failed { version, cause: cause.into() },
                        other => other.into(),
                    });
                }
            } else {
                tracing::warn!(version, "the migration was interrupted; its way back is repeated");
                conn.finish_down(&known.down).await?;
            }
            tracing::info!(version, name = known.name, "migration reverted");
            done.push(version);
        }
        Ok(done)
    })
    .await
}

/// Refuses a history that this binary cannot continue.
fn check(ledger: &[Entry], steps: &[Step]) -> Result<(), Error> {
    for entry in ledger {
        match steps.iter().find(|step| step.version == entry.version) {
            Some(step) if entry.success && *step.up.checksum != *entry.checksum => {
                return Err(Error::Modified(entry.version));
            }
            // A newer release was here, and was rolled back: what it applied stays.
            None if !entry.success => return Err(Error::Newer(entry.version)),
            _ => {}
        }
    }
    Ok(())
}

/// A row of the ledger.
struct Entry {
    version: i64,
    checksum: Vec<u8>,
    success: bool,
    at: String,
}

/// What migrations need of a connection beyond sqlx's own trait.
trait Ledger: Migrate + Send {
    fn ledger(&mut self) -> BoxFuture<'_, Result<Vec<Entry>, DbError>>;

    /// Clears the trace of a statement that failed and had no effect. Where a migration is a
    /// transaction, there is none.
    fn forget_failure(&mut self, _version: i64, _applied: bool) -> BoxFuture<'_, Result<(), DbError>> {
        Box::pin(async { Ok(()) })
    }

    /// Repeats the statement of an interrupted migration. Where a migration is a transaction, none
    /// is ever interrupted.
    fn finish_up<'a>(&'a mut self, migration: &'a Migration) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async { Ok(self.apply(TABLE, migration).await.map(drop)?) })
    }

    /// Repeats the statement of an interrupted way back.
    fn finish_down<'a>(&'a mut self, migration: &'a Migration) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async { Ok(self.revert(TABLE, migration).await.map(drop)?) })
    }
}

/// The ledger's query, which differs by dialect alone.
macro_rules! ledger_query {
    ($conn:expr) => {
        Box::pin(async move {
            fn sql<C: sqlx::Connection<Database: Dialect>>(_: &C) -> &'static str {
                <C::Database as Dialect>::LEDGER
            }
            let rows: Vec<(i64, Vec<u8>, bool, String)> = sqlx::query_as(sql($conn)).fetch_all($conn).await?;
            let entry = |(version, checksum, success, at)| Entry { version, checksum, success, at };
            Ok(rows.into_iter().map(entry).collect())
        })
    };
}

impl Ledger for SqliteConnection {
    fn ledger(&mut self) -> BoxFuture<'_, Result<Vec<Entry>, DbError>> {
        ledger_query!(self)
    }
}

impl Ledger for PgConnection {
    fn ledger(&mut self) -> BoxFuture<'_, Result<Vec<Entry>, DbError>> {
        ledger_query!(self)
    }
}

/// MySQL commits before and after each DDL statement, so a migration is never a transaction. But each
/// file is one statement, and each statement is atomic (MySQL 8.0, MariaDB 10.6): after a kill it
/// has happened or not, and repeating it tells which.
impl Ledger for MySqlConnection {
    fn ledger(&mut self) -> BoxFuture<'_, Result<Vec<Entry>, DbError>> {
        ledger_query!(self)
    }

    fn forget_failure(&mut self, version: i64, applied: bool) -> BoxFuture<'_, Result<(), DbError>> {
        let sql = if applied {
            "UPDATE _sqlx_migrations SET success = TRUE WHERE version = ? AND NOT success"
        } else {
            "DELETE FROM _sqlx_migrations WHERE version = ? AND NOT success"
        };
        Box::pin(async move {
            sqlx::query(sql).bind(version).execute(self).await?;
            Ok(())
        })
    }

    fn finish_up<'a>(&'a mut self, migration: &'a Migration) -> BoxFuture<'a, Result<(), Error>> {
        // ER_TABLE_EXISTS_ERROR, ER_DUP_FIELDNAME, ER_DUP_KEYNAME: it has happened.
        Box::pin(async {
            repeat(self, migration, &[1050, 1060, 1061]).await?;
            sqlx::query("UPDATE _sqlx_migrations SET success = TRUE, checksum = ? WHERE version = ?")
                .bind(&*migration.checksum)
                .bind(migration.version)
                .execute(self)
                .await?;
            Ok(())
        })
    }

    fn finish_down<'a>(&'a mut self, migration: &'a Migration) -> BoxFuture<'a, Result<(), Error>> {
        // ER_BAD_TABLE_ERROR, ER_CANT_DROP_FIELD_OR_KEY: it has happened.
        Box::pin(async {
            repeat(self, migration, &[1051, 1091]).await?;
            let sql = "DELETE FROM _sqlx_migrations WHERE version = ?";
            sqlx::query(sql).bind(migration.version).execute(self).await?;
            Ok(())
        })
    }
}

/// Runs a statement that may have run before, which the server tells by one of these error numbers.
async fn repeat(conn: &mut MySqlConnection, migration: &Migration, happened: &[u16]) -> Result<(), Error> {
    let Err(cause) = conn.execute(migration.sql.clone()).await else { return Ok(()) };
    let number = cause
        .as_database_error()
        .and_then(|error| error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>())
        .map(sqlx::mysql::MySqlDatabaseError::number);
    match number {
        Some(number) if happened.contains(&number) => Ok(()),
        _ => Err(Error::Failed { version: migration.version, cause: cause.into() }),
    }
}

/// The ledger, empty where there is none yet.
async fn ledger_or_none(conn: &mut dyn Ledger) -> Result<Vec<Entry>, DbError> {
    match conn.ledger().await {
        Err(DbError::Schema(_)) => Ok(Vec::new()),
        other => other,
    }
}

/// Does some work while no other process can. The lock ends with the work, or with the session when
/// the work fails.
async fn with_lock<T>(
    session: &mut Session,
    stop: &CancellationToken,
    work: impl AsyncFnOnce(&mut dyn Ledger) -> Result<T, Error>,
) -> Result<T, Error> {
    match session {
        Session::Sqlite(conn) => loop {
            match conn.begin_with("BEGIN IMMEDIATE").await {
                Ok(mut transaction) => {
                    let done = work(&mut *transaction).await?;
                    transaction.commit().await?;
                    return Ok(done);
                }
                Err(error) => wait_if_busy(error, stop).await?,
            }
        },
        Session::MySql(conn) => {
            // Locks belong to the server, so the name has the database in it; 64 characters at most.
            const LOCK: &str = "SELECT GET_LOCK(CONCAT('roster migrate ', MD5(DATABASE())), 0)";
            const UNLOCK: &str = "SELECT RELEASE_LOCK(CONCAT('roster migrate ', MD5(DATABASE())))";
            loop {
                let answer: Option<i64> = sqlx::query_scalar(LOCK).fetch_one(&mut *conn).await?;
                match answer {
                    Some(1) => break,
                    Some(_) => wait(stop).await?,
                    None => return Err(Error::Lock),
                }
            }
            let done = work(conn).await?;
            conn.execute(UNLOCK).await?;
            Ok(done)
        }
        Session::Postgres(conn) => {
            while !sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(LOCK_KEY).fetch_one(&mut *conn).await? {
                wait(stop).await?;
            }
            let done = work(conn).await?;
            sqlx::query("SELECT pg_advisory_unlock($1)").bind(LOCK_KEY).execute(conn).await?;
            Ok(done)
        }
    }
}

async fn wait(stop: &CancellationToken) -> Result<(), Error> {
    tokio::select! {
        () = tokio::time::sleep(LOCK_POLL) => Ok(()),
        () = stop.cancelled() => Err(Error::Stopped),
    }
}

/// Waits when SQLite says that another process writes; any other error stays one.
async fn wait_if_busy(error: sqlx::Error, stop: &CancellationToken) -> Result<(), Error> {
    match error.as_database_error().and_then(|cause| cause.code()?.parse::<i32>().ok()) {
        // SQLITE_BUSY in the low byte: https://sqlite.org/rescode.html#busy
        Some(code) if code & 0xff == 5 => wait(stop).await,
        _ => Err(error.into()),
    }
}

/// Turns on the write-ahead log, a property of the file, with which readers and a writer do not
/// wait for each other: <https://sqlite.org/wal.html>. It cannot be done in a transaction.
async fn write_ahead(conn: &mut SqliteConnection, stop: &CancellationToken) -> Result<(), Error> {
    while let Err(error) = conn.execute("PRAGMA journal_mode = WAL").await {
        wait_if_busy(error, stop).await?;
    }
    Ok(())
}
