//! What a client may cost: bytes that are no request, requests that never come to their end, and more
//! of them than there is room for.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::Value;

use crate::support::engine::{Database, Engine};
use crate::support::process::{Web, code, import_csv, migrated};
use crate::support::resource::{CSV, FIRST, LISTING, NDJSON, SECOND, listing, wide_rows};
use crate::support::{Tests, eventually, tests};

/// A request that is answered with 200, and leaves the connection open for another.
const LIVEZ: &str = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
/// One that is answered with 404, and is the last of its connection.
const LAST: &str = "GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
/// A limit that no honest client of these tests comes near.
const SHORT: &[(&str, &str)] = &[("REQUEST_TIMEOUT_MS", "400")];

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!())
        .any(tests![
            bytes_that_are_no_request_are_refused,
            a_head_that_does_not_end_is_cut_off,
            a_body_that_does_not_end_is_cut_off,
            a_body_may_be_so_long,
            requests_in_a_row_are_answered_in_order,
            a_client_that_stops_reading_is_cut_off,
            a_full_process_says_so_and_stays_alive
        ])
        .on(&Engine::SERVERS, tests![a_request_ends_in_time])
        .trials()
}

/// Sends pieces with pauses between them, until the server answers by closing; gives the answer.
fn talk(web: &Web, pieces: &[&str], pause: Duration) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", web.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    for piece in pieces {
        // The server may have closed already, which the answer tells.
        let _ = stream.write_all(piece.as_bytes());
        thread::sleep(pause);
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the server ends the connection, and in order");
    String::from_utf8(answer).unwrap()
}

/// Asserts that the last answer of a conversation is a whole problem of this status, and gives it.
fn assert_problem(conversation: &str, status: u16) -> Value {
    let start = conversation.rfind(&format!("HTTP/1.1 {status} "));
    let start = start.unwrap_or_else(|| panic!("no {status}: {conversation}"));
    let (head, body) = conversation[start..].split_once("\r\n\r\n").unwrap();
    let header = |name: &str| {
        let line =
            head.lines().find_map(|line| line.to_lowercase().strip_prefix(&format!("{name}: ")).map(str::to_owned));
        line.unwrap_or_else(|| panic!("no {name}: {head}"))
    };
    assert_eq!(header("content-type"), "application/problem+json");
    assert_eq!(header("content-length"), body.len().to_string());
    assert_eq!(header("connection"), "close");
    assert_eq!(header("x-content-type-options"), "nosniff");
    assert!(head.contains("date: ") && head.contains("content-security-policy: "), "{head}");
    let problem: Value = serde_json::from_str(body).unwrap();
    assert_eq!(problem["status"], status);
    assert_eq!(problem["instance"], header("x-request-id"));
    problem
}

/// Asserts that the last answer of a conversation is of this status, without a body, and the last of its connection.
fn assert_bare(conversation: &str, status: u16) {
    let start = conversation.rfind("HTTP/1.1 ").unwrap_or_else(|| panic!("no answer: {conversation}"));
    let (head, body) = conversation[start..].split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {head}");
    for header in ["connection: close", "content-length: 0"] {
        assert!(head.lines().any(|line| line == header), "{header}: {head}");
    }
    assert_eq!(body, "");
}

fn bytes_that_are_no_request_are_refused(database: &Database) {
    let web = Web::start(database, &[]);
    let long = "x".repeat(200_000);
    let many = |count: usize| format!("GET /livez HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
    let cases = [
        ("GET / HTTP/1.1\r\nHost x\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\n123".to_owned(), 400),
        ("\u{1}\u{2}\u{3}\r\n\r\n".to_owned(), 400),
        (format!("GET / HTTP/1.1\r\nHost: x\r\nX-Long: {long}"), 431),
        (format!("GET / HTTP/1.1\r\nHost: x\r\n{}: y\r\n\r\n", &long[..65_536]), 431),
        (many(101), 431),
        (format!("GET /{long}"), 431),
        (format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", &long[..65_536]), 414),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 400),
    ];
    let mut count = 0;
    for (bytes, status) in &cases {
        // The first request of a connection, a later one, and one that came with the one before it.
        let pipelined = format!("{LIVEZ}{bytes}");
        for pieces in [vec![bytes.as_str()], vec![LIVEZ, bytes], vec![&pipelined]] {
            let conversation = talk(&web, &pieces, Duration::from_millis(20));
            if !bytes.starts_with("PRI") {
                assert_bare(&conversation, *status);
            }
            let answered_before = !pieces[0].starts_with(bytes.as_str());
            assert_eq!(conversation.contains("alive"), answered_before, "{conversation}");
            count += 1 + usize::from(answered_before);
            let lines = web.requests(count);
            let line = lines.last().unwrap();
            assert_eq!(line["http.response.status_code"], *status, "{line}");
            assert_eq!(line["level"], "INFO", "a client's mistake is no error of ours");
        }
    }
    let many = many(100).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").replacen("X: y\r\n", "", 1);
    assert!(talk(&web, &[&many], Duration::ZERO).contains("alive"));
    // The chunks count, and the connection ends (RFC 9112, section 6.3).
    let both = "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let conversation = talk(&web, &[&format!("GET /livez HTTP/1.1\r\nHost: x\r\n{both}{LIVEZ}")], Duration::ZERO);
    assert!(conversation.contains("connection: close") && conversation.matches("alive").count() == 1, "{conversation}");
    let too_long = format!("GET /{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", &long[..9000]);
    assert_problem(&talk(&web, &[&too_long], Duration::ZERO), 414);
    assert!(!web.log().contains("actix") && !web.log().contains("hyper"), "{}", web.log());
}

fn a_head_that_does_not_end_is_cut_off(database: &Database) {
    let web = Web::start(database, SHORT);
    let drip = ["GET /livez HTTP/1.1\r\n"].into_iter().chain(std::iter::repeat_n("X: y\r\n", 12)).collect::<Vec<_>>();
    let pause = Duration::from_millis(100);
    let with_next = format!("{LIVEZ}GET / HT");
    for pieces in
        [vec!["GET / HT"], vec![LIVEZ, "GET / HT"], vec![&with_next], drip.clone(), [vec![LIVEZ], drip].concat()]
    {
        let conversation = talk(&web, &pieces, pause);
        assert_bare(&conversation, 408);
        assert_eq!(conversation.contains("alive"), pieces[0].starts_with(LIVEZ));
    }
    // A connection that is only not used is not one of them.
    let conversation = talk(&web, &["", LIVEZ, LIVEZ, LAST], Duration::from_secs(1));
    assert_eq!(conversation.matches("alive").count(), 2);
    assert_problem(&conversation, 404);
}

fn a_body_that_does_not_end_is_cut_off(database: &Database) {
    let web = Web::start(database, SHORT);
    for head in ["Content-Length: 10\r\n\r\n123", "Transfer-Encoding: chunked\r\n\r\n5\r\n123"] {
        let request = format!("GET /livez HTTP/1.1\r\nHost: x\r\n{head}");
        for pieces in [vec![request.as_str()], vec![LIVEZ, &request], vec![&request, "4", "5"]] {
            let started = Instant::now();
            assert_problem(&talk(&web, &pieces, Duration::from_millis(50)), 408);
            assert!(started.elapsed() >= Duration::from_millis(400));
        }
    }
    assert!(web.get("/metrics").body.contains("http_server_active_requests 0"));
}

fn a_body_may_be_so_long(database: &Database) {
    let web = Web::start(database, &[]);
    let body = |length: usize| "x".repeat(length);
    // The next request of the connection begins where the body ends.
    let polite = format!("GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 65536\r\n\r\n{}", body(65536));
    let chunked = format!(
        "GET /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n10000\r\n{}\r\n0\r\n\r\n",
        body(65536)
    );
    for first in [polite, chunked] {
        let conversation = talk(&web, &[&first, LAST], Duration::ZERO);
        assert_eq!(conversation.matches("alive").count(), 1);
        assert_problem(&conversation, 404);
    }
    for (announced, sent) in [
        ("Content-Length: 65537", body(100)),
        ("Content-Length: 65537", body(65537)),
        ("Transfer-Encoding: chunked", format!("10001\r\n{}\r\n0\r\n\r\n", body(65537))),
    ] {
        let request = format!("GET /livez HTTP/1.1\r\nHost: x\r\n{announced}\r\n\r\n{sent}");
        assert_problem(&talk(&web, &[&request], Duration::ZERO), 413);
    }
}

/// The answers of a conversation, as a client separates them: lines of the head, and the body.
fn answers(mut conversation: &str, methods: &[&str]) -> Vec<(BTreeSet<String>, String)> {
    let mut answers = Vec::new();
    for method in methods {
        let (head, rest) = conversation.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {conversation}"));
        let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        let length = match (*method, header("content-length"), header("transfer-encoding")) {
            ("HEAD", ..) => 0,
            (_, Some(length), _) => length.parse().unwrap(),
            (_, None, Some("chunked")) => rest.find("\r\n0\r\n\r\n").unwrap() + 7,
            _ => panic!("an answer of no length: {head}"),
        };
        // What is new each time.
        let fleeting =
            |line: &&str| !["date:", "x-request-id:", "traceparent:"].iter().any(|name| line.starts_with(name));
        let body = rest[..length].split("\"instance\"").next().unwrap();
        answers.push((head.lines().filter(fleeting).map(str::to_owned).collect(), body.to_owned()));
        conversation = &rest[length..];
    }
    assert_eq!(conversation, "", "nothing is left over");
    answers
}

/// Sent at once, by a client that waits for no answer: each has its own, as if it had been sent alone.
fn requests_in_a_row_are_answered_in_order(database: &Database) {
    let web = Web::seeded(database);
    let request = |method: &str, path: &str, rest: &str| format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{rest}\r\n");
    let ask = |requests: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", web.port)).unwrap();
        stream.write_all(requests.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut conversation = String::new();
        stream.read_to_string(&mut conversation).unwrap();
        conversation
    };
    let mut row = vec![
        request("GET", LISTING, ""),
        request("HEAD", LISTING, ""),
        request("GET", CSV, ""),
        request("HEAD", CSV, ""),
        request("GET", FIRST, "Content-Length: 5\r\n") + "12345",
        request("GET", FIRST, "Connection: keep-alive\r\n").replace("HTTP/1.1", "HTTP/1.0"),
        request("POST", SECOND, "Content-Length: 3\r\n") + "123",
        request("GET", SECOND, "").replace('\r', ""),
        request("GET", "/no/thing", ""),
    ];
    let method = |request: &String| if request.starts_with("HEAD") { "HEAD" } else { "GET" };
    for _ in 0..row.len() {
        row.rotate_left(1);
        let alone: Vec<_> = row.iter().flat_map(|request| answers(&ask(request), &[method(request)])).collect();
        let together = ask(&row.concat());
        assert_eq!(answers(&together, &row.iter().map(method).collect::<Vec<_>>()), alone);
    }
    // Behind the last request of a connection nothing is answered.
    let conversation = ask(&(request("GET", "/livez", "Connection: close\r\n") + LIVEZ));
    assert_eq!(conversation.matches("alive").count(), 1, "{conversation}");
    // A chunked body ends where it says.
    let chunked = request("GET", "/livez", "Transfer-Encoding: chunked\r\n") + "3\r\nabc\r\n0\r\n\r\n";
    assert_eq!(ask(&(chunked + LIVEZ)).matches("alive").count(), 2);
}

fn a_client_that_stops_reading_is_cut_off(database: &Database) {
    migrated(database, &["up"]);
    assert_eq!(code(&import_csv(database, &wide_rows())), 0);
    let web = Web::start(database, SHORT);
    let mut reader = web.slow_reader(NDJSON);
    let at_work = |count: usize| web.get("/metrics").body.contains(&format!("http_server_active_requests {count}\n"));
    assert!(at_work(1), "a stream is at work");
    eventually("it is cut off", || at_work(0));
    let mut rest = Vec::new();
    let ending = reader.read_to_end(&mut rest);
    assert!(ending.is_err() || !rest.ends_with(b"0\r\n\r\n"), "it is seen to be broken");
}

/// Whatever the limits of queries say.
fn a_request_ends_in_time(database: &Database) {
    drop(Web::seeded(database));
    let web = Web::start(database, &[SHORT[0], ("DATABASE_QUERY_TIMEOUT_MS", "20000")]);
    let lock = database.hold_rows();
    let answer = web.get(LISTING);
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    let line = web.requests(1).remove(0);
    assert_eq!(line["cause"], "REQUEST_TIMEOUT_MS: no response within 400 ms");
    assert_eq!(line["http.route"], LISTING);
    drop(lock);
    eventually("it serves again", || web.get(LISTING).status == 200);
}

fn a_full_process_says_so_and_stays_alive(database: &Database) {
    migrated(database, &["up"]);
    assert_eq!(code(&import_csv(database, &wide_rows())), 0);
    let web = Web::start(database, &[("MAX_IN_FLIGHT", "2")]);
    let readers = [web.slow_reader(CSV), web.slow_reader(NDJSON)];
    for _ in 0..5 {
        for path in [LISTING, "/", "/nothing"] {
            let answer = web.get(path);
            assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{path}");
        }
        for path in ["/livez", "/readyz", "/metrics"] {
            assert_eq!(web.get(path).status, 200, "{path}");
        }
    }
    assert!(web.get("/metrics").body.contains("http_server_active_requests 2\n"));
    assert!(web.log().contains("MAX_IN_FLIGHT: the limit of concurrent requests, 2, is reached"), "{}", web.log());
    for reader in readers {
        reader.shutdown(Shutdown::Both).unwrap();
    }
    eventually("there is room again", || web.get(listing!("?limit=1")).status == 200);
}
