//! Creating, changing and removing: what a request does, and that it is done once.

use std::fs;
use std::sync::Mutex;
use std::thread;

use libtest_mimic::Trial;
use roster::config::ApiTokens;
use tempfile::TempDir;

use crate::support::engine::{Database, Engine, Family};
use crate::support::process::{Answer, CLIENT, TOKEN, Web, code, migrated, stderr, web};
use crate::support::sql::{Sql, waits};
use crate::support::{Tests, eventually, tests};

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!())
        .each(tests![
            a_user_is_created_changed_and_removed,
            a_friendship_belongs_to_both,
            a_condition_is_a_list_of_tags,
            every_error_names_its_cause,
            a_repeated_request_has_the_first_response,
            a_request_that_is_sent_at_once_is_done_once,
            no_change_of_another_writer_is_lost,
            friendships_in_any_order_succeed,
            a_client_has_a_token,
            reading_can_need_a_token,
            nothing_private_is_logged,
            nothing_is_committed_after_its_503
        ])
        .on(&Engine::SERVERS, tests![a_request_that_is_still_running_is_a_conflict, a_deadlock_is_repeated])
        .on(&Engine::POSTGRES, tests![an_unknown_outcome_is_stated])
        .once(tests![a_token_is_made, tokens_are_configured])
        .trials()
}

const ADA: &str = r#"{"username":"ada","email":"ada@example.com"}"#;
/// What a 503 states if the change may have been made.
const UNKNOWN: &str = "the change may have been made: repeat the request, a POST with the same Idempotency-Key";
const BOB: &str = r#"{"username":"bob","email":"bob@example.com"}"#;

fn start(database: &Database) -> Web {
    start_with(database, &[])
}

/// A server with the two users, and the token of [`Web::write`].
fn start_with(database: &Database, environment: &[(&str, &str)]) -> Web {
    migrated(database, &["up"]);
    migrated(database, &["seed"]);
    Web::writable(database, environment)
}

fn create(web: &Web, body: &str) -> Answer {
    let created = web.write("POST", "/users", &[], body);
    assert_eq!(created.status, 201, "{}", created.body);
    created
}

/// The path of what a request created.
fn location(created: &Answer) -> String {
    created.url.join(created.header("location").unwrap()).unwrap().path().to_owned()
}

fn etag(answer: &Answer) -> String {
    answer.header("etag").unwrap().to_owned()
}

fn detail(answer: &Answer) -> String {
    answer.json()["detail"].as_str().unwrap().to_owned()
}

/// The pointers of the wrong members, each with what is wrong.
fn faults(answer: &Answer) -> Vec<String> {
    let problem = answer.json();
    let errors = problem["errors"].as_array().unwrap_or_else(|| panic!("no errors: {problem}"));
    errors.iter().map(|error| format!("{} {}", error["pointer"], error["detail"]).replace('"', "")).collect()
}

fn a_user_is_created_changed_and_removed(database: &Database) {
    let web = start(database);
    let created = create(&web, r#"{"email":" Ada@example.com ","username":"Ada"}"#);
    let path = location(&created);
    assert_eq!((path.as_str(), created.header("content-type")), ("/users/3", Some("application/json")));
    assert_eq!(created.body, r#"{"id":3,"username":"Ada","email":"Ada@example.com"}"#);
    let read = web.get(&path);
    assert_eq!((read.status, &read.body, etag(&read)), (200, &created.body, etag(&created)));
    assert_eq!(created.header("cache-control"), Some("private, no-cache"));

    let first = etag(&created);
    let change = |condition: &str, body| web.write("PATCH", &path, &[("if-match", condition)], body);
    let changed = change(&first, r#"{"username":"ada"}"#);
    assert_eq!(changed.status, 200, "{}", changed.body);
    assert_eq!(changed.body, r#"{"id":3,"username":"ada","email":"Ada@example.com"}"#);
    assert_eq!((web.get(&path).body, etag(&web.get(&path))), (changed.body.clone(), etag(&changed)));
    assert_eq!(change(&first, r#"{"username":"late"}"#).status, 412, "it was changed since");
    assert_eq!(change(&format!("{first}, {}", etag(&changed)), "{}").body, changed.body, "nothing is to be changed");
    let headers = [
        ("authorization", &*format!("Bearer {TOKEN}")),
        ("if-match", "*"),
        ("content-type", "application/merge-patch+json; charset=utf-8"),
    ];
    let both = web.send_body("PATCH", &path, &headers, r#"{"username":"bob","email":"bob@example.com"}"#);
    assert_eq!(both.body, r#"{"id":3,"username":"bob","email":"bob@example.com"}"#);

    let remove = |headers: &[(&str, &str)]| web.write("DELETE", &path, headers, "");
    assert_eq!(remove(&[("if-match", &first)]).status, 412);
    assert_eq!(remove(&[("if-none-match", "*")]).status, 412);
    let removed = remove(&[("if-match", &etag(&both))]);
    assert_eq!((removed.status, removed.body.as_str(), removed.header("cache-control")), (204, "", Some("no-store")));
    assert_eq!((remove(&[]).status, web.get(&path).status), (404, 404));
    assert_eq!(location(&create(&web, ADA)), "/users/4", "an id is not used again");

    let options = web.send("OPTIONS", &path, &[]);
    assert_eq!((options.status, options.header("allow")), (204, Some("GET, HEAD, PATCH, DELETE, OPTIONS")));
    assert_eq!(options.header("accept-patch"), Some("application/merge-patch+json"));
    let options = web.send("OPTIONS", "/users", &[]);
    assert_eq!((options.status, options.header("allow")), (204, Some("GET, HEAD, POST, OPTIONS")));
}

fn a_friendship_belongs_to_both(database: &Database) {
    let web = start(database);
    create(&web, ADA);
    let friends = |id: i64| {
        let friends = web.get(&format!("/users/{id}/friends")).json();
        friends.as_array().unwrap().iter().map(|friend| friend["id"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!((friends(1), friends(3)), (vec![2], vec![]));
    for _ in 0..2 {
        let added = web.write("PUT", "/users/3/friends/1", &[], "");
        assert_eq!((added.status, added.body.as_str()), (204, ""));
        assert_eq!((friends(1), friends(3)), (vec![2, 3], vec![1]));
    }
    let again = web.write("PUT", "/users/1/friends/3", &[("if-none-match", "*")], "");
    assert_eq!((again.status, friends(3)), (412, vec![1]));
    assert_eq!(web.write("PUT", "/users/2/friends/3", &[("if-none-match", "*")], "").status, 204);
    assert_eq!(web.write("DELETE", "/users/1/friends/3", &[("if-none-match", "*")], "").status, 412);
    assert_eq!(web.write("PUT", "/users/3/friends/1", &[("if-match", "*")], "").status, 204);
    for _ in 0..2 {
        assert_eq!(web.write("DELETE", "/users/1/friends/3", &[], "").status, 204);
        assert_eq!((friends(1), friends(2), friends(3)), (vec![2], vec![1, 3], vec![2]));
    }
    for (method, path, status) in [
        ("PUT", "/users/1/friends/9", 404),
        ("PUT", "/users/9/friends/1", 404),
        ("DELETE", "/users/1/friends/9", 404),
        ("DELETE", "/users/9/friends/1", 404),
        ("PUT", "/users/1/friends/1", 409),
        ("PUT", "/users/1/friends/01", 400),
        ("GET", "/users/1/friends/2", 405),
    ] {
        let refused = web.write(method, path, &[], "");
        assert_eq!(refused.status, status, "{method} {path}: {}", refused.body);
    }
    for (path, expected) in
        [("/users/x/friends/2", "id: expected an integer"), ("/users/1/friends/x", "friend_id: expected an integer")]
    {
        let refused = detail(&web.write("PUT", path, &[], ""));
        assert!(refused.starts_with(expected), "{refused}");
    }
    assert_eq!(web.write("DELETE", "/users/2", &[], "").status, 204);
    assert_eq!((friends(1), friends(3)), (vec![], vec![]), "friendships end with their users");
}

fn a_condition_is_a_list_of_tags(database: &Database) {
    let web = start(database);
    let change = |headers: &[(&str, &str)]| web.write("PATCH", "/users/2", headers, "{}").status;
    let tag = etag(&web.get("/users/2"));
    for (condition, status) in [
        ("\"x\"", 412),
        ("W/\"x\"", 412),
        ("", 400),
        (",", 400),
        ("x", 400),
        ("\"x\", y", 400),
        ("\"x\",", 412),
        (&format!("W/{tag}"), 412),
        (&format!("{tag},"), 200),
        (&format!(", \"x\", ,{tag}"), 200),
    ] {
        assert_eq!(change(&[("if-match", condition)]), status, "{condition}");
    }
    assert_eq!(change(&[("if-match", "*"), ("if-match", "\"x\"")]), 400, "several lines are one list");
}

fn every_error_names_its_cause(database: &Database) {
    let web = start(database);
    for (body, status, expected) in [
        ("{", 400, "the body is not JSON: EOF while parsing an object at line 1 column 1"),
        ("{\n\"username\":}", 400, "the body is not JSON: expected value at line 2 column 12"),
        ("{\"username\":\"a\"} x", 400, "the body is not JSON: trailing characters at line 1 column 18"),
        (r#"{"email":"a@x","email":"b@x"}"#, 400, "the body is ambiguous: it has a member twice at line 1 column 29"),
        ("[]", 422, "the body must be a JSON object"),
        ("[1,", 400, "the body is not JSON: EOF while parsing a value at line 1 column 3"),
        ("\"canary\"", 422, "the body must be a JSON object"),
        (r#"{"username":"admin","email":"x@x"}"#, 409, "username is taken"),
        (r#"{"username":"x","email":"GUEST@example.com"}"#, 409, "email is taken"),
    ] {
        let refused = web.write("POST", "/users", &[], body);
        assert_eq!((refused.status, detail(&refused).as_str()), (status, expected), "{body}");
        assert_eq!(refused.header("content-type"), Some("application/problem+json"));
        if status == 409 {
            assert_eq!(faults(&refused), [format!("/{} is taken", expected.split(' ').next().unwrap())]);
        }
    }
    let long = "x".repeat(81);
    for (body, expected) in [
        ("{}".to_owned(), vec!["/username is missing", "/email is missing"]),
        (
            r#"{"username":null,"email":5}"#.to_owned(),
            vec!["/username is missing", "/email is 5, and must be a string"],
        ),
        (
            r#"{"username":" ","email":"x","id":7,"a/b~":1}"#.to_owned(),
            vec![
                "/id is chosen by the server",
                "/a~1b~0 is not a member of this object",
                "/username is empty",
                "/email is not of the form name@domain: it has no @",
            ],
        ),
        (format!(r#"{{"username":"{long}","email":"x@x"}}"#), vec!["/username has 81 characters, 80 at most"]),
        (r#"{"username":"a\u0000b","email":"x@x"}"#.to_owned(), vec!["/username has a control character (U+0000)"]),
    ] {
        let refused = web.write("POST", "/users", &[], &body);
        assert_eq!(refused.status, 422, "{body}: {}", refused.body);
        let expected: Vec<_> = expected.iter().map(|fault| fault.replace("is 5", "is a number")).collect();
        assert_eq!(faults(&refused), expected, "{body}");
    }
    let change = |body, headers: &[(&str, &str)]| web.write("PATCH", "/users/2", headers, body);
    let any = [("if-match", "*")];
    assert_eq!(
        faults(&change(r#"{"username":null,"id":3,"email":""}"#, &any)),
        ["/id is chosen by the server", "/username cannot be removed", "/email is empty",]
    );
    let taken = change(r#"{"username":"ADMIN"}"#, &any);
    assert_eq!((taken.status, faults(&taken)), (409, vec!["/username is taken".to_owned()]));
    let unconditional = change(r#"{"username":"x"}"#, &[]);
    assert!(unconditional.status == 428 && detail(&unconditional).starts_with("If-Match: required"));
    let authorization = format!("Bearer {TOKEN}");
    let send = |method, path, headers: &[(&str, &str)], body: &str| {
        let headers: Vec<_> = [("authorization", &*authorization)].into_iter().chain(headers.iter().copied()).collect();
        web.send_body(method, path, &headers, body)
    };
    for headers in [&[][..], &[("content-type", "text/plain")], &[("content-type", "application/merge-patch+json")]] {
        let refused = send("POST", "/users", headers, ADA);
        assert_eq!((refused.status, refused.header("accept")), (415, Some("application/json")), "{headers:?}");
    }
    let refused = send("PATCH", "/users/2", &[("content-type", "text/json"), ("if-match", "*")], "{}");
    assert_eq!(refused.status, 415);
    assert_eq!(refused.header("accept-patch"), Some("application/merge-patch+json"));
    let encoded = [("content-type", "application/json"), ("content-encoding", "gzip")];
    let refused = send("POST", "/users", &encoded, ADA);
    assert_eq!((refused.status, refused.header("accept-encoding")), (415, Some("identity")));
    let doubled =
        [("content-type", "application/json"), ("content-encoding", "identity"), ("content-encoding", "gzip")];
    assert_eq!(send("POST", "/users", &doubled, ADA).status, 415);
    assert_eq!(send("POST", "/users", &[("content-type", "text/plain"), doubled[0]], ADA).status, 415);
    let large = format!(r#"{{"username":"{}"}}"#, "x".repeat(70_000));
    for (method, path, headers, body, status) in [
        ("POST", "/users", &[("accept", "text/csv")][..], ADA, 406),
        ("POST", "/users?limit=1", &[], ADA, 400),
        ("POST", "/users", &[("if-none-match", "*")], ADA, 412),
        ("POST", "/users", &[("if-match", "\"x\"")], ADA, 412),
        ("POST", "/users", &[("idempotency-key", "")], ADA, 400),
        ("POST", "/users", &[("idempotency-key", "a b")], ADA, 400),
        ("POST", "/users", &[("idempotency-key", "a"), ("idempotency-key", "b")], ADA, 400),
        ("POST", "/users", &[], large.as_str(), 413),
        ("PATCH", "/users/9", &[("if-match", "*")], "{}", 404),
        ("PATCH", "/users/x", &[("if-match", "*")], "{}", 400),
        ("DELETE", "/users/9", &[], "", 404),
        ("PUT", "/users/2", &[], ADA, 405),
        ("POST", "/nothing", &[], ADA, 404),
        ("POST", "/livez", &[], ADA, 405),
    ] {
        let refused = web.write(method, path, headers, body);
        assert_eq!(refused.status, status, "{method} {path} {headers:?}: {}", refused.body);
    }
    assert_eq!(database.sql().number("SELECT COUNT(*) FROM users"), 2);
}

fn a_repeated_request_has_the_first_response(database: &Database) {
    let web = start(database);
    let post = |key: &str, body| web.write("POST", "/users", &[("idempotency-key", key)], body);
    let first = post("one", ADA);
    assert_eq!((first.status, first.header("idempotency-replayed")), (201, None), "{}", first.body);
    // Another process, and the row is not what it was.
    let other = Web::writable(database, &[]);
    assert_eq!(web.write("DELETE", &location(&first), &[], "").status, 204);
    for web in [&web, &other] {
        let again = web.write("POST", "/users", &[("idempotency-key", "one")], ADA);
        assert_eq!((again.status, again.header("idempotency-replayed")), (201, Some("true")));
        assert_eq!((&again.body, location(&again), etag(&again)), (&first.body, location(&first), etag(&first)));
    }
    let used = post("one", BOB);
    assert_eq!(used.status, 422);
    assert!(detail(&used).starts_with("Idempotency-Key: this key was used for another request"), "{}", used.body);
    // A request that failed did nothing, so its key can be used.
    assert_eq!(post("two", r#"{"username":"admin","email":"x@x"}"#).status, 409);
    assert_eq!(post("two", BOB).status, 201);
    let longest = "x".repeat(255);
    assert_eq!(post(&longest, r#"{"username":"c","email":"c@x"}"#).status, 201);
    assert_eq!(post(&format!("{longest}x"), r#"{"username":"d","email":"d@x"}"#).status, 400);

    // The keys of clients do not meet.
    let tokens = ["one", "two"].map(|name| ApiTokens::pair(name, name).unwrap()).join(",");
    let web = Web::start(database, &[("API_TOKENS", &tokens)]);
    for (number, name) in ["one", "two"].iter().enumerate() {
        let authorization = format!("Bearer {name}");
        let headers =
            [("authorization", &*authorization), ("content-type", "application/json"), ("idempotency-key", "one")];
        let body = format!(r#"{{"username":"n{number}","email":"n{number}@x"}}"#);
        assert_eq!(web.send_body("POST", "/users", &headers, &body).status, 201, "{name}");
    }

    // After 24 hours, a key is that of a new request.
    let mut sql = database.sql();
    let shown = sql.texts("SELECT id FROM idempotency_keys").join(" ");
    assert!(!shown.contains("one") && !shown.contains(CLIENT), "{shown}");
    sql.execute(match database.engine.family() {
        Family::Sqlite => "UPDATE idempotency_keys SET created_at = '2026-01-01T00:00:00Z'",
        Family::MySql | Family::Postgres => "UPDATE idempotency_keys SET created_at = '2026-01-01 00:00:00'",
    });
    let anew = post_to(&other, "one", r#"{"username":"new","email":"new@x"}"#);
    assert_eq!((anew.status, anew.header("idempotency-replayed")), (201, None), "{}", anew.body);
}

fn post_to(web: &Web, key: &str, body: &str) -> Answer {
    web.write("POST", "/users", &[("idempotency-key", key)], body)
}

fn a_request_that_is_sent_at_once_is_done_once(database: &Database) {
    let webs = [start(database), Web::writable(database, &[])];
    let answers = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for number in 0..8 {
            let (web, answers) = (&webs[number % 2], &answers);
            scope.spawn(move || {
                for round in 0..5 {
                    let body = format!(r#"{{"username":"r{round}","email":"r{round}@x"}}"#);
                    let mut sent = (0..20).map(|_| post_to(web, &format!("key{round}"), &body));
                    let answer = sent.find(|answer| answer.status == 201);
                    answers.lock().unwrap().push((round, answer.expect("it succeeds at some time").body));
                }
            });
        }
    });
    let mut answers = answers.into_inner().unwrap();
    assert_eq!(answers.len(), 40);
    answers.sort();
    answers.dedup();
    assert_eq!(answers.len(), 5, "{answers:?}");
    assert_eq!(database.sql().number("SELECT COUNT(*) FROM users"), 7);
}

/// A transaction holds a row that the first request needs. The second has the same key and less time.
fn a_request_that_is_still_running_is_a_conflict(database: &Database) {
    let slow = start_with(database, &[("DATABASE_QUERY_TIMEOUT_MS", "60000"), ("REQUEST_TIMEOUT_MS", "60000")]);
    let fast = Web::writable(database, &[]);
    let mut other = database.sql();
    other.execute("BEGIN");
    other.execute("INSERT INTO users (username, email) VALUES ('ada', 'other@x')");
    thread::scope(|scope| {
        let first = scope.spawn(|| post_to(&slow, "one", ADA));
        let mut sql = database.sql();
        eventually("the first is running", || {
            slow.metric("db_client_connections{db_client_connection_state=\"used\"}") == 1
        });
        eventually("the second waits for it", || {
            let second = post_to(&fast, "one", ADA);
            assert!([409, 503].contains(&second.status), "{}", second.body);
            second.status == 409
                && second.header("retry-after") == Some("1")
                && detail(&second) == "Idempotency-Key: another request with this key is still running"
        });
        assert_eq!(sql.number("SELECT COUNT(*) FROM idempotency_keys"), 0);
        other.execute("ROLLBACK");
        assert_eq!(first.join().unwrap().status, 201);
    });
    assert_eq!(post_to(&fast, "one", ADA).header("idempotency-replayed"), Some("true"));
}

/// 32 writers count in one row.
fn no_change_of_another_writer_is_lost(database: &Database) {
    const WRITERS: usize = 32;
    const EACH: usize = 3;
    let web = start_with(database, &[("DATABASE_ACQUIRE_TIMEOUT_MS", "20000"), ("DATABASE_QUERY_TIMEOUT_MS", "20000")]);
    let count =
        |body: &str| body.split("\"n").nth(1).map_or(0, |rest| rest.split('"').next().unwrap().parse().unwrap());
    thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                let mut done = 0;
                while done < EACH {
                    let read = web.get("/users/2");
                    let number: usize = count(&read.body);
                    let body = format!(r#"{{"username":"n{}"}}"#, number + 1);
                    let changed = web.write("PATCH", "/users/2", &[("if-match", &etag(&read))], &body);
                    assert!([200, 412].contains(&changed.status), "{}", changed.body);
                    done += usize::from(changed.status == 200);
                }
            });
        }
    });
    assert_eq!(count(&web.get("/users/2").body), WRITERS * EACH);
}

/// The transaction of the request is the smaller one, and waits first, so it is the one that the database ends.
fn a_deadlock_is_repeated(database: &Database) {
    let web = start_with(database, &[("DATABASE_QUERY_TIMEOUT_MS", "60000"), ("REQUEST_TIMEOUT_MS", "60000")]);
    let lock = |sql: &mut Sql, rows: &str| sql.execute(&format!("SELECT * FROM {rows} FOR UPDATE"));
    let mut other = database.sql();
    other.execute("BEGIN");
    for number in 0..50 {
        other.execute(&format!("INSERT INTO users (username, email) VALUES ('o{number}', 'o{number}@x')"));
    }
    lock(&mut other, "friends WHERE user_id = 1");
    thread::scope(|scope| {
        // It locks the user, and then waits for the user's friendships.
        let removed = scope.spawn(|| web.write("DELETE", "/users/2", &[], ""));
        let mut sql = database.sql();
        eventually("the request waits", || waits(&mut sql, database.engine));
        lock(&mut other, "users WHERE id = 2");
        other.execute("ROLLBACK");
        assert_eq!(removed.join().unwrap().status, 204);
    });
    assert_eq!(web.metric("db_client_transactions_total{outcome=\"repeated\"}"), 1);
    assert_eq!(web.metric("db_client_transactions_total{outcome=\"committed\"}"), 1);
}

/// The session ends while it commits.
fn an_unknown_outcome_is_stated(database: &Database) {
    let web = start_with(database, &[("DATABASE_QUERY_TIMEOUT_MS", "60000"), ("REQUEST_TIMEOUT_MS", "60000")]);
    let mut sql = database.sql();
    sql.execute(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NULL; END $$",
    );
    sql.execute(
        "CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON users DEFERRABLE INITIALLY DEFERRED \
         FOR EACH ROW EXECUTE FUNCTION wait()",
    );
    thread::scope(|scope| {
        let created = scope.spawn(|| post_to(&web, "one", ADA));
        let committing = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND query = 'COMMIT' \
                          AND state = 'active'";
        eventually("it commits", || sql.number(committing) == 1);
        sql.execute(&committing.replace("COUNT(*)", "pg_terminate_backend(pid)"));
        let created = created.join().unwrap();
        assert_eq!(created.status, 503);
        assert_eq!(detail(&created), format!("the database became unavailable; {UNKNOWN}"));
    });
    assert_eq!(web.metric("db_client_transactions_total{outcome=\"unconfirmed\"}"), 1);
    sql.execute("DROP TRIGGER wait ON users");
    let again = post_to(&web, "one", ADA);
    assert_eq!((again.status, again.header("idempotency-replayed")), (201, None), "{}", again.body);
    assert_eq!(sql.number("SELECT COUNT(*) FROM users"), 3);
}

/// Transactions that lock the same rows in any order may deadlock, and are repeated.
fn friendships_in_any_order_succeed(database: &Database) {
    let web = start_with(database, &[("DATABASE_ACQUIRE_TIMEOUT_MS", "20000"), ("DATABASE_QUERY_TIMEOUT_MS", "20000")]);
    create(&web, ADA);
    thread::scope(|scope| {
        for number in 0..8_u32 {
            let web = &web;
            scope.spawn(move || {
                for round in 0..10 {
                    let (one, other) = (1 + (number + round) % 3, 1 + (number + 2 * round + 1) % 3);
                    if one != other {
                        let method = if round % 3 == 0 { "DELETE" } else { "PUT" };
                        let answer = web.write(method, &format!("/users/{one}/friends/{other}"), &[], "");
                        assert_eq!(answer.status, 204, "{}", answer.body);
                    }
                }
            });
        }
    });
    // Both rows of a friendship, or none, whichever request is first.
    let mut sql = database.sql();
    for round in 0..60 {
        assert_eq!(web.write("PUT", "/users/1/friends/2", &[], "").status, 204);
        thread::scope(|scope| {
            for (method, path) in [("PUT", "/users/2/friends/1"), ("DELETE", "/users/1/friends/2")] {
                let web = &web;
                scope.spawn(move || assert_eq!(web.write(method, path, &[], "").status, 204));
            }
        });
        let rows = sql.number("SELECT COUNT(*) FROM friends WHERE user_id IN (1, 2) AND friend_id IN (1, 2)");
        assert!([0, 2].contains(&rows), "round {round}: {rows}");
    }
    let transactions = |outcome: &str| web.metric(&format!("db_client_transactions_total{{outcome=\"{outcome}\"}}"));
    assert!(transactions("committed") > 40, "{}", web.get("/metrics").body);
    assert_eq!((transactions("rolled_back"), transactions("unconfirmed")), (0, 0));
    let one_sided = "SELECT COUNT(*) FROM friends f WHERE NOT EXISTS (SELECT 1 FROM friends g WHERE g.user_id = f.friend_id AND g.friend_id = f.user_id)";
    assert_eq!(database.sql().number(one_sided), 0);
}

fn a_client_has_a_token(database: &Database) {
    let web = start(database);
    let send = |headers: &[(&str, &str)]| {
        let headers: Vec<_> =
            [("content-type", "application/json")].into_iter().chain(headers.iter().copied()).collect();
        web.send_body("POST", "/users", &headers, ADA)
    };
    let missing = send(&[]);
    assert_eq!((missing.status, missing.header("www-authenticate")), (401, Some("Bearer realm=\"api\"")));
    let long = format!("Bearer {}", "x".repeat(10_000));
    let valid = format!("Bearer {TOKEN}");
    for credentials in ["", "Bearer", "Bearer ", "Basic dGVzdGVyOnRlc3Rlcg==", TOKEN, &format!("{CLIENT}:{TOKEN}")] {
        let refused = send(&[("authorization", credentials)]);
        assert_eq!((refused.status, refused.header("www-authenticate")), (401, missing.header("www-authenticate")));
        assert_eq!(detail(&refused), detail(&missing), "{credentials}");
    }
    for credentials in [
        "Bearer x",
        &valid[..valid.len() - 1],
        &format!("{valid}x"),
        &format!("{valid}, {valid}"),
        &format!("Bearer {CLIENT}"),
        &format!("Bearer {}", ApiTokens::pair(CLIENT, TOKEN).unwrap()),
        &long,
    ] {
        let refused = send(&[("authorization", credentials)]);
        assert_eq!(refused.status, 401, "{credentials}");
        assert_eq!(refused.header("www-authenticate"), Some("Bearer realm=\"api\", error=\"invalid_token\""));
        assert_eq!(detail(&refused), "the token is not valid");
    }
    assert_eq!(send(&[("authorization", &valid), ("authorization", &valid)]).status, 401, "given twice");
    assert_eq!(database.sql().number("SELECT COUNT(*) FROM users"), 2);
    assert_eq!(send(&[("authorization", &valid.replace("Bearer", "bearer"))]).status, 201);
    assert_eq!(web.get("/users").status, 200, "reading is open");
    assert_eq!(web.get_with("/users", &[("authorization", "Bearer x")]).status, 200);

    // Tokens rotate: the old and the new one are valid, and then the new one alone.
    let [old, new] = ["old", "new"].map(|token| (format!("Bearer {token}"), ApiTokens::pair("client", token).unwrap()));
    let both = format!("{}\n{}", old.1, new.1);
    for (tokens, expected) in [(&old.1, [204, 401]), (&both, [204, 204]), (&new.1, [401, 204])] {
        let web = Web::start(database, &[("API_TOKENS", tokens)]);
        let statuses =
            [&old.0, &new.0].map(|token| web.send("PUT", "/users/1/friends/2", &[("authorization", token)]).status);
        assert_eq!(statuses, expected);
    }
    let closed = Web::start(database, &[]);
    let refused = closed.write("POST", "/users", &[], ADA);
    assert_eq!(refused.status, 403);
    assert_eq!(detail(&refused), "this server accepts no writes, because API_TOKENS is not set");
}

fn reading_can_need_a_token(database: &Database) {
    let web = start_with(database, &[("API_TOKENS_REQUIRED", "all")]);
    let authorization = format!("Bearer {TOKEN}");
    for (path, is_open) in [
        ("/", false),
        ("/users", false),
        ("/users.csv", false),
        ("/users.ndjson", false),
        ("/version", false),
        ("/openapi.json", false),
        ("/users/1", false),
        ("/users/1/friends", false),
        ("/metrics", false),
        ("/docs", false),
        ("/livez", true),
        ("/readyz", true),
        ("/style-x.css", true),
        ("/docs-x.css", true),
        ("/favicon.ico", true),
    ] {
        assert_eq!(web.get(path).status, if is_open { 200 } else { 401 }, "{path}");
        assert_eq!(web.get_with(path, &[("authorization", &authorization)]).status, 200, "{path}");
    }
}

fn nothing_private_is_logged(database: &Database) {
    let web = start(database);
    let headers = [("idempotency-key", "canary-key")];
    let body = r#"{"username":"canary-name","email":"canary@mail.example"}"#;
    for _ in 0..2 {
        assert_eq!(web.write("POST", "/users", &headers, body).status, 201);
    }
    assert_eq!(web.write("POST", "/users", &[], body).status, 409);
    assert_eq!(web.write("POST", "/users", &[], r#"{"canary-member":"canary-value"}"#).status, 422);
    assert_eq!(web.send("DELETE", "/users/1", &[("authorization", "Bearer canary-forged")]).status, 401);
    let lines = web.requests(5);
    assert_eq!(lines[0]["enduser.id"], CLIENT);
    assert_eq!(lines[4]["enduser.id"], serde_json::Value::Null);
    assert!(!web.log().contains("canary"), "{}", web.log());
}

/// The handler of a request that is too slow is dropped, and so is its transaction.
fn nothing_is_committed_after_its_503(database: &Database) {
    let web = start_with(database, &[("REQUEST_TIMEOUT_MS", "500"), ("DATABASE_QUERY_TIMEOUT_MS", "20000")]);
    let mut other = database.sql();
    other.execute(if database.engine.family() == Family::Sqlite { "BEGIN IMMEDIATE" } else { "BEGIN" });
    other.execute("INSERT INTO users (username, email) VALUES ('ada', 'other@x')");
    let slow = post_to(&web, "one", ADA);
    assert_eq!(slow.status, 503);
    let unknown = format!("the request took too long; {UNKNOWN}");
    assert_eq!(detail(&slow), unknown);
    other.execute("ROLLBACK");
    eventually("its session has ended", || {
        web.metric("db_client_connections{db_client_connection_state=\"used\"}") == 0
    });
    assert_eq!(database.sql().number("SELECT COUNT(*) FROM users"), 2);
    let again = post_to(&web, "one", ADA);
    assert_eq!((again.status, again.header("idempotency-replayed")), (201, None), "{}", again.body);

    let limits = [("DATABASE_QUERY_TIMEOUT_MS", "1000"), ("DATABASE_ACQUIRE_TIMEOUT_MS", "1000")];
    let web = Web::writable(database, &limits);
    let mut other = database.sql();
    other.execute(if database.engine.family() == Family::Sqlite { "BEGIN IMMEDIATE" } else { "BEGIN" });
    other.execute("UPDATE users SET username = 'other' WHERE id = 2");
    let blocked = web.write("PATCH", "/users/2", &[("if-match", "*")], r#"{"username":"late"}"#);
    assert_eq!(blocked.status, 503, "{}", blocked.body);
    assert!(detail(&blocked).ends_with("; nothing was changed"), "{}", blocked.body);
    other.execute("ROLLBACK");
    eventually("its session has ended", || {
        web.metric("db_client_connections{db_client_connection_state=\"used\"}") == 0
    });
    assert!(web.get("/users/2").body.contains("guest"));
}

fn a_token_is_made() {
    let made = [(); 2].map(|()| {
        let done = web(&["token", "ci-1"], &[]);
        assert_eq!(code(&done), 0, "{}", stderr(&done));
        String::from_utf8(done.stdout).unwrap()
    });
    let parts = made.each_ref().map(|text| {
        let token = text.split("Authorization: Bearer ").nth(1).unwrap().lines().next().unwrap();
        (token, text.lines().last().unwrap().trim())
    });
    for (token, pair) in parts {
        assert_eq!(token.len(), 43, "256 bits in base64url: {token}");
        assert_eq!(pair, ApiTokens::pair("ci-1", token).unwrap());
    }
    assert_ne!(parts[0], parts[1]);
    let refused = web(&["token", "c i"], &[]);
    assert_eq!(code(&refused), 1);
    assert!(stderr(&refused).contains("expected a name of 1 to 64"), "{}", stderr(&refused));
}

fn tokens_are_configured() {
    let url = ("DATABASE_URL", Engine::any().unused_url());
    let pair = ApiTokens::pair("one", "canary").unwrap();
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("tokens");
    fs::write(&file, format!("{pair}\n{}\n", ApiTokens::pair("two", "other").unwrap())).unwrap();
    let shown = web(&["check"], &[url, ("API_TOKENS_FILE", file.to_str().unwrap())]);
    assert_eq!(code(&shown), 0, "{}", stderr(&shown));
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(
        shown.contains("API_TOKENS=one:***,two:***\n") && shown.contains("API_TOKENS_REQUIRED=writes\n"),
        "{shown}"
    );
    for (environment, problem) in [
        (vec![("API_TOKENS", "canary")], "API_TOKENS: pair 1: it has no colon"),
        (vec![("API_TOKENS", "one:canary")], "API_TOKENS: pair 1: the hash is not 64 hexadecimal digits"),
        (vec![("API_TOKENS", &*pair), ("API_TOKENS_FILE", "/x")], "API_TOKENS_FILE: API_TOKENS is set as well"),
        (vec![("API_TOKENS_FILE", "/nowhere")], "API_TOKENS_FILE: cannot read /nowhere"),
        (vec![("API_TOKENS_REQUIRED", "all")], "API_TOKENS_REQUIRED: all requests need a token, and there is none"),
        (vec![("API_TOKENS_REQUIRED", "some")], "API_TOKENS_REQUIRED: expected writes or all, got \"some\""),
    ] {
        let environment: Vec<_> = [url].into_iter().chain(environment).collect();
        let refused = web(&[], &environment);
        assert_eq!(code(&refused), 78, "{environment:?}");
        assert!(stderr(&refused).contains(problem), "{}", stderr(&refused));
        assert!(!stderr(&refused).contains("canary"), "{}", stderr(&refused));
    }
}
