//! Where the engines' SQL differs. Placeholders do as well, and `QueryBuilder` writes those.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::{
    Executor as _, MySql, MySqlConnection, PgConnection, Postgres, QueryBuilder, Row as _, SqlSafeStr, SqlStr, Sqlite,
    SqliteConnection,
};

use super::engine::{mysql, postgres};
use super::value::Values;

/// Set when the statement of a connection was abandoned. SQLite then interrupts it.
pub(super) type Abandoned = Arc<AtomicBool>;

/// The time after which a server ends a statement that its client has given up already.
const MARGIN: Duration = Duration::from_millis(500);

/// What an engine has its own words for.
pub trait Dialect: Values {
    /// Ends an `INSERT` whose rows may be there already; `key` is a column of the table's primary key.
    fn keep_existing(insert: &mut QueryBuilder<Self>, _key: &'static str) {
        insert.push(" ON CONFLICT DO NOTHING");
    }
    /// Selects the time in the ledger of migrations, as text in UTC.
    const INSTALLED_ON: &'static str;
    /// How long the server needs to end a session after it was closed.
    const SESSION_END: Duration = Duration::from_millis(100);

    /// Sets what this crate relies on in a new session, whatever the defaults of the server, the database and the user.
    /// With a limit, which is the client's, the server ends each statement a little later by itself.
    fn set_up(
        connection: &mut Self::Connection,
        limit: Option<Duration>,
        abandoned: &Abandoned,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
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
    /// Begins a transaction. Behind a pooler, it has to bring the settings that a session would keep.
    #[must_use]
    fn begin(_transaction_pooling: bool, _limit: Duration) -> SqlStr {
        SqlStr::from_static(Self::BEGIN)
    }
    /// The time within which a statement has ended in the server, for a client with this limit.
    #[must_use]
    fn longest_statement(limit: Duration) -> Duration {
        limit + MARGIN * 2
    }
    /// Begins a transaction that writes.
    const BEGIN: &'static str = "BEGIN";
    /// Lets ids continue after the highest that was inserted by hand, where the engine does not by itself.
    const CONTINUE_IDS: Option<&'static str> = None;
}

/// The methods whose code is the same for the types of each driver.
macro_rules! unprepared {
    () => {
        async fn execute(connection: &mut Self::Connection, sql: impl SqlSafeStr + Send) -> Result<(), sqlx::Error> {
            connection.execute(sql.into_sql_str()).await.map(drop)
        }

        async fn text(connection: &mut Self::Connection, sql: impl SqlSafeStr + Send) -> Result<String, sqlx::Error> {
            connection.fetch_one(sql.into_sql_str()).await?.try_get(0)
        }
    };
}

impl Dialect for Sqlite {
    // Its connections are closed when `close` returns.
    const SESSION_END: Duration = Duration::ZERO;
    const INSTALLED_ON: &'static str = "CAST(installed_on AS TEXT)";
    // A transaction that begins with a read does not wait for another writer. It fails at its first write.
    const BEGIN: &'static str = "BEGIN IMMEDIATE";

    unprepared!();

    /// The driver turns foreign keys on, and nothing else has a default outside of this process.
    async fn set_up(
        connection: &mut SqliteConnection,
        limit: Option<Duration>,
        abandoned: &Abandoned,
    ) -> Result<(), sqlx::Error> {
        /// Instructions of SQLite's virtual machine, some tens of microseconds.
        const INTERVAL: i32 = 1000;
        if limit.is_some() {
            let abandoned = abandoned.clone();
            connection.lock_handle().await?.set_progress_handler(INTERVAL, move || !abandoned.load(Ordering::Relaxed));
        }
        Ok(())
    }
}

impl Dialect for MySql {
    const INSTALLED_ON: &'static str = "CAST(installed_on AS CHAR)";

    unprepared!();

    async fn set_up(
        connection: &mut MySqlConnection,
        limit: Option<Duration>,
        _abandoned: &Abandoned,
    ) -> Result<(), sqlx::Error> {
        Self::execute(connection, mysql::session(limit.map(|limit| limit + MARGIN))).await
    }

    // The limit of a lock is in whole seconds, and InnoDB looks once a second.
    fn longest_statement(limit: Duration) -> Duration {
        mysql::lock_wait(limit + MARGIN) + Duration::from_secs(1)
    }

    // INSERT IGNORE would hide every other error as well.
    fn keep_existing(insert: &mut QueryBuilder<Self>, key: &'static str) {
        insert.push(" ON DUPLICATE KEY UPDATE ").push(key).push(" = ").push(key);
    }
}

impl Dialect for Postgres {
    const INSTALLED_ON: &'static str = "to_char(installed_on AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')";
    const CONTINUE_IDS: Option<&'static str> = Some(
        "SELECT setval('users_id_seq', greatest((SELECT max(id) FROM users), (SELECT last_value FROM users_id_seq)))",
    );

    unprepared!();

    async fn set_up(
        connection: &mut PgConnection,
        limit: Option<Duration>,
        _abandoned: &Abandoned,
    ) -> Result<(), sqlx::Error> {
        Self::execute(connection, postgres::session(limit.map(|limit| limit + MARGIN))).await
    }

    fn begin(transaction_pooling: bool, limit: Duration) -> SqlStr {
        if transaction_pooling { postgres::begin_pooled(limit + MARGIN) } else { SqlStr::from_static(Self::BEGIN) }
    }
}
