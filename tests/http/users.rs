//! Users and friends over HTTP: their formats, their pages, and the parameters that they reject.

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::responses::style;
use crate::support::engine::Database;
use crate::support::process::{Web, migrated};
use crate::support::resource::{CSV, FIRST, LISTING, NDJSON, RELATED, listing, related};
use crate::support::{Tests, tests};

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!())
        .each(tests![
            bad_input_is_named,
            a_user_is_one_line_of_json_to_every_reader,
            no_cell_of_csv_is_a_formula,
            pages_are_light,
        ])
        .any(tests![the_format_is_the_clients_choice])
        .trials()
}

fn the_format_is_the_clients_choice(database: &Database) {
    let web = Web::seeded(database);
    for (accept, status, kind) in [
        ("application/json", 200, "application/json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", 200, "application/json"),
        ("application/x-ndjson", 200, "application/x-ndjson"),
        ("text/csv;q=0.9, application/json;q=0.1", 200, "text/csv; charset=utf-8; header=present"),
        ("image/png", 406, "application/problem+json"),
    ] {
        let answer = web.get_with(LISTING, &[("accept", accept)]);
        assert_eq!((answer.status, answer.header("content-type")), (status, Some(kind)), "{accept}");
        assert!(status != 200 || answer.header("vary") == Some("accept"));
    }
    for path in [FIRST, RELATED] {
        assert_eq!(web.get_with(path, &[("accept", "text/csv")]).status, 406, "{path}");
    }
    let page = web.get_with(RELATED, &[("accept", "text/html,*/*;q=0.8")]);
    assert_eq!((page.header("content-type"), page.header("vary")), (Some("text/html; charset=utf-8"), Some("accept")));
    assert!(page.body.contains("<h1>admin</h1>"), "{}", page.body);
    let refused = web.get_with(LISTING, &[("accept", "image/png")]).json();
    assert_eq!(refused["detail"], "this resource is available as application/json, application/x-ndjson, text/csv");
}

/// JSON allows Unicode line breaks inside a string, but some line readers split at them.
fn a_user_is_one_line_of_json_to_every_reader(database: &Database) {
    const BREAKS: [char; 3] = ['\u{85}', '\u{2028}', '\u{2029}'];
    let web = Web::seeded(database);
    let name = "M\u{fc}ller \u{20ac}\u{85}a\u{2028}\u{2029}b";
    let mut sql = database.sql();
    sql.execute(&format!("INSERT INTO users (username, email) VALUES ('{name}', 'x\u{2028}@example.com')"));
    sql.execute("INSERT INTO friends (user_id, friend_id) VALUES (2, 3)");
    let sent = [LISTING, NDJSON, listing!("/3"), related!(2)].map(|path| web.get(path).body);
    for json in sent.into_iter().chain([migrated(database, &["export", "-", "--format", "ndjson"])]) {
        assert!(!json.contains(BREAKS), "{json:?}");
        assert!(json.contains("M\u{fc}ller \u{20ac}\\u0085a\\u2028\\u2029b"), "{json:?}");
        let last: Value = serde_json::from_str(json.lines().last().unwrap()).unwrap();
        let mut user = if let Value::Array(users) = &last { users.last().unwrap().clone() } else { last };
        // Only a friend has it.
        user.as_object_mut().unwrap().remove("since");
        assert_eq!(user, json!({"id": 3, "username": name, "email": "x\u{2028}@example.com"}));
    }
    let problem = web.get(listing!("?%C2%85%E2%80%A8=1"));
    assert_eq!((problem.status, problem.body.contains(BREAKS)), (400, false), "{}", problem.body);
}

/// A spreadsheet may skip blanks, split a cell at a line break or at another separator, and treat a full-width operator
/// like the ASCII operator (OWASP, "CSV Injection").
fn no_cell_of_csv_is_a_formula(database: &Database) {
    let web = Web::seeded(database);
    let names = [
        "=1+1",
        "+1+1",
        "-1+1",
        "@SUM(1)",
        "＝1+1",
        "＋1+1",
        "－1+1",
        "＠SUM(1)",
        "\t=1",
        "\r=1",
        "\n=1",
        " =1",
        "\u{a0}＝1",
        "a\n=1",
        "a\r\n＝1",
        "a\r=1",
        "a\t=1",
        "a\n\t =1",
        "a =1",
        "a,=1",
        "a;=1",
        "a|=1",
        "a\"=1",
        "a\",\"=1",
    ];
    let rows =
        (0..).zip(names).map(|(n, name)| format!("('{name}', '={n}@example.com')")).collect::<Vec<_>>().join(", ");
    database.sql().execute(&format!("INSERT INTO users (username, email) VALUES {rows}"));
    let csv = web.get(CSV).body;
    let pieces = csv.split([',', ';', '|', '\t', '\r', '\n', '"']).map(|piece| piece.trim_matches([' ', '\u{a0}']));
    for piece in pieces {
        assert!(!piece.starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠']), "{piece:?} of {csv}");
    }
    // Without the apostrophes, the values are those of the table.
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let read: Vec<String> = reader.records().skip(2).map(|row| row.unwrap()[1].replace('\'', "")).collect();
    assert_eq!(read, names);
}

/// Fifty users and all that it takes to show them are below 14 KB, which is what a server may send before it
/// hears from the client again (RFC 6928), even where nobody compresses.
fn pages_are_light(database: &Database) {
    migrated(database, &["up"]);
    migrated(database, &["seed", "200"]);
    let web = Web::start(database, &[]);
    for path in ["/", RELATED, "/?sort=-email&limit=50"] {
        let page = web.get_with(path, &[("accept", "text/html")]);
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
        let all = page.body.len() + web.get(&style(&page)).body.len();
        assert!(all < 14_000, "{path}: {all} bytes");
        assert!(!page.body.contains("<script") && !page.body.contains("style="), "{}", page.body);
    }
    assert_eq!(web.get("/").body.matches("<tr><td>").count(), 50);
}

fn bad_input_is_named(database: &Database) {
    let web = Web::seeded(database);
    let long = format!("{LISTING}?q={}", "a".repeat(121));
    let endless = format!("{LISTING}?q={}", "a".repeat(10_000));
    for (path, status, detail) in [
        (listing!("?limit=0"), 400, "limit: expected an integer from 1 to 1000, got \"0\""),
        (listing!("?limit=1001"), 400, "limit: expected an integer"),
        (listing!("?limit=abc"), 400, "limit: expected an integer"),
        (listing!("?limit=1&limit=2"), 400, "limit: given twice"),
        (listing!("?after=forged"), 400, "after: expected a cursor"),
        (listing!("?after=aQAAAAAAAAAB&sort=email"), 400, "after: expected a cursor"),
        (
            listing!("?sort=password"),
            400,
            "sort: expected one of id, -id, username, -username, email, -email, got \"password\"",
        ),
        (listing!("?q=a&sort=email"), 400, "sort: a listing with this q is ordered by username"),
        (listing!("?q=a%00b"), 400, "q: expected text in UTF-8, without U+0000"),
        (listing!("?q=%ff"), 400, "q: expected text in UTF-8, without U+0000"),
        (listing!("?page=2"), 400, "page: unknown parameter; this resource supports limit, after, sort, q"),
        (related!(1, "?sort=email"), 400, "sort: expected one of id, -id, since, -since, got \"email\""),
        (related!(1, "?q=a"), 400, "q: unknown parameter; this resource supports limit, after, sort"),
        (listing!("/1?limit=1"), 400, "limit: unknown parameter; this resource supports none"),
        (listing!("/99999999999999999999"), 400, "id: expected an integer from 1 to 9007199254740991"),
        (listing!("/abc"), 400, "id: expected an integer"),
        (listing!("/3"), 404, "there is no user with this id"),
        (related!(3), 404, "there is no user with this id"),
        ("/groups", 404, "there is nothing here"),
        (long.as_str(), 400, "q: expected at most 120 characters, got 121"),
        (endless.as_str(), 414, "the URI is longer than 8192 bytes"),
    ] {
        let answer = web.get(path);
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        let problem = answer.json();
        assert!(problem["detail"].as_str().unwrap().starts_with(detail), "{path}: {problem}");
        assert_eq!(problem["status"], status);
        assert_eq!(problem["instance"].as_str(), answer.header("x-request-id"));
    }
    let refused = web.send("PUT", FIRST, &[]);
    assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD, PATCH, DELETE, OPTIONS")));
    let html = [("accept", "text/html,*/*;q=0.1")];
    let page = web.get_with("/?limit=0", &html);
    assert_eq!((page.status, page.header("content-type")), (400, Some("text/html; charset=utf-8")));
    assert_eq!(web.get(LISTING).status, 200);
}
