//! VI. Processes: stateless, sharing nothing but the database.

use libtest_mimic::Trial;
use tempfile::TempDir;

use crate::support::engine::{Database, Engine, holds_only};
use crate::support::process::{Web, migrated, web_command};
use crate::support::resource::{FIRST, LISTING, SECOND_JSON, TABLE, listing};
use crate::support::{Tests, tests};

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!())
        .each(tests![a_process_writes_no_file, any_process_answers_any_page, a_change_is_seen_by_every_process_at_once])
        // SQLite alone is in a folder of the test.
        .on(&[Engine::Sqlite], tests![nothing_is_written_beside_the_database])
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

fn a_process_writes_no_file(database: &Database) {
    migrated(database, &["up"]);
    let folder = TempDir::new().unwrap();
    let path = folder.path().to_str().unwrap();
    let environment =
        [("DATABASE_URL", &*database.url), ("HOST", "127.0.0.1"), ("PORT", "0"), ("HOME", path), ("TMPDIR", path)];
    let mut command = web_command(&environment);
    command.current_dir(path);
    let web = Web::launch(command);
    for path in ["/", "/docs", "/readyz", "/metrics", "/nothing"] {
        web.get(path);
    }
    assert!(holds_only(folder.path(), &[]));
}

fn nothing_is_written_beside_the_database(database: &Database) {
    let web = Web::seeded(database);
    for path in ["/", LISTING, FIRST, "/readyz", "/nothing"] {
        web.get(path);
    }
    let file = database.file();
    assert!(holds_only(file.parent().unwrap(), &["roster.db", "roster.db-wal", "roster.db-shm"]));
}
