//! What the queries, the pool and the sessions need of an engine. The files in `engine/` implement it. Placeholders
//! differ as well, and `QueryBuilder` writes those.

use std::convert::Infallible;
use std::future::{pending, ready};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use sqlx::{
    ConnectOptions as _, Database, Either, MySqlConnection, PgConnection, QueryBuilder, SqlSafeStr, SqlStr,
    SqliteConnection,
};

use super::select::Select;
use super::value::{Row, Values};

/// Set when the statement of a connection was abandoned. SQLite then interrupts it.
pub(super) type Abandoned = Arc<AtomicBool>;

/// What an engine's driver connects with.
pub(super) type Options<DB> = <<DB as Database>::Connection as sqlx::Connection>::Options;

/// The time between the end of a client's limit and the end of its statement by the server.
pub(super) const MARGIN: Duration = Duration::from_millis(500);

/// Where the engines differ.
pub trait Dialect: Values {
    /// Its name in telemetry: a value of OpenTelemetry's `db.system.name`.
    const SYSTEM: &'static str;
    /// Begins a transaction that writes.
    const BEGIN: &'static str = "BEGIN";
    /// The clause that locks the selected rows until the transaction ends.
    const FOR_UPDATE: &'static str = " FOR UPDATE";
    /// The same, without the rows that another transaction has locked.
    const SKIP_LOCKED: &'static str = " FOR UPDATE SKIP LOCKED";
    /// Whether one transaction writes at a time, and the others poll for its end.
    const HAS_ONE_WRITER: bool = false;
    /// Whether `(a, b) > ($1, $2)` is one range of an index on a and b.
    const COMPARES_PAIRS: bool = true;
    /// What encloses a query of a union, so that its order and its limit are its own.
    const IN_UNION: (&'static str, &'static str) = ("(", ")");
    /// How long the server needs to end a session after it was closed.
    const SESSION_END: Duration = Duration::from_millis(100);

    /// Ends an `INSERT` whose rows may exist already; `key` is a column of the table's primary key.
    fn on_conflict_do_nothing(insert: &mut QueryBuilder<Self>, _key: &'static str) {
        insert.push(" ON CONFLICT DO NOTHING");
    }
    /// Ends an `INSERT` or an `UPDATE` that wakes the processes which listen on a channel. Only PostgreSQL has channels.
    fn notify(_statement: &mut QueryBuilder<Self>, _channel: &'static str) {}
    /// Calls `wake` for each notification of a channel, until it is dropped.
    fn listen(_options: Options<Self>, _channel: &'static str, _wake: impl Fn()) -> impl Future<Output = Infallible> {
        pending()
    }
    /// Makes the ids that the database generates for a table continue after the highest id that was inserted
    /// explicitly. None where the engine does so itself.
    #[must_use]
    fn resync_sequence(_table: &'static str, _id: &'static str) -> Option<SqlStr> {
        None
    }
    /// Begins a transaction. With transaction pooling, it includes the settings that a session would keep.
    #[must_use]
    fn begin(_transaction_pooling: bool, _limit: Duration) -> SqlStr {
        SqlStr::from_static(Self::BEGIN)
    }
    /// Begins a transaction that writes. On servers, it waits for a lock for less than the client's limit, so that a client
    /// learns that its request waits for another one.
    #[must_use]
    fn begin_write(transaction_pooling: bool, limit: Duration) -> SqlStr {
        Self::begin(transaction_pooling, limit)
    }
    /// A connection of this engine, for a transaction.
    fn connection(connection: &mut Self::Connection) -> Connection<'_>;
    /// The time within which a statement has ended in the server, for a client with this limit.
    #[must_use]
    fn longest_statement(limit: Duration) -> Duration {
        limit + MARGIN * 2
    }

    /// Appends a query to a statement. The first column of its rows is this number.
    fn push_numbered(statement: &mut QueryBuilder<Self>, number: usize, query: &Select) {
        statement.push("SELECT ").push(number).push(", ");
        query.push_to(statement);
    }
    /// Passes what a row of such a statement contains to `each`.
    ///
    /// # Errors
    /// When the row is not one of such a statement, and those of `each`.
    fn unpack(row: &Self::Row, _columns: usize, each: &mut Each<'_>) -> Result<(), sqlx::Error> {
        each(query_number(Self::row(row, 0))?, Some(Self::row(row, 1)))
    }

    /// The file of the database of a session. None for a server, and for a database in memory.
    fn file(_connection: &mut Self::Connection) -> impl Future<Output = Result<Option<PathBuf>, sqlx::Error>> + Send {
        ready(Ok(None))
    }
    /// Sets what this crate relies on in a new session, whatever the defaults of the server, the database and the user.
    /// With a limit, which is the client's, the server ends each statement a little later by itself.
    fn set_up(
        connection: &mut Self::Connection,
        limit: Option<Duration>,
        abandoned: &Abandoned,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
    /// Executes a query, prepared. The stream is that of the driver, because the stream of `fetch` adds another layer.
    fn fetch<'c>(
        connection: &'c mut Self::Connection,
        query: &'c mut QueryBuilder<Self>,
        persistent: bool,
    ) -> Rows<'c, Self>;
    /// Executes an `INSERT` of one row, prepared, and returns the value of the column `id`.
    fn insert(
        connection: &mut Self::Connection,
        query: &mut QueryBuilder<Self>,
        id: &'static str,
        persistent: bool,
    ) -> impl Future<Output = Result<i64, sqlx::Error>> + Send;
    /// Executes one statement or several without parameters, unprepared.
    fn execute(
        connection: &mut Self::Connection,
        sql: impl SqlSafeStr + Send,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
    /// The text that a query without parameters selects.
    fn text(
        connection: &mut Self::Connection,
        sql: impl SqlSafeStr + Send,
    ) -> impl Future<Output = Result<String, sqlx::Error>> + Send;
}

/// The connection of any engine.
pub enum Connection<'c> {
    /// That of SQLite.
    Sqlite(&'c mut SqliteConnection),
    /// That of MySQL or MariaDB.
    MySql(&'c mut MySqlConnection),
    /// That of PostgreSQL.
    Postgres(&'c mut PgConnection),
}

/// Receives the number of a query, and a row of it. None if that query has no rows.
pub(super) type Each<'a> = dyn FnMut(usize, Option<Row<'_>>) -> Result<(), sqlx::Error> + 'a;

/// The rows of a query, and its end.
pub(super) type Rows<'c, DB> =
    BoxStream<'c, Result<Either<<DB as Database>::QueryResult, <DB as Database>::Row>, sqlx::Error>>;

/// The first column of a row, which has the number of a query.
pub(super) fn query_number(row: Row<'_>) -> Result<usize, sqlx::Error> {
    usize::try_from(row.integer(0)?).map_err(|cause| sqlx::Error::Decode(cause.into()))
}

/// The methods of [`Dialect`] whose code is the same for the types of each driver.
macro_rules! execution {
    ($engine:ident) => {
        fn connection(connection: &mut Self::Connection) -> crate::db::dialect::Connection<'_> {
            crate::db::dialect::Connection::$engine(connection)
        }

        fn fetch<'c>(
            connection: &'c mut Self::Connection,
            query: &'c mut QueryBuilder<Self>,
            persistent: bool,
        ) -> crate::db::dialect::Rows<'c, Self> {
            sqlx::Executor::fetch_many(connection, query.build().persistent(persistent))
        }

        async fn execute(
            connection: &mut Self::Connection,
            sql: impl sqlx::SqlSafeStr + Send,
        ) -> Result<(), sqlx::Error> {
            sqlx::Executor::execute(connection, sql.into_sql_str()).await.map(drop)
        }

        async fn text(
            connection: &mut Self::Connection,
            sql: impl sqlx::SqlSafeStr + Send,
        ) -> Result<String, sqlx::Error> {
            sqlx::Row::try_get(&sqlx::Executor::fetch_one(connection, sql.into_sql_str()).await?, 0)
        }
    };
}
pub(super) use execution;

/// Executes a statement of queries with this number of columns, and passes each row to `each`.
pub(super) async fn read<DB: Dialect>(
    connection: &mut DB::Connection,
    persistent: bool,
    statement: &mut QueryBuilder<DB>,
    columns: usize,
    each: &mut Each<'_>,
) -> Result<(), sqlx::Error> {
    let mut rows = DB::fetch(connection, statement, persistent);
    while let Some(row) = rows.try_next().await? {
        let Either::Right(row) = row else { continue };
        DB::unpack(&row, columns, each)?;
    }
    Ok(())
}

/// Opens a session and sets it up. With transaction pooling it is not set up, because the next client would get the
/// session with its settings. The future is boxed, so that the handshake of a driver is compiled once.
pub(super) fn connect<'a, DB: Dialect>(
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
