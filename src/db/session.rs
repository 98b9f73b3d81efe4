//! The connection of an admin task.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use sqlx::{
    Connection, Executor as _, MySql, MySqlConnection, PgConnection, Postgres, SqlSafeStr, Sqlite, SqliteConnection,
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::dialect::{Abandoned, Dialect, connect};
use super::engine::postgres::pooler;
use super::engine::{mysql, on_engine};
use super::error::Error;
use crate::config::{DatabaseUrl, DriverOptions};

/// The longest time to open the session of an admin task. A remote server, or one that is starting, may need seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest time to close it. A server may be unresponsive.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

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
    /// [`Error::Connect`] with the cause, also when the server does not respond, [`Error::Stopped`] and [`Error::Pooler`].
    pub async fn open(url: &DatabaseUrl, stop: &CancellationToken) -> Result<Self, Error> {
        tokio::select! {
            opened = timeout(CONNECT_TIMEOUT, Self::connect(url)) => opened.unwrap_or_else(|_| {
                let cause = format!("no response within {} s; is this the port of the database?", CONNECT_TIMEOUT.as_secs());
                Err(Error::connect(url.address(), io::Error::new(io::ErrorKind::TimedOut, cause).into()))
            }),
            () = stop.cancelled() => Err(Error::Stopped),
        }
    }

    async fn connect(url: &DatabaseUrl) -> Result<Self, Error> {
        let never = Abandoned::default();
        let opened = match &url.options {
            DriverOptions::Sqlite(options) => connect::<Sqlite>(options, false, None, &never).await.map(Self::Sqlite),
            DriverOptions::MySql(options) => {
                connect::<MySql>(&mysql::options(options.clone()), false, None, &never).await.map(Self::MySql)
            }
            DriverOptions::Postgres(options) => {
                if url.transaction_pooling {
                    return Err(Error::Pooler);
                }
                let mut opened = connect::<Postgres>(options, false, None, &never).await;
                if let Ok(conn) = &mut opened
                    && pooler::shares_session(conn, options).await?
                {
                    return Err(Error::Pooler);
                }
                opened.map(Self::Postgres)
            }
        };
        opened.map_err(|cause| Error::connect(url.address(), cause))
    }

    /// Runs one statement that has no parameters, such as `BEGIN` or `COMMIT`.
    ///
    /// # Errors
    /// Those of the statement.
    pub async fn execute(&mut self, sql: impl SqlSafeStr) -> Result<(), Error> {
        let sql = sql.into_sql_str();
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
        async fn of<C>(connection: &mut C) -> Result<Option<PathBuf>, sqlx::Error>
        where
            C: Connection<Database: Dialect<Connection = C>>,
        {
            C::Database::file(connection).await
        }
        Ok(on_engine!(Session, self, conn => of(conn).await)?)
    }

    /// Closes the session. An error changes nothing, because the work is committed.
    pub async fn close(self) {
        let _ = timeout(CLOSE_TIMEOUT, async { on_engine!(Session, self, conn => conn.close().await) }).await;
    }
}
