//! VI. Processes: stateless, sharing nothing but the database.

use libtest_mimic::Trial;

use crate::support::engine::{Database, Engine, holds_only};
use crate::support::process::{Web, migrated};
use crate::support::resource::{FIRST, LISTING, SECOND_JSON, TABLE, listing};
use crate::support::{Tests, tests};

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!())
        .each(tests![any_process_answers_any_page, a_change_is_seen_by_every_process_at_once])
        // SQLite alone is in a folder of the test.
        .on(&[Engine::Sqlite], tests![nothing_is_written_beside_the_database, no_listing_writes_beside_the_database])
        .trials()
}

/// A cursor from one process continues in another: no session is behind it.
fn any_process_answers_any_page(database: &Database) {
    let one = Web::seeded(database);
    let other = Web::start(database, &[]);
    let first = one.get(listing!("?limit=1"));
    let second = other.get(&first.next().unwrap());
    assert_eq!(second.body, format!("[{SECOND_JSON}]"));
    assert_eq!(second.next(), None);
}

fn a_change_is_seen_by_every_process_at_once(database: &Database) {
    let webs = [Web::seeded(database), Web::start(database, &[])];
    for web in &webs {
        assert_eq!(web.get(LISTING).json().as_array().unwrap().len(), 2);
    }
    database.sql().execute(&format!("DELETE FROM {TABLE} WHERE id = 2"));
    for web in &webs {
        assert_eq!(web.get(LISTING).json().as_array().unwrap().len(), 1);
    }
}

fn nothing_is_written_beside_the_database(database: &Database) {
    migrated(database, &["up"]);
    let web = Web::start(database, &[]);
    for path in ["/", "/docs", "/readyz", "/metrics", "/nothing"] {
        web.get(path);
    }
    assert_only_the_database_is_written(database);
}

fn no_listing_writes_beside_the_database(database: &Database) {
    let web = Web::seeded(database);
    for path in [LISTING, FIRST] {
        assert_eq!(web.get(path).status, 200);
    }
    assert_only_the_database_is_written(database);
}

fn assert_only_the_database_is_written(database: &Database) {
    let file = database.file();
    assert!(holds_only(file.parent().unwrap(), &["roster.db", "roster.db-wal", "roster.db-shm"]));
}
