//! A database connection of the tests' own, to arrange and to look behind the product's back.

use sqlx::mysql::MySqlDatabaseError;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, MySqlConnection, PgConnection, Row as _, SqliteConnection};
use tokio::runtime::{Builder, Runtime};

use super::engine::Engine;

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
                "postgres" => PgConnection::connect(url).await.map(Connection::Postgres),
                other => panic!("no engine has the scheme {other}"),
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

impl Sql {
    /// How the database executes a query, as text.
    pub(crate) fn plan(&mut self, query: &str) -> String {
        let Self { connection, runtime } = self;
        let prefix = match connection {
            Connection::Sqlite(_) => "EXPLAIN QUERY PLAN",
            Connection::MySql(_) => "EXPLAIN FORMAT=JSON",
            Connection::Postgres(_) => "EXPLAIN",
        };
        let sql = AssertSqlSafe(format!("{prefix} {query}"));
        runtime.block_on(async {
            let lines: Vec<String> = match connection {
                Connection::Sqlite(connection) => {
                    connection.fetch_all(sql).await.unwrap().iter().map(|row| row.get(3)).collect()
                }
                Connection::MySql(connection) => {
                    connection.fetch_all(sql).await.unwrap().iter().map(|row| row.get_unchecked(0)).collect()
                }
                Connection::Postgres(connection) => {
                    connection.fetch_all(sql).await.unwrap().iter().map(|row| row.get(0)).collect()
                }
            };
            lines.join("\n")
        })
    }
}

/// Whether a session of this database waits for a lock.
pub(crate) fn waits(sql: &mut Sql, engine: Engine) -> bool {
    if engine == Engine::MariaDb {
        // InnoDB shows the same transactions for as long as they are read more often than every 100 ms.
        sql.execute("DO SLEEP(0.2)");
    }
    sql.number(match engine {
        Engine::Sqlite => unreachable!("it has no server"),
        Engine::MariaDb => {
            "SELECT COUNT(*) FROM information_schema.processlist p JOIN information_schema.innodb_trx t \
             ON t.trx_mysql_thread_id = p.id WHERE p.db = DATABASE() AND t.trx_state = 'LOCK WAIT'"
        }
        // MySQL's `innodb_trx` cannot show a statement with the binary values of a prepared statement.
        Engine::MySql => {
            "SELECT COUNT(*) FROM performance_schema.data_lock_waits w JOIN performance_schema.threads t \
             ON t.thread_id = w.requesting_thread_id WHERE t.processlist_db = DATABASE()"
        }
        Engine::Postgres | Engine::Postgres18 => {
            "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        }
    }) > 0
}
