//! The resource that the tests request: its routes, its sample rows and its SQL.
//!
//! A copy of this project for another resource replaces this file, and the tests of what is particular to users and friends.

use super::engine::Family;

/// The path of the listing with this literal after it: `listing!("?limit=1")`.
macro_rules! listing {
    ($($rest:literal)?) => { concat!("/users", $($rest)?) };
}
pub(crate) use listing;

/// The path of the listing of rows that belong to one row, with this literal after it: `related!(1, "?limit=1")`.
macro_rules! related {
    ($id:literal $(, $rest:literal)?) => { concat!("/users/", $id, "/friends", $($rest)?) };
}
pub(crate) use related;

pub(crate) const LISTING: &str = listing!();
pub(crate) const CSV: &str = listing!(".csv");
pub(crate) const NDJSON: &str = listing!(".ndjson");
/// The two sample rows. The second belongs to the first.
pub(crate) const FIRST: &str = listing!("/1");
pub(crate) const SECOND: &str = listing!("/2");
pub(crate) const RELATED: &str = related!(1);
/// The routes of one row and of the rows that belong to it, as metrics and log lines name them.
pub(crate) const ROW_ROUTE: &str = listing!("/{id}");
pub(crate) const RELATED_ROUTE: &str = related!("{id}");

/// The second sample row in JSON, both, and the row that belongs to the first.
pub(crate) const SECOND_JSON: &str = r#"{"id":2,"username":"guest","email":"guest@example.com"}"#;
pub(crate) const LISTING_JSON: &str = r#"[{"id":1,"username":"admin","email":"admin@example.com"},{"id":2,"username":"guest","email":"guest@example.com"}]"#;
pub(crate) const RELATED_JSON: &str =
    r#"[{"id":2,"username":"guest","email":"guest@example.com","since":"2015-07-01T00:07:00Z"}]"#;

/// The name of the table, as a literal.
macro_rules! table {
    () => {
        "users"
    };
}
// [only servers]
pub(crate) use table;
// [end]

/// The statement that inserts a row with this literal in each of its unique columns.
macro_rules! insert {
    ($name:literal) => {
        concat!("INSERT INTO users (username, email) VALUES ('", $name, "', '", $name, "@example.com')")
    };
}
pub(crate) use insert;

pub(crate) const TABLE: &str = table!();
/// The table of the rows that belong to others.
pub(crate) const RELATED_TABLE: &str = "friends";
/// Changes the second sample row.
pub(crate) const CHANGE_SECOND: &str = "UPDATE users SET email = 'new@example.com' WHERE id = 2";
/// The statements that insert a row with the id 1 into each table of which `migrate seed` makes no rows.
pub(crate) const SAMPLES: &[&str] = &[
    // For the tests that request each documented operation.
];
/// The table that the last migration creates or alters.
pub(crate) const LATEST_TABLE: &str = "schedules";
/// A query that fails without the last migration.
pub(crate) const LATEST_QUERY: &str = "SELECT name FROM schedules";
/// The tables that the migrations create, the newest first.
pub(crate) const TABLES: &[&str] = &[
    "schedules",
    "jobs",
    "idempotency_keys",
    "friends",
    "users",
    // The first migration creates this one.
];
/// The number of rows.
pub(crate) const COUNT: &str = concat!("SELECT COUNT(*) FROM ", table!());

/// The number of rows in [`wide_rows`], whose bytes are more than all buffers between a server and its client hold.
pub(crate) const WIDE_ROWS: usize = 40_000;

/// Rows whose columns have the greatest permitted length, as CSV.
pub(crate) fn wide_rows() -> String {
    let rows = (0..WIDE_ROWS).map(|n| format!("{n:080},{n:0106}@b.example.com"));
    std::iter::once("username,email".to_owned()).chain(rows).collect::<Vec<_>>().join("\n")
}

/// The statements after which the first of these rows is never read to its end, and the second cannot be read: a view in the
/// place of the table.
pub(crate) fn faulty_rows(family: Family, endless_id: i64, broken_id: i64) -> [String; 3] {
    let endless = match family {
        Family::Sqlite => {
            "(WITH RECURSIVE count(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM count) SELECT max(n) FROM count)"
        }
        Family::MySql => "SLEEP(60)",
        // A view with a volatile function is evaluated for all rows, and pg_sleep is volatile.
        Family::Postgres => "endless()",
    };
    let broken = match family {
        Family::Sqlite | Family::MySql => "NULL",
        Family::Postgres => "(1 / (id - id))::VARCHAR",
    };
    [
        match family {
            Family::Postgres => {
                "CREATE FUNCTION endless() RETURNS VARCHAR STABLE LANGUAGE plpgsql AS \
                                 'BEGIN PERFORM pg_sleep(60); RETURN NULL; END'"
            }
            Family::Sqlite | Family::MySql => "SELECT 1",
        }
        .to_owned(),
        "ALTER TABLE users RENAME TO users_themselves".to_owned(),
        format!(
            "CREATE VIEW users AS SELECT id, CASE id WHEN {endless_id} THEN {endless} WHEN {broken_id} THEN {broken} \
             ELSE username END AS username, email, username_key, email_key FROM users_themselves"
        ),
    ]
}
