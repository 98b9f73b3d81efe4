//! A connection: each request has its own answer, whatever is around it, and each ends as its client can tell.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use libtest_mimic::Trial;
use socket2::SockRef;

use crate::support::engine::{Database, Engine};
use crate::support::process::{Web, code, import_csv, migrated, web_command};
use crate::support::resource::{CSV, FIRST, LISTING, NDJSON, SECOND, SECOND_JSON, listing, wide_rows};
use crate::support::{Tests, eventually, tests};

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!())
        .any(tests![
            answers_pair_with_requests_however_they_are_cut,
            nothing_is_served_behind_the_last_request,
            a_refused_body_harms_no_later_request,
            an_upgrade_is_ignored_and_connect_is_refused,
            a_host_is_valid,
            an_interim_answer_precedes_only_what_is_read,
            empty_lines_between_requests_are_no_request,
            a_steady_reader_is_served_to_the_end,
            an_incomplete_stream_of_http_1_0_is_reset,
            an_answer_that_is_not_read_is_counted,
            a_stream_has_its_line_when_it_ends,
            limits_of_time_are_independent,
            an_idle_connection_is_closed_after_keep_alive_ms
        ])
        .on(&Engine::SERVERS, tests![a_head_is_answered_as_its_get])
        .trials()
}

fn connect(web: &Web) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", web.port)).unwrap();
    stream.set_nodelay(true).unwrap();
    // Longer than any limit of these tests.
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Sends pieces, closes this side, and reads the answers.
fn converse<'a>(web: &Web, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut stream = connect(web);
    for piece in pieces {
        // The server may have closed the connection already.
        if stream.write_all(piece).is_err() {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
    let mut conversation = Vec::new();
    let ended = stream.read_to_end(&mut conversation);
    ended.unwrap_or_else(|error| panic!("{error} after {}", String::from_utf8_lossy(&conversation)));
    conversation
}

fn text(web: &Web, request: &str) -> String {
    String::from_utf8(converse(web, [request.as_bytes()])).unwrap()
}

/// A request, and what a server may do with what follows it.
struct Sample {
    bytes: String,
    is_head: bool,
    /// Whether its answer is the last of the connection.
    is_last: bool,
}

/// A request of a random kind.
fn sample(rng: &mut Rng) -> Sample {
    let path = ["/livez", LISTING, FIRST, CSV, "/no/thing", listing!("?limit=0")][rng.usize(..6)];
    let method = ["GET", "GET", "HEAD", "POST", "DELETE", "OPTIONS"][rng.usize(..6)];
    let sized = "x".repeat(rng.usize(..2000));
    // What is not "1.1 without a body", and is not the last of its connection.
    let (version, headers, body) = match rng.usize(..10) {
        0 => ("1.1", format!("Content-Length: {}\r\n", sized.len()), sized),
        1 => ("1.1", "Transfer-Encoding: chunked\r\n".to_owned(), chunks(rng) + "0\r\n\r\n"),
        2 => ("1.1", "Transfer-Encoding: chunked\r\n".to_owned(), chunks(rng) + "0\r\nX-Trailer: value\r\n\r\n"),
        3 => ("1.1", "Expect: 100-continue\r\nContent-Length: 3\r\n".to_owned(), "abc".to_owned()),
        4 => ("1.0", "Connection: keep-alive\r\n".to_owned(), String::new()),
        5 => ("1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\n".to_owned(), String::new()),
        6 => ("1.1", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n".to_owned(), String::new()),
        7 if rng.usize(..4) == 0 => {
            let last = ["Connection: close\r\n", "Content-Length: 70000\r\n", "No header\r\n"][rng.usize(..3)];
            let bytes = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{last}\r\n");
            return Sample { bytes, is_head: method == "HEAD", is_last: true };
        }
        8 => ("1.1", String::new(), "\r\n".to_owned()),
        _ => ("1.1", String::new(), String::new()),
    };
    Sample {
        bytes: format!("{method} {path} HTTP/{version}\r\nHost: x\r\n{headers}\r\n{body}"),
        is_head: method == "HEAD",
        // Such a stream ends with the connection.
        is_last: (version, path, method) == ("1.0", CSV, "GET"),
    }
}

fn chunks(rng: &mut Rng) -> String {
    let chunk = |rng: &mut Rng| {
        let length = rng.usize(1..300);
        format!("{length:x}{}\r\n{}\r\n", ["", ";name=value"][rng.usize(..2)], "y".repeat(length))
    };
    (0..rng.usize(..4)).map(|_| chunk(rng)).collect()
}

/// The answers of a conversation, as a client separates them, each without what is new every time.
fn answers(conversation: &[u8], samples: &[Sample]) -> Vec<(BTreeSet<String>, String)> {
    let conversation = String::from_utf8(conversation.to_vec()).unwrap();
    let mut rest = conversation.as_str();
    let mut answers = Vec::new();
    for sample in samples {
        while let Some(next) = rest.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n") {
            rest = next;
        }
        let (head, body) = rest.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {rest:?} of {conversation}"));
        let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        let length = match (sample.is_head, header("content-length"), header("transfer-encoding")) {
            (true, ..) => 0,
            _ if head.starts_with("HTTP/1.1 204 ") || head.starts_with("HTTP/1.0 204 ") => 0,
            (_, Some(length), _) => length.parse().unwrap(),
            (_, None, Some("chunked")) => body.find("\r\n0\r\n\r\n").unwrap() + 7,
            _ => body.len(),
        };
        let is_constant =
            |line: &&str| !["date:", "x-request-id:", "traceparent:"].iter().any(|it| line.starts_with(it));
        let mut lines: BTreeSet<_> = head.lines().filter(is_constant).map(str::to_owned).collect();
        // Of bytes that are no request, the server assumes the version of the request before.
        if lines.remove("HTTP/1.0 400 Bad Request") {
            lines.extend(["HTTP/1.1 400 Bad Request", "connection: close"].map(str::to_owned));
        }
        answers.push((lines, body[..length].split("\"instance\"").next().unwrap().to_owned()));
        rest = &body[length..];
        if sample.is_last {
            break;
        }
    }
    assert_eq!(rest, "", "nothing is left over of {conversation}");
    answers
}

/// Random requests on one connection, sent at once, byte by byte, or cut anywhere, have the answers that each has alone.
fn answers_pair_with_requests_however_they_are_cut(database: &Database) {
    let web = Web::seeded(database);
    for seed in 0..150 {
        let mut rng = Rng::with_seed(seed);
        let samples: Vec<_> = (0..rng.usize(1..8)).map(|_| sample(&mut rng)).collect();
        let alone = |sample: &Sample| {
            answers(&converse(&web, [sample.bytes.as_bytes()]), std::slice::from_ref(sample)).remove(0)
        };
        let last = samples.iter().position(|sample| sample.is_last).map_or(samples.len(), |last| last + 1);
        let expected: Vec<_> = samples[..last].iter().map(alone).collect();
        let all: String = samples.iter().map(|sample| sample.bytes.as_str()).collect();
        let all = all.as_bytes();
        let cuts: Vec<&[u8]> = match seed % 3 {
            0 => vec![all],
            1 => all.chunks(1).collect(),
            _ => all.chunk_by(|_, _| rng.usize(..40) > 0).collect(),
        };
        assert_eq!(answers(&converse(&web, cuts), &samples), expected, "seed {seed}: {}", String::from_utf8_lossy(all));
    }
}

/// RFC 9112, section 9.6.
fn nothing_is_served_behind_the_last_request(database: &Database) {
    let web = Web::seeded(database);
    let chunked = "Transfer-Encoding: chunked\r\n";
    for last in [
        format!("GET {LISTING} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{chunked}\r\n0\r\n\r\n"),
        format!("POST {LISTING} HTTP/1.1\r\nHost: x\r\n{chunked}\r\n11000\r\n{}\r\n0\r\n\r\n", "x".repeat(0x11000)),
        format!("POST {LISTING} HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n").to_owned(),
        format!("POST {LISTING} HTTP/1.1\r\nHost: x\r\n{chunked}\r\nzz\r\n"),
        format!("POST {LISTING} HTTP/1.1\r\nHost: x\r\n{chunked}\r\n3\r\nabcd\r\n"),
    ] {
        let conversation = text(&web, &(last.clone() + "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert!(conversation.contains("connection: close\r\n"), "{last}: {conversation}");
        assert!(!conversation.contains("alive"), "{last}: {conversation}");
    }
}

/// A body that is not read either ends the connection or is skipped.
fn a_refused_body_harms_no_later_request(database: &Database) {
    migrated(database, &["up"]);
    assert_eq!(code(&import_csv(database, &wide_rows())), 0);
    let web = Web::start(database, &[("MAX_IN_FLIGHT", "1")]);
    let body = "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let next = "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let mut reader = None;
    for (path, status) in [(format!("/{}", "x".repeat(9000)), 414), (LISTING.to_owned(), 503)] {
        // The body follows at once, or later.
        for pause in [0, 50] {
            let mut stream = connect(&web);
            write!(stream, "POST {path} HTTP/1.1\r\nHost: x\r\n").unwrap();
            thread::sleep(Duration::from_millis(pause));
            let _ = stream.write_all(body.as_bytes());
            let _ = stream.write_all(next.as_bytes());
            let mut conversation = String::new();
            stream.read_to_string(&mut conversation).unwrap();
            assert!(conversation.starts_with(&format!("HTTP/1.1 {status} ")), "{conversation}");
            let is_served = conversation.contains("alive");
            assert!(is_served || conversation.contains("connection: close"), "{conversation}");
        }
        // The process is full.
        reader.get_or_insert_with(|| web.slow_reader(CSV));
    }
    drop(reader);
}

/// RFC 9110, section 7.8.
fn an_upgrade_is_ignored_and_connect_is_refused(database: &Database) {
    let web = Web::seeded(database);
    let last = format!("GET {SECOND} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    for upgrade in ["websocket", "h2c", "TLS/1.0"] {
        let upgraded = format!("GET /livez HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n\r\n");
        let mut stream = connect(&web);
        stream.write_all((upgraded + &last).as_bytes()).unwrap();
        let mut conversation = String::new();
        stream.read_to_string(&mut conversation).unwrap();
        assert!(conversation.starts_with("HTTP/1.1 200 OK\r\n") && conversation.contains("alive"), "{conversation}");
        assert!(conversation.contains(SECOND_JSON) && !conversation.contains("pgrade"), "{conversation}");
    }
    let mut stream = connect(&web);
    stream.write_all(b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n").unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 405");
    drop(stream);
    let options = text(&web, "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(options.starts_with("HTTP/1.1 204 ") && options.contains("allow: GET, HEAD, POST, "), "{options}");
    eventually("nothing is in flight", || web.get("/metrics").body.contains("http_server_active_requests 0\n"));
}

/// RFC 9112, section 3.2.
fn a_host_is_valid(database: &Database) {
    let web = Web::start(database, &[]);
    for host in ["x", "x:80", "[::1]:80", "a-b.example", "127.0.0.1", "a_b"] {
        let answer = text(&web, &format!("GET /livez HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 200 "), "{host}: {answer}");
    }
    for hosts in ["Host: a/b\r\n", "Host: u@a\r\n", "Host:\r\n", "Host: a b\r\n", "Host: a\r\nHost: a\r\n", ""] {
        let answer = text(&web, &format!("GET /livez HTTP/1.1\r\n{hosts}\r\n"));
        assert!(
            answer.starts_with("HTTP/1.1 400 ") && answer.contains("Host: expected exactly one"),
            "{hosts}: {answer}"
        );
    }
    let answer = text(&web, "GET /livez HTTP/1.0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
    assert_eq!(web.requests(13).len(), 13, "each has its line");
}

fn an_interim_answer_precedes_only_what_is_read(database: &Database) {
    let web = Web::start(database, &[]);
    let expecting = |path: &str, length: usize| {
        let mut stream = connect(&web);
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
        )
        .unwrap();
        let mut beginning = [0; 12];
        stream.read_exact(&mut beginning).unwrap();
        (stream, String::from_utf8(beginning.to_vec()).unwrap())
    };
    let (mut stream, beginning) = expecting("/livez", 3);
    assert_eq!(beginning, "HTTP/1.1 100");
    stream.write_all(b"abc").unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("HTTP/1.1 405 "), "{rest}");
    for (path, length, status) in [("/livez", 70_000, "413"), (&format!("/{}", "x".repeat(9000)), 3, "414")] {
        assert_eq!(expecting(path, length).1, format!("HTTP/1.1 {status}"));
    }
}

/// RFC 9112, section 2.2.
fn empty_lines_between_requests_are_no_request(database: &Database) {
    let web = Web::start(database, &[("REQUEST_TIMEOUT_MS", "300"), ("KEEP_ALIVE_MS", "600000")]);
    let mut stream = connect(&web);
    let request = "POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc\r\n";
    for _ in 0..3 {
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = [0; 1000];
        let length = stream.read(&mut answer).unwrap();
        assert!(answer[..length].starts_with(b"HTTP/1.1 405 "), "{}", String::from_utf8_lossy(&answer));
        // Longer than a head may take.
        thread::sleep(Duration::from_millis(600));
    }
    let mut web = web;
    web.signal("TERM");
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    assert_eq!(web.exit_code(), 0);
}

/// Its progress is visible within the limit, although the kernel could buffer the whole stream.
fn a_steady_reader_is_served_to_the_end(database: &Database) {
    migrated(database, &["up"]);
    assert_eq!(code(&import_csv(database, &wide_rows())), 0);
    let web = Web::start(database, &[("REQUEST_TIMEOUT_MS", "3000")]);
    let mut stream = connect(&web);
    SockRef::from(&stream).set_recv_buffer_size(32 * 1024).unwrap();
    stream.write_all(format!("GET {NDJSON} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut received = Vec::new();
    let mut part = vec![0; 10_000];
    for _ in 0..80 {
        let length = stream.read(&mut part).unwrap();
        received.extend_from_slice(&part[..length]);
        thread::sleep(Duration::from_millis(100));
    }
    stream.read_to_end(&mut received).unwrap();
    assert!(received.ends_with(b"\r\n0\r\n\r\n"), "it is complete");
}

/// An end in order would look like the end of the stream.
fn an_incomplete_stream_of_http_1_0_is_reset(database: &Database) {
    migrated(database, &["up"]);
    assert_eq!(code(&import_csv(database, &wide_rows())), 0);
    let web = Web::start(database, &[("REQUEST_TIMEOUT_MS", "400")]);
    let mut stream = connect(&web);
    SockRef::from(&stream).set_recv_buffer_size(32 * 1024).unwrap();
    stream.write_all(format!("GET {CSV} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
    eventually("it is cut off", || web.get("/metrics").body.contains("http_server_responses_aborted_total 1\n"));
    let error = stream.read_to_end(&mut Vec::new()).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let line = web.events().into_iter().find(|event| event["http.route"] == CSV).unwrap();
    assert_eq!(line["cause"], "REQUEST_TIMEOUT_MS: the client did not read the response");
}

/// A client asks for pages and reads none of them, and the process stops.
fn an_answer_that_is_not_read_is_counted(database: &Database) {
    const PAGES: usize = 400;
    migrated(database, &["up"]);
    assert_eq!(code(&import_csv(database, &wide_rows())), 0);
    let mut web = Web::start(database, &[("SHUTDOWN_TIMEOUT_MS", "500"), ("REQUEST_TIMEOUT_MS", "60000")]);
    let mut stream = connect(&web);
    SockRef::from(&stream).set_recv_buffer_size(32 * 1024).unwrap();
    stream.write_all(format!("GET {LISTING}?limit=100 HTTP/1.1\r\nHost: x\r\n\r\n").repeat(PAGES).as_bytes()).unwrap();
    let lines = || web.events().into_iter().filter(|event| event["message"] == "request").collect::<Vec<_>>();
    let mut count = 0;
    eventually("the connection is blocked", || {
        thread::sleep(Duration::from_millis(200));
        let before = count;
        count = lines().len();
        count > 0 && count == before
    });
    assert!(count < PAGES, "{count} pages are buffered");
    web.signal("TERM");
    assert_eq!(web.exit_code(), 1);
    let events = web.events();
    let aborted = events.iter().find(|event| event["level"] == "ERROR").unwrap()["aborted"].as_u64().unwrap();
    let lines = events.iter().filter(|event| event["cause"] == "SHUTDOWN_TIMEOUT_MS: aborted").count() as u64;
    assert!(aborted >= 1 && lines == aborted, "{aborted} aborted, {lines} lines");
    drop(stream);
}

/// The line has the length and the duration of the whole stream.
fn a_stream_has_its_line_when_it_ends(database: &Database) {
    migrated(database, &["up"]);
    assert_eq!(code(&import_csv(database, &wide_rows())), 0);
    let web = Web::start(database, &[]);
    let line = |route: &str| web.events().into_iter().find(|event| event["http.route"] == route);
    let mut reader = web.slow_reader(CSV);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(line(CSV), None, "the stream has not ended");
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    eventually("it has its line", || line(CSV).is_some());
    let line_of_csv = line(CSV).unwrap();
    assert!(line_of_csv["duration_s"].as_f64().unwrap() >= 0.3, "{line_of_csv}");
    assert_eq!((&line_of_csv["http.response.status_code"], line_of_csv.get("cause")), (&200.into(), None));
    let bytes = line_of_csv["http.response.body.size"].as_u64().unwrap();
    // The chunks have lengths around them.
    assert!((rest.len() as u64 - 20_000..rest.len() as u64).contains(&bytes), "{bytes} of {}", rest.len());

    let reader = web.slow_reader(NDJSON);
    drop(reader);
    eventually("the client has gone", || line(NDJSON).is_some());
    let broken = line(NDJSON).unwrap();
    assert_eq!(
        (&broken["http.response.status_code"], &broken["cause"]),
        (&200.into(), &"the client closed the connection".into())
    );
    assert!(web.get("/metrics").body.contains("http_server_responses_aborted_total 1\n"));
}

/// An unused connection ends after its own limit, whatever the limit of a request is.
fn limits_of_time_are_independent(database: &Database) {
    let web = Web::start(database, &[("KEEP_ALIVE_MS", "300"), ("REQUEST_TIMEOUT_MS", "600000")]);
    for request in ["", "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut stream = connect(&web);
        stream.write_all(request.as_bytes()).unwrap();
        let mut conversation = String::new();
        stream.read_to_string(&mut conversation).unwrap();
        assert_eq!(conversation.contains("alive"), !request.is_empty());
    }
    // After a stream on a connection that stays open, the process does not wait for the limit of unused connections.
    migrated(database, &["up"]);
    assert_eq!(code(&import_csv(database, &wide_rows())), 0);
    let mut web = Web::start(database, &[("KEEP_ALIVE_MS", "600000"), ("SHUTDOWN_TIMEOUT_MS", "600000")]);
    let mut stream = connect(&web);
    SockRef::from(&stream).set_recv_buffer_size(32 * 1024).unwrap();
    stream.write_all(format!("GET {NDJSON} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
    let mut part = vec![0; 1000];
    stream.read_exact(&mut part).unwrap();
    web.signal("TERM");
    eventually("it refuses new connections", || !web.is_accepting());
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.ends_with(b"\r\n0\r\n\r\n"), "it is complete");
    assert_eq!(web.exit_code(), 0);
}

/// The status of HEAD is that of GET, also without a database; and a condition is checked for both.
fn a_head_is_answered_as_its_get(database: &Database) {
    let web = Web::seeded(database);
    for method in ["GET", "HEAD"] {
        for (condition, status) in [("\"other\"", 412), ("W/\"other\"", 412), ("*", 200)] {
            assert_eq!(web.send(method, FIRST, &[("If-Match", condition)]).status, status, "{method} {condition}");
        }
    }
    let tag = web.get(LISTING).header("etag").unwrap().to_owned();
    assert_eq!(web.get_with(LISTING, &[("If-Match", &tag)]).status, 200);
    let away = database.url_at(1);
    let web = Web::launch(web_command(&[("DATABASE_URL", &away), ("HOST", "127.0.0.1"), ("PORT", "0")]));
    for path in [LISTING, CSV, NDJSON, FIRST, "/", "/readyz"] {
        for method in ["GET", "HEAD"] {
            assert_eq!(web.send(method, path, &[]).status, 503, "{method} {path}");
        }
    }
}

fn an_idle_connection_is_closed_after_keep_alive_ms(database: &Database) {
    migrated(database, &["up"]);
    let web = Web::start(database, &[("KEEP_ALIVE_MS", "700"), ("REQUEST_TIMEOUT_MS", "60000")]);
    for requests in 0..2 {
        let mut stream = TcpStream::connect(("127.0.0.1", web.port)).unwrap();
        for _ in 0..requests {
            stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            let mut answer = [0; 15];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200 OK");
        }
        let unused = Instant::now();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        // The connection ends long before the request time limit.
        stream.read_to_end(&mut Vec::new()).unwrap();
        assert!(unused.elapsed() >= Duration::from_millis(600), "{:?}", unused.elapsed());
    }
}
