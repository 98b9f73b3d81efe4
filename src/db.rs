//! The attached database (factor IV): three engines behind one set of queries.
//!
//! [`Db`] is what a request uses, a pool of connections with time limits; [`Session`] is what an
//! admin task uses, one connection that may take its time. Each is an enum of the three engines, and
//! the `on_engine!` macro repeats an expression for each of its variants, so that a query is written
//! once and every driver still sees its own types. Their SQL has two dialects, named by the trait `Dialect`.

mod error;
pub mod friends;
pub mod migrations;
mod pool;
pub mod users;

use std::time::Duration;

use sqlx::{Connection as _, Executor as _};
use sqlx::{MySql, MySqlConnection, PgConnection, Postgres, QueryBuilder, Sqlite, SqliteConnection};

use crate::config::{Config, DatabaseUrl, DriverOptions};
pub use error::Error;
pub use pool::Connections;
use pool::Pool;

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
use on_engine;

/// Where the engines' SQL differs. Placeholders do as well, and `QueryBuilder` writes those.
trait Dialect: sqlx::Database + Sized {
    /// Ends an `INSERT` whose rows may be there already; `key` is a column of the table's primary key.
    fn keep_existing(insert: &mut QueryBuilder<Self>, _key: &'static str) {
        insert.push(" ON CONFLICT DO NOTHING");
    }
    /// Reads the ledger of migrations: version, checksum, success, and time as text in UTC.
    const LEDGER: &'static str;
    /// Lets ids continue after the highest that was inserted by hand, where the engine does not by itself.
    const CONTINUE_IDS: Option<&'static str> = None;
}

impl Dialect for Sqlite {
    const LEDGER: &'static str =
        "SELECT version, checksum, success, CAST(installed_on AS TEXT) FROM _sqlx_migrations ORDER BY version";
}

impl Dialect for MySql {
    const LEDGER: &'static str =
        "SELECT version, checksum, success, CAST(installed_on AS CHAR) FROM _sqlx_migrations ORDER BY version";

    // INSERT IGNORE would hide every other error as well.
    fn keep_existing(insert: &mut QueryBuilder<Self>, key: &'static str) {
        insert.push(" ON DUPLICATE KEY UPDATE ").push(key).push(" = ").push(key);
    }
}

impl Dialect for Postgres {
    const LEDGER: &'static str = "SELECT version, checksum, success, \
         to_char(installed_on AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') FROM _sqlx_migrations ORDER BY version";
    const CONTINUE_IDS: Option<&'static str> = Some(
        "SELECT setval('users_id_seq', greatest((SELECT max(id) FROM users), (SELECT last_value FROM users_id_seq)))",
    );
}

/// The oldest schema that this code can serve. A newer one is served too, so that a release can be
/// rolled back without its database.
pub const REQUIRED_SCHEMA: i64 = 2;

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
            DriverOptions::MySql(options) => Self::MySql(Pool::new(&options, config)),
            DriverOptions::Postgres(options) => Self::Postgres(Pool::new(&options, config)),
        }
    }

    /// The version of the schema that the database has, 0 when it has none.
    ///
    /// # Errors
    /// Those of any query, when the database does not answer.
    pub async fn schema_version(&self) -> Result<i64, Error> {
        const SQL: &str = "SELECT MAX(version) FROM _sqlx_migrations WHERE success";
        let version: Result<Option<i64>, Error> = on_engine!(Db, self, pool => pool.run(async |conn, persistent| {
                sqlx::query_scalar(SQL).persistent(persistent).fetch_one(conn).await
            }).await);
        match version {
            Ok(version) => Ok(version.unwrap_or(0)),
            Err(Error::Schema(_)) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Whether this process can serve: the database answers, and its schema is new enough.
    ///
    /// # Errors
    /// What is missing.
    pub async fn ready(&self) -> Result<(), Unready> {
        match self.schema_version().await {
            Ok(found) if found >= REQUIRED_SCHEMA => Ok(()),
            Ok(found) => Err(Unready::Schema { found }),
            Err(error) => Err(Unready::Database(error)),
        }
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

    /// Closes every idle connection with the goodbye of its protocol, and lets no new one be opened.
    pub async fn close(&self) {
        on_engine!(Db, self, pool => pool.close().await);
    }
}

/// Why a process cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum Unready {
    /// The database does not answer.
    #[error("{0}")]
    Database(#[source] Error),
    /// The schema is older than this release.
    #[error("the schema is at version {found}, this release needs {REQUIRED_SCHEMA}: run `migrate up`")]
    Schema {
        /// The version that the database has.
        found: i64,
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
    /// Opens a connection.
    ///
    /// # Errors
    /// [`Error::Connect`] with the cause, and [`Error::Pooler`].
    pub async fn open(url: &DatabaseUrl) -> Result<Self, Error> {
        if url.is_lent_by_transaction {
            return Err(Error::Pooler);
        }
        let opened = match url.options.clone() {
            DriverOptions::Sqlite(options) => SqliteConnection::connect_with(&options).await.map(Self::Sqlite),
            DriverOptions::MySql(options) => MySqlConnection::connect_with(&options).await.map(Self::MySql),
            DriverOptions::Postgres(options) => PgConnection::connect_with(&options).await.map(Self::Postgres),
        };
        opened.map_err(|cause| Error::connect(url.address(), cause))
    }

    /// Runs one statement that has no parameters, such as `BEGIN` or `COMMIT`.
    ///
    /// # Errors
    /// Those of the statement.
    pub async fn execute(&mut self, sql: &'static str) -> Result<(), Error> {
        on_engine!(Session, self, conn => conn.execute(sql).await.map(drop)).map_err(Error::from)
    }

    /// Says goodbye to the server.
    pub async fn close(self) {
        // The work is done and committed: a goodbye that fails changes nothing.
        let _ = on_engine!(Session, self, conn => conn.close().await);
    }
}
