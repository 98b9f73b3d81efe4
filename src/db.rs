//! The attached database (factor IV): three engines behind one set of queries.
//!
//! [`Db`] is what a request uses, a pool of connections with time limits; [`Session`] is what an
//! admin task uses, one connection that may take its time. Each is an enum of the three engines, and
//! the `on_engine!` macro repeats an expression for each of its variants, so that a query is written
//! once and every driver still sees its own types. Their SQL has two dialects, named by the trait `Dialect`.

mod dialect;
mod engine;
mod error;
pub mod migrations;
mod pool;
mod pooler;
mod value;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::{ConnectOptions as _, Connection, Database, Executor as _};
use sqlx::{MySql, MySqlConnection, PgConnection, Postgres, Sqlite, SqliteConnection};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, DatabaseUrl, DriverOptions};
use dialect::Abandoned;
pub use dialect::Dialect;
use engine::mysql;
pub use error::Error;
pub use pool::Connections;
use pool::Pool;
pub use value::{Timestamp, Value, Values};

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

/// What an engine's driver connects with.
type Options<DB> = <<DB as Database>::Connection as Connection>::Options;

/// The longest time to open the session of an admin task. A server that starts, or is far away, may need seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest time to close it. A server may be unresponsive.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The database as requests use it. Cloning is cheap and shares the pool.
#[derive(Clone)]
pub enum Db {
    /// A file beside the process.
    Sqlite(Pool<Sqlite>),
    /// MySQL or MariaDB.
    MySql(Pool<MySql>),
    /// PostgreSQL.
    Postgres(Pool<Postgres>),
}

impl Db {
    /// A pool without connections: each is opened when it is first needed, so a process starts
    /// whether or not its database is there.
    #[must_use]
    pub fn open(config: &Config) -> Self {
        match config.database_url.options.clone() {
            DriverOptions::Sqlite(options) => {
                // A lock that outlives the query's limit must not keep the connection's thread.
                let limit = Duration::from_millis(config.database_query_timeout_ms.get());
                Self::Sqlite(Pool::new(&options.busy_timeout(limit), config))
            }
            DriverOptions::MySql(options) => Self::MySql(Pool::new(&mysql::options(options), config)),
            DriverOptions::Postgres(options) => Self::Postgres(Pool::new(&options, config)),
        }
    }

    /// The version of the schema that the database has, 0 when it has none. It is read on a connection of its own, so
    /// that the answer does not depend on how busy the pool is.
    ///
    /// # Errors
    /// Those of any query, when the database does not answer.
    pub async fn schema_version(&self) -> Result<i64, Error> {
        const SQL: &str = "SELECT MAX(version) FROM roster_migrations WHERE success";
        let version: Result<Option<i64>, Error> = on_engine!(Db, self, pool => pool.probe(async |conn, persistent| {
                sqlx::query_scalar(SQL).persistent(persistent).fetch_one(conn).await
            }).await);
        match version {
            Ok(version) => Ok(version.unwrap_or(0)),
            Err(Error::Schema(_)) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Whether the database answers, and its schema has at least the required version.
    ///
    /// # Errors
    /// What is missing.
    pub async fn ready(&self, required: i64) -> Result<(), Unready> {
        match self.schema_version().await {
            Ok(found) if found >= required => Ok(()),
            Ok(found) => Err(Unready::Schema { found, required }),
            Err(error) => Err(Unready::Database(error)),
        }
    }

    /// Executes statements in one transaction: all of them or none.
    ///
    /// # Errors
    /// Those of the statements; then none of them has an effect, now or later. Only [`Error::Unconfirmed`] leaves that
    /// open.
    pub async fn execute(&self, statements: &[&'static str]) -> Result<(), Error> {
        on_engine!(Db, self, pool => pool.transaction(async |conn| {
            for &sql in statements {
                conn.execute(sql).await?;
            }
            Ok(())
        }).await)
    }

    /// The same pool as this worker should use it: what it opens is its own first, because a connection is woken on
    /// the thread that opened it.
    #[must_use]
    pub fn for_worker(&self, worker: usize) -> Self {
        match self {
            Self::Sqlite(pool) => Self::Sqlite(pool.for_worker(worker)),
            Self::MySql(pool) => Self::MySql(pool.for_worker(worker)),
            Self::Postgres(pool) => Self::Postgres(pool.for_worker(worker)),
        }
    }

    /// How the pool is used just now.
    #[must_use]
    pub fn connections(&self) -> Connections {
        on_engine!(Db, self, pool => pool.connections())
    }

    /// Closes every idle connection as its protocol wants it, and opens no new one.
    pub async fn close(&self) {
        on_engine!(Db, self, pool => pool.close().await);
    }
}

/// Opens a session and sets it up, unless a pooler would keep none of its settings. Its future is boxed, so that the
/// whole of a driver's handshake is compiled once.
fn connect<'a, DB: Dialect>(
    options: &'a Options<DB>,
    transaction_pooling: bool,
    limit: Option<Duration>,
    abandoned: &'a Abandoned,
) -> BoxFuture<'a, Result<DB::Connection, sqlx::Error>> {
    Box::pin(async move {
        let mut connection = options.connect().await?;
        if !transaction_pooling {
            DB::set_up(&mut connection, limit, abandoned).await?;
        }
        Ok(connection)
    })
}

/// Why a process cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum Unready {
    /// The database does not answer.
    #[error("{0}")]
    Database(#[source] Error),
    /// The schema is older than this release.
    #[error("the schema is at version {found}, this release needs {required}: run `migrate up`")]
    Schema {
        /// The version that the database has.
        found: i64,
        /// The version that this release needs.
        required: i64,
    },
}

/// One connection of its own, without the time limits of requests.
pub enum Session {
    /// A file beside the process.
    Sqlite(SqliteConnection),
    /// MySQL or MariaDB.
    MySql(MySqlConnection),
    /// PostgreSQL.
    Postgres(PgConnection),
}

impl Session {
    /// Opens a connection, unless `stop` is cancelled first.
    ///
    /// # Errors
    /// [`Error::Connect`] with the cause, also when the server is silent, [`Error::Stopped`] and [`Error::Pooler`].
    pub async fn open(url: &DatabaseUrl, stop: &CancellationToken) -> Result<Self, Error> {
        tokio::select! {
            opened = timeout(CONNECT_TIMEOUT, Self::connect(url)) => opened.unwrap_or_else(|_| {
                let cause = format!("no answer within {} s; is this the port of the database?", CONNECT_TIMEOUT.as_secs());
                Err(Error::connect(url.address(), io::Error::new(io::ErrorKind::TimedOut, cause).into()))
            }),
            () = stop.cancelled() => Err(Error::Stopped),
        }
    }

    async fn connect(url: &DatabaseUrl) -> Result<Self, Error> {
        if url.transaction_pooling {
            return Err(Error::Pooler);
        }
        let never = Abandoned::default();
        let mut opened = match &url.options {
            DriverOptions::Sqlite(options) => connect::<Sqlite>(options, false, None, &never).await.map(Self::Sqlite),
            DriverOptions::MySql(options) => {
                connect::<MySql>(&mysql::options(options.clone()), false, None, &never).await.map(Self::MySql)
            }
            DriverOptions::Postgres(options) => {
                connect::<Postgres>(options, false, None, &never).await.map(Self::Postgres)
            }
        };
        if let (Ok(Self::Postgres(conn)), DriverOptions::Postgres(options)) = (&mut opened, &url.options)
            && pooler::shares_session(conn, options).await?
        {
            return Err(Error::Pooler);
        }
        opened.map_err(|cause| Error::connect(url.address(), cause))
    }

    /// Runs one statement that has no parameters, such as `BEGIN` or `COMMIT`.
    ///
    /// # Errors
    /// Those of the statement.
    pub async fn execute(&mut self, sql: &'static str) -> Result<(), Error> {
        on_engine!(Session, self, conn => conn.execute(sql).await.map(drop)).map_err(Error::from)
    }

    /// Begins a transaction that writes.
    ///
    /// # Errors
    /// Those of the statement.
    pub async fn begin(&mut self) -> Result<(), Error> {
        fn statement<C: Connection<Database: Dialect>>(_: &C) -> &'static str {
            C::Database::BEGIN
        }
        let statement = on_engine!(Session, self, conn => statement(conn));
        self.execute(statement).await
    }

    /// The file of an SQLite database. None for a server, and for a database in memory.
    ///
    /// # Errors
    /// Those of the statement.
    pub async fn file(&mut self) -> Result<Option<PathBuf>, Error> {
        let Self::Sqlite(conn) = self else { return Ok(None) };
        let file = sqlx::query_scalar("SELECT file FROM pragma_database_list WHERE name = 'main'");
        let file: Option<String> = file.fetch_one(conn).await?;
        Ok(file.filter(|file| !file.is_empty()).map(PathBuf::from))
    }

    /// Closes the session. An error changes nothing, because the work is committed.
    pub async fn close(self) {
        let _ = timeout(CLOSE_TIMEOUT, async { on_engine!(Session, self, conn => conn.close().await) }).await;
    }
}
