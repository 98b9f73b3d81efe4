//! MySQL and MariaDB.

mod migrations;

use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::mysql::{MySqlConnectOptions, MySqlDatabaseError};
use sqlx::{MySql, MySqlConnection, QueryBuilder, SqlStr};

use super::Kind;
use crate::db::dialect::{Abandoned, Dialect, MARGIN, execution};

impl Dialect for MySql {
    const SYSTEM: &'static str = "mysql";
    // Its optimiser finds the ranges of an OR instead.
    const COMPARES_PAIRS: bool = false;
    // In a union, MariaDB ignores LIMIT when it chooses an index, and sorts the table. In a derived table it does not.
    const IN_UNION: (&'static str, &'static str) = ("SELECT * FROM (", ") AS page");

    execution!(MySql);

    // READ COMMITTED, as on PostgreSQL. REPEATABLE READ locks gaps of indexes, so concurrent inserts would wait for each
    // other.
    fn begin_write(_transaction_pooling: bool, _limit: Duration) -> SqlStr {
        SqlStr::from_static("SET TRANSACTION ISOLATION LEVEL READ COMMITTED; BEGIN")
    }

    // MySQL has no RETURNING.
    async fn insert(
        connection: &mut MySqlConnection,
        query: &mut QueryBuilder<Self>,
        _id: &'static str,
        persistent: bool,
    ) -> Result<i64, sqlx::Error> {
        let done = query.build().persistent(persistent).execute(connection).await?;
        i64::try_from(done.last_insert_id()).map_err(|cause| sqlx::Error::Decode(cause.into()))
    }

    async fn set_up(
        connection: &mut MySqlConnection,
        limit: Option<Duration>,
        _abandoned: &Abandoned,
    ) -> Result<(), sqlx::Error> {
        Self::execute(connection, session(limit.map(|limit| limit + MARGIN))).await
    }

    // The limit of a lock is in whole seconds, and InnoDB checks it once a second.
    fn longest_statement(limit: Duration) -> Duration {
        lock_wait(limit + MARGIN) + Duration::from_secs(1)
    }

    // INSERT IGNORE would hide every other error as well.
    fn on_conflict_do_nothing(insert: &mut QueryBuilder<Self>, key: &'static str) {
        insert.push(" ON DUPLICATE KEY UPDATE ").push(key).push(" = ").push(key);
    }
}

/// The options without the settings that the driver would make by itself: [`session`] makes them all.
pub(in crate::db) fn options(options: MySqlConnectOptions) -> MySqlConnectOptions {
    options.pipes_as_concat(false).no_engine_substitution(false).timezone(None).set_names(false)
}

/// Sets a session up, in one round trip. A pool's statements and locks have a limit; an admin task's statements have
/// none, although the server may have one by default, and it may wait for the next row of its file, or for the reader of
/// its output. Messages are in English, because the name of a constraint is a part of them.
///
/// MariaDB alone reads the comments with an M. It skips those that name MySQL 8.
fn session(limit: Option<Duration>) -> SqlStr {
    let mut sql = QueryBuilder::<MySql>::new(
        "SET autocommit = 1, completion_type = 'NO_CHAIN', sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', \
         time_zone = '+00:00', lc_messages = 'en_US', foreign_key_checks = 1, unique_checks = 1, sql_select_limit = 18446744073709551615",
    );
    if let Some(limit) = limit {
        // Writes of MySQL have no other limit than that of their locks.
        sql.push(", lock_wait_timeout = ").push(lock_wait(limit).as_secs());
        // See `Dialect::begin_write`. The least is one second.
        sql.push(", innodb_lock_wait_timeout = ").push((limit.saturating_sub(MARGIN) / 2).as_secs().max(1));
        sql.push(" /*M! , max_statement_time = ").push(limit.as_secs_f64());
        sql.push(", idle_transaction_timeout = ").push(lock_wait(limit).as_secs());
        sql.push(" */ /*!80000 , max_execution_time = ").push(limit.as_millis()).push(" */");
    } else {
        sql.push(", wait_timeout = 28800, net_write_timeout = 28800 /*M! , max_statement_time = 0, idle_transaction_timeout = 0 */");
        sql.push(" /*!80000 , max_execution_time = 0 */");
    }
    // Servers disagree about the name of the variable.
    sql.push(", NAMES utf8mb4; SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ").sql()
}

/// A limit as that of a lock, which is in whole seconds.
fn lock_wait(limit: Duration) -> Duration {
    Duration::from_secs(limit.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX))
}

/// The kind of an error, if it is one of this engine.
pub(in crate::db) fn kind(error: &dyn DatabaseError) -> Option<Kind> {
    let error = error.try_downcast_ref::<MySqlDatabaseError>()?;
    Some(kind_of(error.number(), error.code().unwrap_or_default()))
}

/// The kind of an error, by its number (<https://dev.mysql.com/doc/mysql-errors/9.0/en/server-error-reference.html>,
/// <https://mariadb.com/kb/en/mariadb-error-code-reference/>), and by its SQLSTATE where a whole class is alike.
fn kind_of(number: u16, state: &str) -> Kind {
    match number {
        // No such column, no such table.
        1054 | 1146 => Kind::Schema,
        // Too many connections, out of threads, host blocked: sent in place of a greeting.
        1040 | 1129 | 1135
        // Shutdown, offline, restarting.
        | 1053 | 1079 | 3032 | 3168
        // The session was killed, its query was killed (after which MySQL may end the session), it was idle for too long.
        | 1317 | 1927 | 3169 | 4031
        // The network failed between a client and the server; a packet was malformed or too large.
        | 1152..=1161 | 1184 | 1835
        // The server or a proxy lost the server behind it.
        | 2002 | 2003 | 2006 | 2013 | 9001
        // Galera: the node is not part of a majority, another node may be.
        | 1047
        // The prepared statement is unknown, or does not fit the table any more.
        | 1243 | 1615 => Kind::Lost,
        // --read-only, a replica, InnoDB in read-only mode, a read-only transaction.
        1290 | 1792 | 1836 | 1874 => Kind::ReadOnlyServer,
        // Lock wait time-out.
        1205 => Kind::LockTimeout,
        // Deadlock (in XA, in user locks and when a group replicates, too).
        1213 | 1613 | 1614 | 3058 | 3101
        // The row or the table changed since the transaction read it.
        | 1020 | 1412 => Kind::Conflict,
        // NOWAIT.
        3572
        // Statement time-outs of MariaDB and of MySQL.
        | 1969 | 3024
        // Out of memory, disk space, locks, transactions, prepared statements, or an allowance of this user.
        | 1021 | 1037 | 1038 | 1041 | 1114 | 1203 | 1206 | 1226 | 1461 | 1637
        // A backup or an administrator holds the table or the server.
        | 1099 | 1223 => Kind::Transient,
        // Truncated, out of range, not convertible, not of the column's character set.
        1264 | 1265 | 1267 | 1292 | 1300 | 1366 | 1406 | 1690 | 3854 => Kind::Value,
        _ => match state.get(..2) {
            Some("40") => Kind::Transient,
            Some("22") => Kind::Value,
            Some("23") => Kind::Constraint,
            Some("08") => Kind::Lost,
            _ => Kind::Other,
        },
    }
}

/// Whether this error of MySQL or MariaDB means that the statement took effect before. The numbers are those of MySQL 9
/// and MariaDB 10.11, which differ for constraints.
#[must_use]
pub fn reports_done(error: &MySqlDatabaseError) -> bool {
    match error.number() {
        // A foreign key exists (MariaDB, with HA_ERR_FOUND_DUPP_KEY), or is wrong.
        1005 => error.message().contains("errno: 121"),
        // The object exists: a table or view, a column, an index, a primary key, a routine, a trigger, an event, a foreign
        // key (MySQL) or check (MariaDB), a check (MySQL).
        1050 | 1060 | 1061 | 1068 | 1304 | 1359 | 1537 | 1826 | 3822
        // The object has its new name: a column, a table, an index.
        | 1054 | 1146 | 1176
        // The object does not exist: a table, a column or key, a routine, a trigger, an event, a check, a constraint, a
        // view (MariaDB).
        | 1051 | 1091 | 1305 | 1360 | 1539 | 3821 | 3940 | 4092 => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_number_has_the_kind_that_a_caller_can_act_on() {
        for (kind_of_number, numbers) in [
            (Kind::Conflict, &[1020, 1213, 1412, 1613, 1614, 3058, 3101][..]),
            (Kind::Transient, &[1021, 1037, 1038, 1041, 1114, 1203, 1206, 1226]),
            (Kind::LockTimeout, &[1205]),
            (Kind::Transient, &[1461, 1637, 1969, 3024, 3572]),
            (Kind::Lost, &[1040, 1047, 1053, 1129, 1152, 1158, 1159, 1160, 1161, 1184, 1243, 1317, 1615, 1927]),
            (Kind::Lost, &[2006, 2013, 3032, 3169, 4031]),
            (Kind::ReadOnlyServer, &[1290, 1792, 1836, 1874]),
            (Kind::Value, &[1264, 1265, 1292, 1300, 1366, 1406, 1690]),
            (Kind::Schema, &[1054, 1146]),
            (Kind::Other, &[1044, 1045, 1049, 1064, 1142, 1305]),
        ] {
            for &number in numbers {
                assert_eq!(kind_of(number, "HY000"), kind_of_number, "{number}");
            }
        }
        for (kind_of_class, state) in
            [(Kind::Transient, "40001"), (Kind::Value, "22003"), (Kind::Constraint, "23000"), (Kind::Lost, "08S01")]
        {
            assert_eq!(kind_of(9999, state), kind_of_class, "{state}");
        }
    }
}
