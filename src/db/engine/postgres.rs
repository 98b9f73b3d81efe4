//! PostgreSQL.

mod listener;
mod migrations;
pub(in crate::db) mod pooler;

use std::convert::Infallible;
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::postgres::{PgConnectOptions, PgDatabaseError, PgSeverity};
use sqlx::{PgConnection, Postgres, QueryBuilder, SqlStr};

use super::Kind;
use crate::db::dialect::{Abandoned, Dialect, MARGIN, execution};

impl Dialect for Postgres {
    const SYSTEM: &'static str = "postgresql";

    execution!(Postgres);

    // The notification is sent when the transaction is committed.
    fn notify(statement: &mut QueryBuilder<Self>, channel: &'static str) {
        statement.push(" RETURNING pg_notify('").push(channel).push("', '')");
    }

    async fn listen(options: PgConnectOptions, channel: &'static str, wake: impl Fn()) -> Infallible {
        listener::listen(options, channel, wake).await
    }

    async fn set_up(
        connection: &mut PgConnection,
        limit: Option<Duration>,
        _abandoned: &Abandoned,
    ) -> Result<(), sqlx::Error> {
        Self::execute(connection, session(limit.map(|limit| limit + MARGIN))).await
    }

    fn begin(transaction_pooling: bool, limit: Duration) -> SqlStr {
        if transaction_pooling { begin_pooled(limit + MARGIN) } else { SqlStr::from_static(Self::BEGIN) }
    }

    fn begin_write(transaction_pooling: bool, limit: Duration) -> SqlStr {
        let mut sql = QueryBuilder::<Self>::new(Self::begin(transaction_pooling, limit).as_str());
        // Longer than the default of `deadlock_timeout`, so that a deadlock is detected, and the transaction is repeated.
        sql.push("; SET LOCAL lock_timeout = ").push((limit * 3 / 4).as_millis().max(1)).sql()
    }

    async fn insert(
        connection: &mut PgConnection,
        query: &mut QueryBuilder<Self>,
        id: &'static str,
        persistent: bool,
    ) -> Result<i64, sqlx::Error> {
        query.push(" RETURNING ").push(id);
        query.build_query_scalar().persistent(persistent).fetch_one(connection).await
    }

    // The sequence has the name that PostgreSQL gives it. It is changed only if it is behind: it never goes back, because
    // ids of deleted rows are not reused, and because other sessions use it at the same time.
    fn resync_sequence(table: &'static str, id: &'static str) -> Option<SqlStr> {
        let mut sql = QueryBuilder::<Self>::new("SELECT setval('");
        let sequence = format!("{table}_{id}_seq");
        sql.push(&sequence).push("', newest) FROM (SELECT max(").push(id).push(") AS newest FROM ").push(table);
        sql.push(") AS ids, ").push(&sequence);
        // Of a new sequence, the last value is the next one.
        sql.push(" WHERE newest > last_value OR newest = last_value AND NOT is_called");
        Some(sql.sql())
    }
}

/// Sets a session up. The driver sets the encoding and the time zone when it connects. A pool's statements have a limit;
/// an admin task's have none, as those of pg_dump, although the server may have one by default.
///
/// A pool's statement keeps the plan that it is first executed with. PostgreSQL would plan each page anew, because it takes
/// a limit that it does not know for 10 % of the table, and a plan for that many rows for an expensive one
/// (<https://www.postgresql.org/docs/current/sql-prepare.html>); but one range of one index has one plan. An admin task
/// fills tables, and a plan for an empty one would scan it for each batch of rows.
///
/// `jit` is off: the estimate of 16 pages by name of a million rows is above `jit_above_cost`, and compiling takes 160 ms
/// instead of 0.4 ms.
///
/// Behind PgBouncer nothing is set, because other clients may share the session (see `pooler.rs`).
fn session(limit: Option<Duration>) -> SqlStr {
    let plans = if limit.is_some() { "force_generic_plan" } else { "force_custom_plan" };
    let limit = limit.map_or(0, |limit| limit.as_millis());
    let mut sql = QueryBuilder::<Postgres>::new("SELECT set_config('plan_cache_mode', '");
    sql.push(plans);
    // Notices of `DROP TABLE IF EXISTS` and other statements are not logged.
    sql.push(
        "', false), set_config('jit', 'off', false), set_config('client_min_messages', 'warning', false), \
         set_config('default_transaction_isolation', 'read committed', false), \
         set_config('statement_timeout', '",
    );
    // Locks of a transaction whose client is unreachable end with it.
    sql.push(limit).push("', false), set_config('idle_in_transaction_session_timeout', '").push(limit);
    sql.push("', false)");
    if limit == 0 {
        // From PostgreSQL 17.
        sql.push(", (SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'transaction_timeout')");
    }
    sql.push(" WHERE current_setting('extra_float_digits') = '2'").sql()
}

/// Begins a transaction behind a pooler, where settings that last longer than it would reach other clients.
fn begin_pooled(limit: Duration) -> SqlStr {
    let mut sql = QueryBuilder::<Postgres>::new(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL jit = off; SET LOCAL statement_timeout = ",
    );
    sql.push(limit.as_millis());
    sql.push("; SET LOCAL idle_in_transaction_session_timeout = ").push(limit.as_millis()).sql()
}

/// The kind of an error, if it is one of this engine.
pub(in crate::db) fn kind(error: &dyn DatabaseError) -> Option<Kind> {
    let error = error.try_downcast_ref::<PgDatabaseError>()?;
    // The server ends a session after an error of these severities, whatever its code.
    let has_ended = matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic);
    Some(if has_ended { Kind::Lost } else { kind_of(error.code(), error.routine().unwrap_or_default()) })
}

/// The kind of an error after which the session goes on, by its SQLSTATE
/// (<https://www.postgresql.org/docs/current/errcodes-appendix.html>), and by the function of the server that reports it,
/// because messages are translated.
fn kind_of(code: &str, routine: &str) -> Kind {
    match code {
        // Undefined table, undefined column.
        "42P01" | "42703" => Kind::Schema,
        // No such prepared statement, or a second one of its name.
        "26000" | "42P05" => Kind::Statement,
        // Read-only transaction: the server is a standby, or has become one.
        "25006" => Kind::ReadOnlyServer,
        // A migration changed a table that a prepared statement of this connection reads.
        "0A000" if routine == "RevalidateCachedQuery" => Kind::Lost,
        // Connection failures that a pooler reports, and shutdowns.
        _ if code.starts_with("08") || code.starts_with("57P") => Kind::Lost,
        // Lock not available.
        "55P03" => Kind::LockTimeout,
        // Out of prerequisites (a server in recovery), object in use; query cancelled.
        "55000" | "55006" | "57014" => Kind::Transient,
        // Serialization failure, deadlock.
        "40001" | "40P01" => Kind::Conflict,
        // Other rollbacks; insufficient resources; errors of the server's system.
        _ if ["40", "53", "58"].iter().any(|class| code.starts_with(class)) => Kind::Transient,
        // Integrity violations for which the driver has no kind.
        _ if code.starts_with("23") => Kind::Constraint,
        // Data exceptions.
        _ if code.starts_with("22") => Kind::Value,
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_sqlstate_has_the_kind_that_a_caller_can_act_on() {
        for (kind_of_code, codes) in [
            (Kind::Conflict, &["40001", "40P01"][..]),
            (Kind::Transient, &["40000", "53100", "53200", "53300", "53400", "55000"]),
            (Kind::LockTimeout, &["55P03"]),
            (Kind::Transient, &["55006", "57014", "58000", "58030", "58P01"]),
            (Kind::Lost, &["08000", "08003", "08006", "08P01", "57P01", "57P02", "57P03", "57P04", "57P05"]),
            (Kind::ReadOnlyServer, &["25006"]),
            (Kind::Value, &["22001", "22003", "22021", "22P02", "22P05"]),
            (Kind::Constraint, &["23001", "23P01"]),
            (Kind::Schema, &["42P01", "42703"]),
            (Kind::Statement, &["26000", "42P05"]),
            (Kind::Other, &["0A000", "25P02", "42501", "42601", "42883", "55P02", "XX000"]),
        ] {
            for code in codes {
                assert_eq!(kind_of(code, ""), kind_of_code, "{code}");
            }
        }
        assert_eq!(kind_of("0A000", "RevalidateCachedQuery"), Kind::Lost);
    }
}
