//! How many rows a migration concerns.

use sqlx::QueryBuilder;

use super::lock::{LockTimeout, set_lock_timeout, short};
use crate::db::engine::on_engine;
use crate::db::error::Error as DbError;
use crate::db::session::Session;

/// The most rows of a table that are counted. An engine reads each row that it counts.
pub const COUNT_MAX: i64 = 100_000;

/// The tables that this SQL of a migration drops or alters, each with the number of its rows. The number is above
/// [`COUNT_MAX`] if there are more, and `None` if they cannot be counted, such as those of a table that does not exist.
///
/// # Errors
/// When the server does not respond.
pub async fn count_rows<'s>(session: &mut Session, sql: &'s str) -> Result<Vec<(&'s str, Option<i64>)>, DbError> {
    let mut counts = Vec::new();
    set_lock_timeout(session, LockTimeout::Short).await?;
    for table in tables(sql) {
        let count: Result<i64, DbError> = on_engine!(Session, &mut *session, conn => {
            let mut query = QueryBuilder::new("SELECT COUNT(*) FROM (SELECT 1 FROM ");
            query.push(table).push(" LIMIT ").push(COUNT_MAX + 1).push(") AS counted");
            short(async { Ok(query.build_query_scalar().persistent(false).fetch_one(conn).await?) }).await
        });
        match count {
            // The result was not read, so the session cannot be used again.
            Err(error @ DbError::Timeout(_)) => return Err(error),
            count => counts.push((table, count.ok())),
        }
    }
    set_lock_timeout(session, LockTimeout::Default).await?;
    Ok(counts)
}

/// The names after `DROP TABLE` and `ALTER TABLE`.
fn tables(sql: &str) -> Vec<&str> {
    let lines = sql.lines().filter(|line| !line.trim_start().starts_with("--"));
    let words =
        lines.flat_map(|line| line.split(|c: char| c.is_whitespace() || c == ';')).filter(|word| !word.is_empty());
    let (mut tables, mut before) = (Vec::new(), ["", ""]);
    for word in words {
        match before {
            ["DROP" | "ALTER", "TABLE"] if ["IF", "EXISTS", "ONLY"].contains(&word) => {}
            ["DROP" | "ALTER", "TABLE"] => {
                tables.push(word);
                before = ["", ""];
            }
            [_, last] => before = [last, word],
        }
    }
    tables.sort_unstable();
    tables.dedup();
    tables
}

#[cfg(test)]
mod tests {
    use super::tables;

    #[test]
    fn tables_are_those_that_lose_rows_or_columns() {
        for (sql, expected) in [
            ("DROP TABLE songs;\n", &["songs"][..]),
            ("-- DROP TABLE kept;\nDROP TABLE IF EXISTS songs", &["songs"]),
            ("DROP INDEX by_id;\nALTER TABLE pages DROP COLUMN number;\nALTER TABLE pages DROP x;", &["pages"]),
            ("DROP TABLE b;DROP TABLE a;", &["a", "b"]),
            ("DROP INDEX CONCURRENTLY by_id;", &[]),
            ("DROP TABLE", &[]),
        ] {
            assert_eq!(tables(sql), expected, "{sql}");
        }
    }
}
