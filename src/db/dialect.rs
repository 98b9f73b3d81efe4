//! Where the engines' SQL differs. Placeholders do as well, and `QueryBuilder` writes those.

use std::future::ready;

use sqlx::{Database, Executor as _, MySql, PgConnection, Postgres, QueryBuilder, Sqlite};

/// What an engine has its own words for.
pub trait Dialect: Database + Sized {
    /// Ends an `INSERT` whose rows may be there already; `key` is a column of the table's primary key.
    fn keep_existing(insert: &mut QueryBuilder<Self>, _key: &'static str) {
        insert.push(" ON CONFLICT DO NOTHING");
    }
    /// Selects the time in the ledger of migrations, as text in UTC.
    const INSTALLED_ON: &'static str;
    /// Sets a new connection for requests up, where the engine does not do by itself what they need.
    fn set_up(_: &mut Self::Connection) -> impl Future<Output = Result<(), sqlx::Error>> + Send {
        ready(Ok(()))
    }
    /// Begins a transaction that writes.
    const BEGIN: &'static str = "BEGIN";
    /// Lets ids continue after the highest that was inserted by hand, where the engine does not by itself.
    const CONTINUE_IDS: Option<&'static str> = None;
}

impl Dialect for Sqlite {
    const INSTALLED_ON: &'static str = "CAST(installed_on AS TEXT)";
    // A transaction that begins with a read does not wait for another writer. It fails at its first write.
    const BEGIN: &'static str = "BEGIN IMMEDIATE";
}

impl Dialect for MySql {
    const INSTALLED_ON: &'static str = "CAST(installed_on AS CHAR)";

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

    /// Lets a statement keep the plan that it is first executed with. PostgreSQL would plan each page anew, because it
    /// takes a limit that it does not know for a tenth of the table, and a plan for that many rows for an expensive one
    /// (<https://www.postgresql.org/docs/current/sql-prepare.html>); but one range of one index has one plan.
    ///
    /// Behind PgBouncer nothing is set, because other clients may share the session (see `pooler.rs`).
    async fn set_up(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        const SQL: &str = "SELECT set_config('plan_cache_mode', 'force_generic_plan', false) \
             WHERE current_setting('extra_float_digits') = '2'";
        connection.execute(SQL).await.map(drop)
    }
}
