//! A database connection of the tests' own, to arrange and to look behind the product's back.

use sqlx::mysql::MySqlDatabaseError;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, MySqlConnection, PgConnection, Row as _, SqliteConnection};
use tokio::runtime::{Builder, Runtime};

pub(crate) struct Sql {
    connection: Connection,
    runtime: Runtime,
}

enum Connection {
    Sqlite(SqliteConnection),
    MySql(MySqlConnection),
    Postgres(PgConnection),
}

/// Repeats an expression for each engine's connection.
macro_rules! on_connection {
    ($sql:expr, $connection:ident => $body:expr) => {{
        let Sql { connection, runtime } = $sql;
        runtime.block_on(async {
            match connection {
                Connection::Sqlite($connection) => $body,
                Connection::MySql($connection) => $body,
                Connection::Postgres($connection) => $body,
            }
        })
    }};
}

impl Sql {
    pub(crate) fn try_connect(url: &str) -> Option<Self> {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let connection = runtime.block_on(async {
            match url.split(':').next().unwrap() {
                "sqlite" => SqliteConnection::connect(url).await.map(Connection::Sqlite),
                "mysql" => MySqlConnection::connect(url).await.map(Connection::MySql),
                _ => PgConnection::connect(url).await.map(Connection::Postgres),
            }
        });
        Some(Self { connection: connection.ok()?, runtime })
    }

    pub(crate) fn connect(url: &str) -> Self {
        Self::try_connect(url).unwrap_or_else(|| panic!("cannot connect to {url}"))
    }

    /// Runs a statement.
    pub(crate) fn execute(&mut self, sql: &str) {
        let sql = AssertSqlSafe(sql.to_owned());
        let done = on_connection!(self, connection => connection.execute(sql).await.map(drop));
        done.unwrap();
    }

    /// Whether a statement fails.
    pub(crate) fn refuses(&mut self, sql: &str) -> bool {
        let sql = AssertSqlSafe(sql.to_owned());
        on_connection!(self, connection => connection.execute(sql).await.is_err())
    }

    /// The error that MySQL reports for a statement, or none when it succeeds.
    pub(crate) fn error(&mut self, sql: &str) -> Option<Box<MySqlDatabaseError>> {
        let sql = AssertSqlSafe(sql.to_owned());
        let outcome = on_connection!(self, connection => connection.execute(sql).await.map(drop));
        Some(outcome.err()?.into_database_error().unwrap().downcast())
    }

    /// The one number that a query gives.
    pub(crate) fn number(&mut self, sql: &str) -> i64 {
        let sql = AssertSqlSafe(sql.to_owned());
        on_connection!(self, connection => connection.fetch_one(sql).await.unwrap().try_get(0).unwrap())
    }

    /// The text in the first column of each row.
    pub(crate) fn texts(&mut self, sql: &str) -> Vec<String> {
        let sql = AssertSqlSafe(sql.to_owned());
        on_connection!(self, connection => {
            let rows = connection.fetch_all(sql).await.unwrap();
            rows.iter().map(|row| row.try_get(0).unwrap()).collect()
        })
    }
}
