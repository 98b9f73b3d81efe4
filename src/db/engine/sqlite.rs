//! SQLite.

mod migrations;

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteError, SqliteRow};
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection};

use super::Kind;
use crate::db::dialect::{Abandoned, Dialect, Each, execution, query_number};
use crate::db::select::Select;
use crate::db::value::{Row, Values as _};

impl Dialect for Sqlite {
    const SYSTEM: &'static str = "sqlite";
    // A transaction that begins with a read does not wait for another writer. It fails at its first write.
    const BEGIN: &'static str = "BEGIN IMMEDIATE";
    // A transaction that writes has locked the whole database.
    const FOR_UPDATE: &'static str = "";
    const SKIP_LOCKED: &'static str = "";
    const HAS_ONE_WRITER: bool = true;
    // Its connections are closed when `close` returns.
    const SESSION_END: Duration = Duration::ZERO;
    // SQLite accepts ORDER BY in a part of a union only inside a subquery, which `push_numbered` writes.
    const IN_UNION: (&'static str, &'static str) = ("", "");

    execution!(Sqlite);

    async fn file(connection: &mut SqliteConnection) -> Result<Option<PathBuf>, sqlx::Error> {
        let file = sqlx::query_scalar("SELECT file FROM pragma_database_list WHERE name = 'main'");
        let file: Option<String> = file.fetch_one(connection).await?;
        Ok(file.filter(|file| !file.is_empty()).map(PathBuf::from))
    }

    async fn insert(
        connection: &mut SqliteConnection,
        query: &mut QueryBuilder<Self>,
        _id: &'static str,
        persistent: bool,
    ) -> Result<i64, sqlx::Error> {
        Ok(query.build().persistent(persistent).execute(connection).await?.last_insert_rowid())
    }

    /// The driver sends each row from another thread, which costs more than reading it. So the rows of a query are packed into
    /// one value: for each cell the length of its text in bytes, a colon, and the text. The length is that in the encoding of
    /// the database, which the size of a dot shows. SQLite keeps the order of a subquery that has a limit.
    fn push_numbered(statement: &mut QueryBuilder<Self>, number: usize, query: &Select) {
        statement.push("SELECT ").push(number).push(", octet_length('.'), (WITH page(c0");
        for column in 1..query.columns() {
            statement.push(", c").push(column);
        }
        statement.push(") AS (SELECT ");
        query.push_to(statement);
        statement.push(") SELECT group_concat(concat(octet_length(c0), ':', c0");
        for column in 1..query.columns() {
            statement.push(", octet_length(c").push(column).push("), ':', c").push(column);
        }
        statement.push("), '') FROM page)");
    }

    fn unpack(row: &SqliteRow, columns: usize, each: &mut Each<'_>) -> Result<(), sqlx::Error> {
        let number = query_number(Self::row(row, 0))?;
        let mut packed: &str = row.try_get_unchecked::<Option<_>, _>(2)?.unwrap_or_default();
        let is_utf8 = Self::row(row, 1).integer(0)? == 1;
        if packed.is_empty() {
            return each(number, None);
        }
        let mut cells = Vec::with_capacity(columns);
        while let Some((cell, rest)) = next_cell(packed, is_utf8) {
            cells.push(cell);
            packed = rest;
            if cells.len() == columns {
                each(number, Some(Row::packed(&cells)))?;
                cells.clear();
            }
        }
        let is_complete = packed.is_empty() && cells.is_empty();
        is_complete
            .then_some(())
            .ok_or_else(|| sqlx::Error::Decode("the packed rows are incomplete: a value is NULL".into()))
    }

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

/// The size of the page caches of all connections of a pool together, in KiB.
const CACHES: u32 = 8 * 1024;

/// The options of a pool's connections, whose queries have this limit.
pub(in crate::db) fn options(options: SqliteConnectOptions, limit: Duration, connections: u16) -> SqliteConnectOptions {
    // A negative number is a size in KiB, and a positive one a number of pages.
    let cache = format!("-{}", (CACHES / u32::from(connections)).max(1));
    // A lock that outlives the limit must not keep the thread of the connection.
    options.busy_timeout(limit).pragma("cache_size", cache)
}

/// The first of packed cells, and what follows it.
fn next_cell(packed: &str, is_utf8: bool) -> Option<(&str, &str)> {
    let (length, rest) = packed.split_once(':')?;
    let length: usize = length.parse().ok()?;
    if is_utf8 {
        return rest.split_at_checked(length);
    }
    let (mut left, mut end) = (length, 0);
    let mut characters = rest.chars();
    while left > 0 {
        let character = characters.next()?;
        left = left.checked_sub(2 * character.len_utf16())?;
        end += character.len_utf8();
    }
    rest.split_at_checked(end)
}

/// The kind of an error, if it is one of this engine.
pub(in crate::db) fn kind(error: &dyn DatabaseError) -> Option<Kind> {
    error.try_downcast_ref::<SqliteError>()?;
    let code = error.code().and_then(|code| code.parse().ok());
    Some(kind_of(code.unwrap_or_default(), error.message()))
}

/// A message in place of one of SQLite's that does not contain a cause or a fix.
pub(in crate::db) fn reworded(message: &str) -> Option<&'static str> {
    Some(match message {
        "unable to open database file" => {
            "no such file, or no right to open it; ?mode=rwc at the end of its URL creates it, and ?immutable=true reads \
             one where nothing can be written"
        }
        "attempt to write a readonly database" => {
            "it is read-only: its file, its folder or ?mode=ro forbids writing; ?immutable=true at the end of its URL \
             reads a file in a read-only folder"
        }
        "file is not a database" => "its file is not an SQLite database",
        "disk I/O error" => "disk I/O error: its disk is full, or fails",
        "database or disk is full" => "its disk is full",
        _ => return None,
    })
}

/// The kind of an error, by its extended code (<https://sqlite.org/rescode.html>), whose low byte is the primary one.
fn kind_of(code: i32, message: &str) -> Kind {
    match (code & 0xff, code) {
        (1, _) if message.starts_with("no such ") || message.contains(" has no column named ") => Kind::Schema,
        // READONLY_RECOVERY, READONLY_CANTLOCK, READONLY_ROLLBACK: another process has to repair the file first.
        (_, 264 | 520 | 776)
        // LOCKED of every origin, NOMEM, INTERRUPT, PROTOCOL (a race for the write-ahead log), SCHEMA.
        | (6 | 7 | 9 | 15 | 17, _) => Kind::Transient,
        // BUSY_SNAPSHOT.
        (_, 517) => Kind::Conflict,
        // BUSY of every other origin.
        (5, _) => Kind::LockTimeout,
        // READONLY_DBMOVED: the file was replaced. IOERR, FULL, CANTOPEN.
        (_, 1032) | (10 | 13 | 14, _) => Kind::Lost,
        (8, _) => Kind::ReadOnlyFile,
        // TOOBIG, MISMATCH.
        (18 | 20, _) => Kind::Value,
        // CONSTRAINT of the origins that the driver has no kind for.
        (19, _) => Kind::Constraint,
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_code_has_the_kind_that_a_caller_can_act_on() {
        for (kind_of_code, codes) in [
            // BUSY, BUSY_RECOVERY, BUSY_TIMEOUT.
            (Kind::LockTimeout, &[5, 261, 773][..]),
            // BUSY_SNAPSHOT.
            (Kind::Conflict, &[517]),
            // LOCKED, LOCKED_SHAREDCACHE, NOMEM, INTERRUPT.
            (Kind::Transient, &[6, 262, 7, 9]),
            // READONLY_RECOVERY, READONLY_CANTLOCK, READONLY_ROLLBACK, PROTOCOL, SCHEMA.
            (Kind::Transient, &[264, 520, 776, 15, 17]),
            // IOERR, IOERR_READ, FULL, CANTOPEN, READONLY_DBMOVED.
            (Kind::Lost, &[10, 266, 13, 14, 1032]),
            (Kind::ReadOnlyFile, &[8, 1288, 1544]),
            (Kind::Value, &[18, 20]),
            (Kind::Constraint, &[19, 1811, 2579]),
            (Kind::Other, &[1, 11, 25, 26]),
        ] {
            for &code in codes {
                assert_eq!(kind_of(code, ""), kind_of_code, "{code}");
            }
        }
        for message in ["no such table: songs", "table songs has no column named title"] {
            assert_eq!(kind_of(1, message), Kind::Schema, "{message}");
        }
    }
}
