//! The attached database (factor IV): three engines behind one set of queries.
//!
//! [`Db`] is what a request uses, a pool of connections with time limits; [`Session`] is what an
//! admin task uses, one connection without time limits. Each is an enum of the three engines, and the `on_engine!` macro
//! repeats an expression for each variant, so that a query is written once and every driver has its own types. The
//! trait `Dialect` names where the engines differ, and a file in `engine/` has everything that is one engine's own.

mod batch;
mod dialect;
mod engine;
mod error;
mod metrics;
pub mod migrations;
mod pool;
mod select;
mod session;
mod sql;
mod transaction;
mod value;

use std::convert::Infallible;
use std::time::Duration;

use prometheus::core::Collector;
use sqlx::{MySql, Postgres, SqlStr, Sqlite};

use crate::config::{Config, DriverOptions};
pub use batch::statement;
pub use dialect::Dialect;
pub(crate) use engine::on_engine;
use engine::{mysql, sqlite};
pub use error::Error;
pub use metrics::Connections;
use pool::Pool;
pub use select::Select;
pub use session::Session;
pub use sql::Sql;
use transaction::Closure;
pub use transaction::Transaction;
pub use value::{Row, Timestamp, Value, Values};

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
    /// A pool without connections. Each is opened when it is first needed, so a process starts without its database.
    #[must_use]
    pub fn open(config: &Config) -> Self {
        match config.database_url.options.clone() {
            DriverOptions::Sqlite(options) => {
                let limit = Duration::from_millis(config.database_query_timeout_ms.get());
                let options = sqlite::options(options, limit, config.database_max_connections.get());
                Self::Sqlite(Pool::new(&options, config))
            }
            DriverOptions::MySql(options) => Self::MySql(Pool::new(&mysql::options(options), config)),
            DriverOptions::Postgres(options) => Self::Postgres(Pool::new(&options, config)),
        }
    }

    /// The version of the schema in the database, or 0 if it has none. It is read on a separate connection, so the result
    /// does not depend on the load of the pool.
    ///
    /// # Errors
    /// Those of any query.
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

    /// Checks that the database responds, and that its schema has at least the required version.
    ///
    /// # Errors
    /// The reason why the process is not ready.
    pub async fn ready(&self, required: i64) -> Result<(), Unready> {
        match self.schema_version().await {
            Ok(found) if found >= required => Ok(()),
            Ok(found) => Err(Unready::Schema { found, required }),
            Err(error) => Err(Unready::Database(error)),
        }
    }

    /// Whether `(a, b) > ($1, $2)` is one range of an index on a and b.
    #[must_use]
    pub fn compares_pairs(&self) -> bool {
        fn compares_pairs<DB: Dialect>(_: &Pool<DB>) -> bool {
            DB::COMPARES_PAIRS
        }
        on_engine!(Db, self, pool => compares_pairs(pool))
    }

    /// Calls `each` with `rows` and each row of the query, and returns `rows`.
    ///
    /// # Errors
    /// Those of the query, and of `each`.
    pub async fn fetch<T>(
        &self,
        select: &Select,
        rows: T,
        each: impl FnMut(&mut T, Row<'_>) -> Result<(), sqlx::Error>,
    ) -> Result<T, Error> {
        let (mut rows, mut each) = (rows, each);
        let each = &mut |_, row: Option<Row<'_>>| row.map_or(Ok(()), |row| each(&mut rows, row));
        on_engine!(Db, self, pool => pool.fetch(select, each).await)?;
        Ok(rows)
    }

    /// As [`Db::fetch`], for a query of few rows, which may share a statement with others. `new` creates the rows. It is called
    /// again if the query is repeated, and earlier rows are discarded.
    ///
    /// # Errors
    /// Those of the statement, and of `each`.
    ///
    /// # Panics
    /// Outside of a `LocalSet`, such as that of each worker.
    pub async fn fetch_batched<T: Send + 'static>(
        &self,
        select: Select,
        new: impl Fn() -> T + Send + 'static,
        each: impl FnMut(&mut T, Row<'_>) -> Result<(), sqlx::Error> + Send + 'static,
    ) -> Result<T, Error> {
        on_engine!(Db, self, pool => pool.fetch_batched(select, new, each).await)
    }

    /// Runs `work` in a transaction that writes, and commits it. If `work` returns an error, or the future is dropped, it is
    /// rolled back. Its time is limited in the client and in the server. If it conflicts with another transaction, such as
    /// by a deadlock, it is repeated, three times at most, so `work` must have no other effect.
    ///
    /// # Errors
    /// Those of `work` and of the database; then the transaction has no effect, now or later. Only [`Error::Unconfirmed`]
    /// leaves that open.
    pub async fn transaction<T, E: From<Error>>(
        &self,
        work: impl AsyncFn(&mut Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let work = Closure::new(work);
        let done = on_engine!(Db, self, pool => pool.transaction(&work).await);
        match done {
            Err(Some(error)) => Err(error.into()),
            Ok(()) | Err(None) => work.into_outcome(),
        }
    }

    /// Removes the rows of a table whose `id` a query selects, as many at a time as its limit permits. Returns their number.
    ///
    /// The rows are removed by their ids, because MariaDB would lock the whole table for a condition with a subquery.
    ///
    /// # Errors
    /// As [`Db::transaction`]. What was removed before is removed.
    pub async fn remove_selected(
        &self,
        table: &'static str,
        select: impl Fn() -> Select,
        id: impl Fn(Row<'_>) -> Result<Value<'static>, sqlx::Error>,
    ) -> Result<u64, Error> {
        let mut removed = 0;
        loop {
            let count = self.transaction(async |transaction| {
                let each = |ids: &mut Vec<_>, row: Row<'_>| {
                    ids.push(id(row)?);
                    Ok(())
                };
                let ids = transaction.fetch_locked(&select(), Vec::new(), each).await?;
                if ids.is_empty() {
                    return Ok(0);
                }
                let mut delete = Sql::new("DELETE FROM ");
                delete.push(table).push(" WHERE id IN ").bind_list(ids);
                transaction.execute(&delete).await
            });
            match count.await? {
                0 => return Ok(removed),
                count => removed += count,
            }
        }
    }

    /// Executes statements in one transaction, unprepared.
    ///
    /// # Errors
    /// As [`Db::transaction`].
    pub async fn execute(&self, statements: &[&'static str]) -> Result<(), Error> {
        self.transaction(async |transaction| {
            for &sql in statements {
                transaction.execute_unprepared(SqlStr::from_static(sql)).await?;
            }
            Ok(())
        })
        .await
    }

    /// Calls `wake` when a process has published on this channel, until it is dropped. Only PostgreSQL has channels, and a pooler
    /// does not pass them on; without them, it does nothing.
    pub async fn listen(&self, channel: &'static str, wake: impl Fn()) -> Infallible {
        on_engine!(Db, self, pool => pool.listen(channel, wake).await)
    }

    /// The same pool for this worker, which prefers the connections that it opened. A connection wakes the thread that
    /// opened it.
    #[must_use]
    pub fn for_worker(&self, worker: usize) -> Self {
        match self {
            Self::Sqlite(pool) => Self::Sqlite(pool.for_worker(worker)),
            Self::MySql(pool) => Self::MySql(pool.for_worker(worker)),
            Self::Postgres(pool) => Self::Postgres(pool.for_worker(worker)),
        }
    }

    /// The current use of the pool.
    #[must_use]
    pub fn connections(&self) -> Connections {
        on_engine!(Db, self, pool => pool.connections())
    }

    /// The metrics of the pool, for a registry.
    #[must_use]
    pub fn collector(&self) -> Box<dyn Collector> {
        on_engine!(Db, self, pool => Box::new(pool.clone()))
    }

    /// Closes each idle connection as its protocol requires. No connection is opened afterwards.
    pub async fn close(&self) {
        on_engine!(Db, self, pool => pool.close().await);
    }
}

/// Why a process cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum Unready {
    /// The database does not respond.
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
