//! XI. Logs: a stream of events on standard output, one a line, in no file and with no secret.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use libtest_mimic::Trial;

use crate::support::engine::{Database, Engine};
use crate::support::process::{Web, migrated};
use crate::support::{Factor, eventually};

pub(crate) fn tests() -> Vec<Trial> {
    let sqlite = &[Engine::Sqlite];
    Factor::new("logs")
        .on(sqlite, "a_request_is_one_line_of_json", a_request_is_one_line_of_json)
        .on(sqlite, "a_request_id_is_taken_or_made", a_request_id_is_taken_or_made)
        .on(sqlite, "text_is_for_people", text_is_for_people)
        .on(sqlite, "the_filter_is_the_environments", the_filter_is_the_environments)
        .on(sqlite, "junk_stays_one_line", junk_stays_one_line)
        .each("nothing_private_is_logged", nothing_private_is_logged)
        .tests()
}

fn a_request_is_one_line_of_json(database: &Database) {
    let web = Web::seeded(database);
    for (count, (path, route, status, level)) in (1..).zip([
        ("/users?limit=1", "/users", 200, "INFO"),
        ("/users/1", "/users/{id}", 200, "INFO"),
        ("/users/7/friends", "/users/{id}/friends", 404, "INFO"),
        ("/no/such/thing", "none", 404, "INFO"),
    ]) {
        let id = web.get(path).header("x-request-id").unwrap().to_owned();
        let lines = web.requests(count);
        let line = lines.last().unwrap();
        assert_eq!(line["request_id"], id);
        assert_eq!(line["method"], "GET");
        assert_eq!(line["route"], route);
        assert_eq!(line["status"], status);
        assert_eq!(line["level"], level);
        assert!(line["duration_us"].as_u64().unwrap() > 0);
        assert!(line["time"].as_str().unwrap().ends_with('Z'));
        assert!(line["target"].as_str().unwrap().starts_with("roster"));
    }
}

fn a_request_id_is_taken_or_made(database: &Database) {
    let web = Web::start(database, &[]);
    let longest = "a".repeat(64);
    for id in ["abc", "A.b_c-9", longest.as_str()] {
        assert_eq!(web.get_with("/livez", &[("x-request-id", id)]).header("x-request-id"), Some(id));
    }
    let too_long = "a".repeat(65);
    for id in ["", "a b", "a\"b", too_long.as_str()] {
        let made = web.get_with("/livez", &[("x-request-id", id)]);
        let made = made.header("x-request-id").unwrap();
        assert!(made.len() == 32 && made.bytes().all(|b| b.is_ascii_hexdigit()), "{id}: {made}");
    }
    assert_eq!(web.requests(7).iter().filter(|line| line["request_id"] == "A.b_c-9").count(), 1);
}

fn text_is_for_people(database: &Database) {
    let web = Web::start(database, &[("LOG_FORMAT", "text")]);
    web.get("/livez");
    let find = || web.log().lines().find(|line| line.contains("route=\"/livez\"")).map(str::to_owned);
    eventually("the request has its line", || find().is_some());
    let line = find().unwrap();
    assert!(line.contains("INFO") && line.contains("status=200") && !line.contains('\u{1b}'), "{line}");
}

fn the_filter_is_the_environments(database: &Database) {
    migrated(database, &["up"]);
    let mut web = Web::start(database, &[("RUST_LOG", "warn,roster::server=info")]);
    web.get("/users");
    web.get("/nothing");
    // A line that must be there, after those that must not.
    assert_eq!(web.get("/readyz").status, 200);
    web.signal("TERM");
    assert_eq!(web.exit_code(), 0);
    assert_eq!(web.requests(0).len(), 0);
}

/// Whatever a client puts where, each line of the log is one JSON object.
fn junk_stays_one_line(database: &Database) {
    let web = Web::seeded(database);
    for target in ["/users?q=%0d%0a%1b[31m", "/%0a%7b%22level%22:%22x%22%7d", "/users/%00", "/users?%22%0a=1"] {
        let status = web.get(target).status;
        assert!(status < 500, "{target}: {status}");
    }
    let mut raw = TcpStream::connect(("127.0.0.1", web.port)).unwrap();
    let long = "x".repeat(100_000);
    write!(raw, "BREW /users?q=%1b%0a HTTP/1.1\r\nHost: x\r\nX-Request-Id: \u{e9}\"\r\nX-Long: {long}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = raw.read_to_end(&mut answer);
    assert!(answer.starts_with(b"HTTP/1.1 405"), "{}", String::from_utf8_lossy(&answer));
    // Parsing is the assertion.
    assert_eq!(web.requests(5).last().unwrap()["method"], "BREW");
}

/// Neither what a client asked for nor what the database answered is in any line.
fn nothing_private_is_logged(database: &Database) {
    let web = Web::seeded(database);
    let next = web.get("/users?limit=1&sort=email").next().unwrap();
    for path in [
        "/users?q=admin@canary",
        "/users?q=canary",
        "/?q=canary",
        "/canary",
        "/users/canary",
        &next,
        "/users?after=canary",
    ] {
        web.get(path);
    }
    database.sql().execute("DROP TABLE friends");
    assert_eq!(web.get("/users/1/friends?after=canary").status, 400);
    assert_eq!(web.get("/users/1/friends").status, 503);
    web.requests(10);
    let log = web.log();
    let cursor = next.split_once("after=").unwrap().1;
    for private in ["canary", "admin@", "example.com", "after=", "q=", cursor, "sqlite:", "mysql://", "postgres://"] {
        assert!(!log.contains(private), "{private} is in the log: {log}");
    }
}
