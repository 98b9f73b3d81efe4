//! X. Dev/prod parity: the embedded database of a fresh clone and the server in production give the
//! same answers.

use std::collections::BTreeSet;
use std::fs;
use std::iter;
use std::path::{Path, PathBuf};

use libtest_mimic::Trial;
use serde_json::Value;

use crate::support::engine::Database;
use crate::support::process::{Web, code, import_csv, migrate_from, migrated, stderr};
use crate::support::resource::{FIRST, LISTING, NDJSON, RELATED, listing, related};
use crate::support::{Tests, tests};

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!())
        .once(tests![every_engine_has_the_same_migrations, a_mysql_migration_is_one_statement])
        .each(tests![
            order_and_uniqueness_ignore_ascii_case_alone,
            a_prefix_means_the_same,
            a_stream_holds_every_user,
            lengths_are_limited,
            a_deleted_user_leaves_no_friendship,
            friends_have_a_time_alike,
            a_friendship_of_nobody_is_refused
        ])
        .trials()
}

const FOLDERS: [&str; 3] = ["sqlite", "mysql", "postgres"];

/// The folder of an engine's migrations, and the names of its files.
fn migrations(engine: &str) -> (PathBuf, BTreeSet<String>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(engine);
    let files = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let files = files.collect();
    (folder, files)
}

fn every_engine_has_the_same_migrations() {
    let (_, first) = migrations(FOLDERS[0]);
    for engine in FOLDERS {
        assert_eq!(migrations(engine).1, first, "{engine}");
    }
    let ups = first.iter().filter(|file| file.ends_with(".up.sql"));
    assert!(ups.clone().all(|up| first.contains(&up.replace(".up.", ".down."))));
    // Every file is part of the binary.
    assert_eq!(i64::try_from(ups.count()).unwrap(), roster::db::migrations::LATEST);
}

/// An interrupted migration is finished by repeating its statement, so it must have one alone.
fn a_mysql_migration_is_one_statement() {
    let (folder, files) = migrations("mysql");
    for file in files {
        let sql = fs::read_to_string(folder.join(&file)).unwrap();
        let sql: String = sql.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
        assert_eq!(sql.matches(';').count(), 1, "{file}");
        assert!(sql.trim_end().ends_with(';'), "{file}");
    }
}

/// Names that engines are known to order and to fold each in its own way.
const NAMES: [&str; 16] =
    ["[x]", "_x", "a b", "a-b", "A.b", "ab", "Abc", "B", "zoë", "Zoe", "ZOË2", "ß", "É", "é", "日本", "𝒳"];

/// A file of users with these names, whose addresses count them.
fn names() -> String {
    let rows = NAMES.iter().enumerate().map(|(n, name)| format!("{name},{n}@example.com"));
    iter::once("username,email".to_owned()).chain(rows).collect::<Vec<_>>().join("\n")
}

fn order_and_uniqueness_ignore_ascii_case_alone(database: &Database) {
    migrated(database, &["up"]);
    let done = import_csv(database, &names());
    assert_eq!(code(&done), 0, "{}", stderr(&done));

    let web = Web::start(database, &[]);
    let listed = web.all(listing!("?sort=username&limit=3"));
    let listed: Vec<&str> = listed.iter().map(|user| user["username"].as_str().unwrap()).collect();
    let mut expected = NAMES;
    expected.sort_by_key(|name| name.to_ascii_lowercase());
    assert_eq!(listed, expected);

    // AB is ab, and so is an address in capitals; É is not é.
    for (row, taken) in
        [("zoe,x1@example.com", "username"), ("AB,x2@example.com", "username"), ("new1,1@EXAMPLE.com", "email")]
    {
        let done = import_csv(database, &format!("username,email\n{row}\n"));
        assert_eq!(code(&done), 65, "{row}");
        assert!(stderr(&done).contains(&format!("line 2: {taken} is taken")), "{}", stderr(&done));
    }
    let done = import_csv(database, "username,email\nZOË,x3@example.com\n");
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    // A blank at the end counts in the table, although an import removes it.
    database.sql().execute("INSERT INTO users (username, email) VALUES ('ab ', 'x4@example.com')");
    let done = import_csv(database, "username,email\nab ,x5@example.com\n");
    assert_eq!(code(&done), 65);
    assert!(stderr(&done).contains("line 2: username is taken"), "{}", stderr(&done));
}

fn a_prefix_means_the_same(database: &Database) {
    migrated(database, &["up"]);
    assert_eq!(code(&import_csv(database, &names())), 0);
    let web = Web::start(database, &[]);
    for (q, expected) in [
        ("A", vec!["a b", "a-b", "A.b", "ab", "Abc"]),
        ("aB", vec!["ab", "Abc"]),
        ("zo", vec!["Zoe", "ZOË2", "zoë"]),
        ("zo%C3%AB", vec!["zoë"]),
        ("%C3%89", vec!["É"]),
        ("_", vec!["_x"]),
        ("%25", vec![]),
        ("%F0%9D%92%B3", vec!["𝒳"]),
        ("1@E", vec!["_x"]),
    ] {
        let found = web.all(&format!("{LISTING}?limit=2&q={q}"));
        let found: Vec<&str> = found.iter().map(|user| user["username"].as_str().unwrap()).collect();
        assert_eq!(found, expected, "{q}");
    }
}

/// The streams are the listing without its pages: same users, same order, same search.
fn a_stream_holds_every_user(database: &Database) {
    migrated(database, &["up"]);
    migrated(database, &["seed", "4500"]);
    let web = Web::start(database, &[]);
    for query in ["", "?sort=-email", "?q=AD", "?limit=7&sort=username"] {
        let streamed = web.get(&format!("{LISTING}.ndjson{query}"));
        assert_eq!(streamed.header("content-type"), Some("application/x-ndjson"));
        let streamed: Vec<Value> = streamed.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let listed = if query.contains("limit") {
            web.get(&format!("{LISTING}{query}")).json().as_array().unwrap().clone()
        } else {
            web.all(&format!(
                "{LISTING}{}limit=1000",
                if query.is_empty() { "?".to_owned() } else { format!("{query}&") }
            ))
        };
        assert_eq!(streamed, listed, "{query}");

        let rows = listed.iter().map(|user| {
            format!("{},{},{}\r\n", user["id"], user["username"].as_str().unwrap(), user["email"].as_str().unwrap())
        });
        let csv = web.get(&format!("{LISTING}.csv{query}"));
        assert_eq!(csv.header("content-type"), Some("text/csv; charset=utf-8; header=present"));
        let expected = iter::once("id,username,email\r\n".to_owned()).chain(rows).collect::<Vec<_>>().concat();
        assert_eq!(csv.body, expected, "{query}");
        let negotiated = web.get_with(&format!("{LISTING}{query}"), &[("accept", "text/csv")]);
        assert_eq!(negotiated.body, csv.body, "{query}");
    }
    let head = web.send("HEAD", NDJSON, &[]);
    assert_eq!((head.status, head.body.as_str(), head.header("content-length")), (200, "", None));
    assert_eq!(web.get(listing!(".csv?q=nobody-here")).body, "id,username,email\r\n");
    assert_eq!(web.get(listing!(".ndjson?page=2")).status, 400);
}

fn lengths_are_limited(database: &Database) {
    migrated(database, &["up"]);
    // Of characters, not of bytes.
    let name = "é".repeat(80);
    let email = format!("{}@b.example", "é".repeat(110));
    let done = import_csv(database, &format!("username,email\n{name},{email}\n"));
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    let web = Web::start(database, &[]);
    assert_eq!(web.get(LISTING).json()[0]["username"], name.as_str());
    assert_eq!(web.get(FIRST).json()["email"], email.as_str());
    // The table itself refuses what the import would.
    for values in [format!("('{name}é', 'a@b')"), format!("('a', 'é{email}')"), "('', 'a@b')".to_owned()] {
        let refused = database.sql().refuses(&format!("INSERT INTO users (username, email) VALUES {values}"));
        assert!(refused, "{values}");
    }
}

fn a_deleted_user_leaves_no_friendship(database: &Database) {
    let web = Web::seeded(database);
    assert_eq!(web.all(RELATED).len(), 1);
    database.sql().execute("DELETE FROM users WHERE id = 2");
    assert_eq!(web.all(RELATED).len(), 0);
    assert_eq!(database.sql().number("SELECT COUNT(*) FROM friends"), 0);
}

/// Several friends of the same moment, so that pages are divided between them.
fn friends_have_a_time_alike(database: &Database) {
    migrated(database, &["up"]);
    migrated(database, &["seed", "9"]);
    database.sql().execute("DELETE FROM friends");
    let rows = [
        (2, "2020-01-01T00:00:00Z"),
        (3, "2019-12-31T23:59:59Z"),
        (4, "2020-01-01T00:00:00Z"),
        (5, "2020-01-01T02:00:00+02:00"),
        (6, "1970-01-01T00:00:00Z"),
        (7, "9999-12-31T23:59:59Z"),
    ];
    let csv = rows.map(|(friend, since)| format!("1,{friend},{since}\n")).concat();
    let imported = migrate_from(
        database,
        &["import", "--table", "friends", "--format", "csv", "-"],
        &format!("user_id,friend_id,since\n{csv}"),
    );
    assert_eq!(String::from_utf8(imported.stdout).unwrap(), "6 friendships imported, 0 rows left out\n");

    let web = Web::start(database, &[]);
    let ids = |query: &str| -> Vec<_> {
        web.all(&format!("{RELATED}{query}")).iter().map(|friend| friend["id"].as_i64().unwrap()).collect()
    };
    for limit in ["", "&limit=1", "&limit=2", "&limit=3"] {
        assert_eq!(ids(&format!("?sort=since{limit}")), [6, 3, 2, 4, 5, 7], "{limit}");
        assert_eq!(ids(&format!("?sort=-since{limit}")), [7, 5, 4, 2, 3, 6], "{limit}");
        assert_eq!(ids(&format!("?sort=-id{limit}")), [7, 6, 5, 4, 3, 2], "{limit}");
    }
    assert_eq!(web.all(RELATED)[3]["since"], "2020-01-01T00:00:00Z");
    let page = web.get_with(related!(1, "?sort=-since&limit=2"), &[("accept", "text/html")]).body;
    assert!(page.contains("<time>9999-12-31</time>"), "{page}");
    assert!(page.contains("aria-sort=\"descending\"><a href=\"?sort=since"), "{page}");

    let exported = migrated(database, &["export", "--table", "friends", "--format", "csv", "-"]);
    let expected = csv.replace("02:00:00+02:00", "00:00:00Z").replace('\n', "\r\n");
    assert_eq!(exported, format!("user_id,friend_id,since\r\n{expected}"));
    let lines = migrated(database, &["export", "--table", "friends", "--format", "ndjson", "-"]);
    assert!(lines.starts_with("{\"user_id\":1,\"friend_id\":2,\"since\":\"2020-01-01T00:00:00Z\"}\n"), "{lines}");
    database.sql().execute("DELETE FROM friends");
    let again = migrate_from(database, &["import", "--table", "friends", "--format", "ndjson", "-"], &lines);
    assert_eq!(code(&again), 0, "{}", stderr(&again));
    assert_eq!(migrated(database, &["export", "--table", "friends", "--format", "csv", "-"]), exported);
}

/// The table refuses it. A friendship without a time has the current one.
fn a_friendship_of_nobody_is_refused(database: &Database) {
    migrated(database, &["up"]);
    migrated(database, &["seed", "3"]);
    database.sql().execute("DELETE FROM friends");
    let rows = "user_id,friend_id,since\n1,2,\n1,9,\n1,2,\n9,1,2020-01-01T00:00:00Z\n1,3,yesterday\n,3,\n3,2,1969-12-31T23:59:59Z\n";
    let arguments = ["import", "--table", "friends", "--format", "csv", "--skip-bad", "-"];
    let imported = migrate_from(database, &arguments, rows);
    assert_eq!(String::from_utf8(imported.stdout.clone()).unwrap(), "1 friendship imported, 6 rows left out\n");
    let reported = stderr(&imported);
    for (line, column, reason) in [
        (3, "friend_id", "is not the id of a user"),
        (4, "this friendship", "is in the table, or on an earlier line"),
        (5, "user_id", "is not the id of a user"),
        (6, "since", "is not a timestamp of RFC 3339"),
        (7, "user_id", "does not consist of the digits 0 to 9"),
        (8, "since", "is not between the years 1970 and 9999"),
    ] {
        let report = reported.lines().find(|report| report.starts_with(&format!("line {line}: "))).unwrap_or_default();
        assert!(report.contains(column) && report.contains(reason), "{line}: {reported}");
    }
    let since = Web::start(database, &[]).all(RELATED)[0]["since"].as_str().unwrap().to_owned();
    assert!(since.starts_with("20") && since.len() == "2026-01-31T23:59:59Z".len(), "{since}");
}
