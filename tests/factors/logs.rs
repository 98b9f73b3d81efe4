//! XI. Logs: a stream of events on standard output, one a line, in no file and with no secret; and what
//! else tells how a process fares, metrics and traces.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use libtest_mimic::Trial;
use serde_json::Value;

use crate::support::engine::{Database, Family};
use crate::support::process::{Web, agent, migrated, request, signal, web_command};
use crate::support::resource::{
    FIRST, LISTING, RELATED, RELATED_ROUTE, RELATED_TABLE, ROW_ROUTE, SECOND, insert, listing, related,
};
use crate::support::{Tests, eventually, tests};

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!())
        .any(tests![
            a_request_is_one_line_of_json,
            a_request_id_is_taken_or_made,
            text_is_for_people,
            an_error_of_the_client_can_be_diagnosed,
            the_address_of_a_client_behind_a_proxy_is_logged,
            the_filter_is_the_environments,
            junk_stays_one_line,
            a_stalled_reader_of_the_log_blocks_nothing,
            a_trace_is_continued_or_begun,
            a_collector_that_is_away_harms_nobody,
            requests_keep_their_thread_busy
        ])
        .each(tests![
            nothing_private_is_logged,
            a_canary_is_nowhere,
            traces_go_to_the_collector,
            metrics_count_by_route
        ])
        .trials()
}

fn a_request_is_one_line_of_json(database: &Database) {
    let web = Web::seeded(database);
    for (count, (path, route, status, level)) in (1..).zip([
        (listing!("?limit=1"), LISTING, 200, "INFO"),
        (FIRST, ROW_ROUTE, 200, "INFO"),
        (related!(7), RELATED_ROUTE, 404, "INFO"),
        ("/no/such/thing", "none", 404, "INFO"),
    ]) {
        let answer = web.get(path);
        let lines = web.requests(count);
        let line = lines.last().unwrap();
        assert_eq!(line["request_id"], answer.header("x-request-id").unwrap());
        let trace = format!("00-{}-{}-00", line["trace_id"].as_str().unwrap(), line["span_id"].as_str().unwrap());
        assert_eq!(answer.header("traceparent"), Some(&*trace));
        assert_eq!(line["http.request.method"], "GET");
        assert_eq!(line["http.route"], route);
        assert_eq!(line["http.response.status_code"], status);
        assert_eq!(line["level"], level);
        assert!((0.0..60.0).contains(&line["duration_s"].as_f64().unwrap()), "{line}");
        assert_eq!(line["http.response.body.size"], answer.body.len());
        assert_eq!(line.get("client.address"), None, "no proxy is configured");
        assert!(line["time"].as_str().unwrap().ends_with('Z'));
        assert!(line["target"].as_str().unwrap().starts_with("roster"));
    }
}

/// The pipe of the log is full, which costs lines. They are counted.
fn a_stalled_reader_of_the_log_blocks_nothing(database: &Database) {
    let environment = [("DATABASE_URL", database.url.as_str()), ("HOST", "127.0.0.1"), ("PORT", "0")];
    let mut child = web_command(&environment).stdout(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("serving at ") {
        line.clear();
        log.read_line(&mut line).unwrap();
    }
    let event: Value = serde_json::from_str(&line).unwrap();
    let address = event["address"].as_str().unwrap();
    let agent = agent();
    let get = |path: &str| {
        let url = format!("http://{address}{path}").parse().unwrap();
        let answer = request(&agent, "GET", url, &[]);
        assert_eq!(answer.status, 200);
        answer.body
    };
    let dropped = || {
        let metrics = get("/metrics");
        let line = metrics.lines().find(|line| line.starts_with("log_lines_dropped_total ")).unwrap();
        line.split(' ').next_back().unwrap().parse::<u64>().unwrap()
    };
    for round in 0..2 {
        let before = dropped();
        eventually("the pipe is full", || {
            get("/livez");
            dropped() > before + 100
        });
        if round == 0 {
            // The reader continues.
            let mut events = Vec::new();
            while !line.contains("log lines were dropped") {
                line.clear();
                if log.buffer().is_empty() {
                    get("/livez");
                }
                log.read_line(&mut line).unwrap();
                events.push(serde_json::from_str::<Value>(&line).expect("no line is torn"));
            }
            assert!(events.pop().unwrap()["dropped"].as_u64().unwrap() > 100);
        }
    }
    signal(&child, "TERM");
    eventually("it stops", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

fn a_request_id_is_taken_or_made(database: &Database) {
    let web = Web::start(database, &[]);
    let longest = "a".repeat(128);
    let taken = [
        "A.b_c-9",
        // Ids of Heroku, Zipkin, Google and AWS, base64, and the other accepted characters.
        "01234567-89ab-cdef-0123-456789abcdef#1",
        "463ac35c9f6413ad:a2fb4a1d1a96d312",
        "105445aa7843bc8bf206b12000100000/1;o=1",
        "Root=1-67891233-abcdef012345678912345678",
        "dGVzdA+/==",
        "!#$%&()*+,-./:;<=>?@[]^_`{|}~",
        longest.as_str(),
    ];
    for (count, id) in (1..).zip(taken) {
        let answer = web.get_with("/nothing", &[("x-request-id", id)]);
        assert_eq!((answer.header("x-request-id"), &answer.json()["instance"]), (Some(id), &id.into()));
        assert_eq!(web.requests(count).last().unwrap()["request_id"], id);
    }
    let too_long = "a".repeat(129);
    for id in ["", "a b", "a\tb", "a\"b", "a'b", "a\\b", "caf\u{e9}", too_long.as_str()] {
        let made = web.get_with("/livez", &[("x-request-id", id)]);
        let made = made.header("x-request-id").unwrap();
        assert!(made.len() == 32 && made.bytes().all(|b| b.is_ascii_hexdigit()), "{id}: {made}");
    }
    let page = web.get_with("/nothing", &[("x-request-id", "<b>&"), ("accept", "text/html")]);
    assert!(page.body.contains("<code>&#60;b&#62;&#38;</code>"), "{}", page.body);
}

fn text_is_for_people(database: &Database) {
    let web = Web::start(database, &[("LOG_FORMAT", "text")]);
    web.get("/livez");
    let find = || web.log().lines().find(|line| line.contains("http.route=/livez")).map(str::to_owned);
    eventually("the request has its line", || find().is_some());
    let line = find().unwrap();
    // Such as 06:43:57.123Z.
    let (time, rest) = line.split_at(13);
    assert!(time.ends_with('Z') && time.split([':', '.']).count() == 4, "{line}");
    let start = " INFO  request http.request.method=GET http.route=/livez http.response.status_code=200 duration_s=0.0";
    assert!(rest.starts_with(start) && !line.contains('\u{1b}'), "{line}");
    // Text in which a value could end is in quotation marks.
    web.get("/%0A\u{1b}[31m=");
    web.get("/a/b");
    let log = || web.log();
    eventually("they have their lines", || log().matches("http.route=none").count() == 2);
    assert!(log().contains(" url.path=/*** ") && log().contains(" url.path=/a/b "), "{}", log());
    assert!(log().contains(" cause=\"there is nothing here\" "), "{}", log());
}

/// The log has the reason of an error of the client, without what the client sent.
fn an_error_of_the_client_can_be_diagnosed(database: &Database) {
    migrated(database, &["up"]);
    migrated(database, &["seed"]);
    let web = Web::writable(database, &[]);
    let long = format!("/{}", "path/".repeat(40));
    let cut = format!("{}…", &long[..100]);
    let token = format!("/{}", "canary".repeat(4));
    let read = [
        (listing!("?limit=canary"), "limit: expected an integer from 1 to 1000", None),
        (listing!("?canary=1"), "unknown parameter; this resource supports", None),
        (listing!("?after=canary"), "after: expected a cursor from the Link of this listing", None),
        (listing!("/canary"), "id: expected an integer from 1 to", None),
        (listing!("/99"), "there is no user with this id", None),
        ("/nothing/here?canary", "there is nothing here", Some("/nothing/here")),
        ("/canary@example.com/x", "there is nothing here", Some("/***/x")),
        ("/canary%40example.com", "there is nothing here", Some("/***")),
        ("/canary%2540example.com/", "there is nothing here", Some("/***/")),
        ("/users&after=canary", "there is nothing here", Some("/***")),
        ("/canary-1/CANARY/x_y.z", "there is nothing here", Some("/***/***/x_y.z")),
        (&*token, "there is nothing here", Some("/***")),
        (&*long, "there is nothing here", Some(&*cut)),
    ];
    let mut count = 0;
    for (path, cause, url_path) in read {
        assert!(web.get(path).status >= 400);
        count += 1;
        let line = web.requests(count).pop().unwrap();
        assert!(line["cause"].as_str().unwrap().starts_with(cause), "{line}");
        assert_eq!(line.get("url.path").map(|path| path.as_str().unwrap()), url_path, "{line}");
    }
    let too_long = "canary".repeat(100);
    let key = [("idempotency-key", &*too_long)];
    for (body, headers, cause) in [
        (r#"{"canary"}"#, &[][..], "the body is not JSON: expected `:` at line 1 column"),
        (r#"{"a":1,"a":2}"#, &[], "the body is ambiguous: it has a member twice at line 1 column"),
        (r#""canary""#, &[], "the body must be a JSON object"),
        (
            r#"{"username":"","email":"canary@@example.com","canary":1,"id":1}"#,
            &[],
            "the user is not valid; a member is not a member of this object; /id is chosen by the server; /username is \
             empty; /email is not of the form name@domain: it has more than one @",
        ),
        (r#"{"username":"admin","email":"canary@example.com"}"#, &[], "username is taken; /username is taken"),
        (r#"{"username":"canary","email":"canary@example.com"}"#, &key, "Idempotency-Key: expected"),
        ("{}", &[("content-type", "canary")], "Content-Type: expected application/json"),
    ] {
        let answer = web.write("POST", LISTING, headers, body);
        assert!((400..500).contains(&answer.status), "{body}: {answer:?}");
        count += 1;
        let line = web.requests(count).pop().unwrap();
        assert!(line["cause"].as_str().unwrap().starts_with(cause), "{line}");
    }
    assert!(!web.log().contains("canary"), "{}", web.log());
}

/// A trusted proxy names the client, and no other sender does.
fn the_address_of_a_client_behind_a_proxy_is_logged(database: &Database) {
    let behind = |environment: &[(&str, &str)], header: (&str, &str)| {
        let web = Web::start(database, environment);
        web.get_with("/livez", &[header]);
        web.requests(1)[0].get("client.address").map(|address| address.as_str().unwrap().to_owned())
    };
    let [trusted, other] = [[("TRUSTED_PROXIES", "127.0.0.0/8, ::1, 10.0.0.0/8")], [("TRUSTED_PROXIES", "10.0.0.0/8")]];
    let header = ("x-forwarded-for", "198.51.100.1, 192.0.2.1, 10.1.2.3");
    assert_eq!(behind(&[], header), None);
    assert_eq!(behind(&trusted, header).as_deref(), Some("192.0.2.1"));
    assert_eq!(behind(&other, header).as_deref(), Some("127.0.0.1"), "the sender is not trusted");
    let forwarded = ("forwarded", "for=198.51.100.1, for=\"[2001:db8::1]:4711\";proto=https, for=10.1.2.3");
    assert_eq!(behind(&trusted, forwarded).as_deref(), Some("127.0.0.1"), "a proxy does not write both");
    let by_header = [trusted[0], ("CLIENT_ADDRESS_HEADER", "forwarded")];
    assert_eq!(behind(&by_header, forwarded).as_deref(), Some("2001:db8::1"));
    assert_eq!(behind(&trusted, ("x-forwarded-for", "canary@example.com")), None);

    // A sender of bytes that are no request is the client, unless it is a trusted proxy.
    for (environment, address) in [(other, Value::from("127.0.0.1")), (trusted, Value::Null)] {
        let web = Web::start(database, &[environment[0], ("REQUEST_TIMEOUT_MS", "500")]);
        for (count, bytes, status) in [
            (1, "\u{1b}\r\n\r\n", 400),
            (2, "GET /livez HT", 408),
            (3, "GET / HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
        ] {
            let mut stream = TcpStream::connect(("127.0.0.1", web.port)).unwrap();
            stream.write_all(bytes.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            let line = web.requests(count).pop().unwrap();
            assert_eq!(
                (&line["http.response.status_code"], &line["client.address"]),
                (&status.into(), &address),
                "{line}"
            );
        }
    }
}

fn the_filter_is_the_environments(database: &Database) {
    migrated(database, &["up"]);
    let mut web = Web::start(database, &[("RUST_LOG", "warn,roster::server=info")]);
    web.get(LISTING);
    web.get("/nothing");
    // A line that must be there, after those that must not.
    assert_eq!(web.get("/readyz").status, 200);
    web.signal("TERM");
    assert_eq!(web.exit_code(), 0);
    assert_eq!(web.requests(0).len(), 0);

    // A request's line has its ids even where no other target is let through.
    let web = Web::start(database, &[("RUST_LOG", "roster::server=info,roster::http::request=info")]);
    let id = web.get("/livez").header("x-request-id").unwrap().to_owned();
    assert_eq!(web.requests(1)[0]["request_id"], id);
    assert!(web.requests(1)[0]["trace_id"].is_string());
}

/// Whatever a client puts where, each line of the log is one JSON object.
fn junk_stays_one_line(database: &Database) {
    let web = Web::seeded(database);
    for target in
        [listing!("?q=%0d%0a%1b[31m"), "/%0a%7b%22level%22:%22x%22%7d", listing!("/%00"), listing!("?%22%0a=1")]
    {
        let status = web.get(target).status;
        assert!(status < 500, "{target}: {status}");
    }
    let long = "\u{e9}%1b%0d%0a\"\\".repeat(8_000);
    let last = "Host: x\r\nConnection: close\r\n\r\n";
    for (bytes, status) in [
        (format!("BREW {LISTING}?q=%1b%0a HTTP/1.1\r\nX-Request-Id: \u{e9}\"\r\nX-Long: {long}\r\n{last}"), 405),
        (format!("GET /{} HTTP/1.1\r\n{last}", long.replace(['\u{e9}', '"', '\\'], "")), 414),
        (format!("GET {LISTING}?q={} HTTP/1.1\r\n{last}", long.replace(['\u{e9}', '"', '\\'], "")), 414),
        (format!("GET {LISTING} HTTP/1.1\r\nTraceparent: {long}\r\n{last}"), 200),
        (format!("GET {LISTING} HTTP/1.1\r\nAccept: {long}\r\n{last}"), 200),
        (format!("GET {LISTING} HTTP/1.1\r\nX-Request-Id: \u{1b}[31m\r\n{last}"), 400),
        (format!("\u{1b}[31m\n{long}\r\n{last}"), 400),
        ("G".repeat(60_000) + " / HTTP/1.1\r\n" + last, 405),
    ] {
        let mut raw = TcpStream::connect(("127.0.0.1", web.port)).unwrap();
        raw.write_all(bytes.as_bytes()).unwrap();
        let mut answer = Vec::new();
        raw.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{status}: {answer}");
    }
    // Parsing each line is the assertion.
    let lines = web.requests(12);
    assert_eq!(lines[4]["http.request.method"], "other");
    assert!(lines[9..11].iter().all(|line| line["cause"].as_str().unwrap().starts_with("invalid HTTP ")), "{lines:?}");
    assert!(web.log().lines().all(|line| line.len() < 1000), "and no line is as long as the junk");
}

/// Neither what a client asked for nor what the database answered is in any line.
fn nothing_private_is_logged(database: &Database) {
    let web = Web::seeded(database);
    let next = web.get(listing!("?limit=1&sort=email")).next().unwrap();
    let cursor = next.split_once("after=").unwrap().1;
    for path in [
        listing!("?q=admin@canary"),
        listing!("?q=canary"),
        "/?q=canary",
        "/canary@example.com",
        listing!("/canary"),
        // Such as an idempotency key, a short token and a cursor.
        "/canary-0b9e1c52-77ae",
        "/canary1",
        "/canarycanarycanarycanary",
        &format!("/{cursor}"),
        &next,
        listing!("?after=canary"),
    ] {
        web.get(path);
    }
    database.sql().execute(&format!("DROP TABLE {RELATED_TABLE}"));
    assert_eq!(web.get(related!(1, "?after=canary")).status, 400);
    assert_eq!(web.get(RELATED).status, 503);
    web.requests(14);
    let log = web.log();
    for private in ["canary", "admin@", "example.com", "after=", "q=", cursor, "sqlite:", "mysql://", "postgres://"] {
        assert!(!log.contains(private), "{private} is in the log: {log}");
    }
}

/// A password and an e-mail address, driven through every error there is.
fn a_canary_is_nowhere(database: &Database) {
    drop(Web::seeded(database));
    database.sql().execute(insert!("canary"));
    let collector = Collector::start();
    // A server is asked with a password that is wrong, a file by a name that is secret.
    let wrong = match database.engine.family() {
        Family::Sqlite => database.url.replace("roster.db", "missing/canary.db"),
        Family::MySql => "mysql://roster:canary@127.0.0.1:1/roster".to_owned(),
        Family::Postgres => "postgres://roster:canary@127.0.0.1:1/roster".to_owned(),
    };
    let environment = [("REQUEST_TIMEOUT_MS", "500"), ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str())];
    let full = [environment[0], environment[1], ("MAX_IN_FLIGHT", "1")];
    let webs = [Web::start(database, &environment), Web::start_at(&wrong, &environment), Web::start(database, &full)];
    let canary = "canary%40example.com";
    let long = "canary@example.com".repeat(10_000);
    for mut web in webs {
        let mut errors = Vec::new();
        for path in [
            &format!("{LISTING}?q={canary}&q={canary}"),
            &format!("{LISTING}?{canary}={canary}"),
            &format!("{LISTING}?sort={canary}"),
            &format!("{LISTING}?limit={canary}"),
            &format!("{LISTING}?after={canary}"),
            &format!("{LISTING}/{canary}"),
            &RELATED.replace('1', canary),
            &format!("/{canary}"),
            &format!("{LISTING}?q={}", &long[..9000]),
            listing!("/99"),
            "/readyz",
        ] {
            for accept in ["text/html", "image/png"] {
                let answer = web.get_with(path, &[("accept", accept)]);
                if answer.status >= 400 {
                    errors.push(format!("{:?} {}", answer.headers, answer.body));
                }
            }
            errors.push(web.send("DELETE", path, &[]).body);
        }
        for bytes in [
            format!("GET /{long}"),
            format!("GET / HTTP/1.1\r\nX: {long}"),
            "GET / HTTP/1.1\r\ncanary@example.com canary\r\n\r\n".to_owned(),
            "GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\ncanary@example.com".to_owned(),
            format!("POST {LISTING} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{long}", long.len()),
        ] {
            let mut stream = TcpStream::connect(("127.0.0.1", web.port)).unwrap();
            stream.write_all(bytes.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
            errors.push(answer);
        }
        errors.push(web.get("/metrics").body);
        web.signal("TERM");
        assert_eq!(web.exit_code(), 0);
        errors.push(web.log());
        errors.push(String::from_utf8_lossy(&collector.received()).into_owned());
        for error in &errors {
            // The file's own folder is told to the operator, who must find it.
            let error = error.replace("missing/canary.db", "");
            assert!(!error.contains("canary"), "{error}");
        }
        assert!(errors.len() > 20);
    }
}

fn a_trace_is_continued_or_begun(database: &Database) {
    let web = Web::start(database, &[]);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = "00f067aa0ba902b7";
    let given = format!("00-{trace}-{parent}-01");
    let continued = web.get_with("/livez", &[("traceparent", &given)]);
    let header = continued.header("traceparent").unwrap();
    let fields: Vec<_> = header.split('-').collect();
    assert_eq!((fields[0], fields[1], fields[3]), ("00", trace, "01"));
    assert!(fields[2].len() == 16 && fields[2] != parent, "it is this request's own: {header}");
    let begun = web.get_with("/nothing", &[("traceparent", "nonsense")]);
    let fields: Vec<_> = begun.header("traceparent").unwrap().split('-').collect();
    assert!(fields[1].len() == 32 && fields[1] != trace && fields[3] == "00", "{fields:?}");
    let lines = web.requests(2);
    assert_eq!((&lines[0]["trace_id"], &lines[1]["trace_id"]), (&trace.into(), &fields[1].into()));
    let two = web.get_with("/livez", &[("traceparent", &given), ("traceparent", &given)]);
    let new = two.header("traceparent").unwrap().split('-').nth(1).unwrap();
    assert_ne!(new, trace, "two parents begin a new trace");
    assert_eq!(web.requests(3)[2]["trace_id"], new);
}

/// Something that takes what is sent by OTLP over HTTP, and keeps it.
struct Collector {
    url: String,
    received: Arc<Mutex<Vec<u8>>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let received = Arc::new(Mutex::new(Vec::new()));
        let kept = received.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let kept = kept.clone();
                std::thread::spawn(move || Self::take(stream, &kept));
            }
        });
        Self { url, received }
    }

    /// Answers the requests of one connection.
    fn take(stream: TcpStream, kept: &Mutex<Vec<u8>>) -> Option<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                stream.read_line(&mut head).ok().filter(|read| *read > 0)?;
            }
            assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
            let head = head.to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            let mut body = vec![0; length.parse().unwrap()];
            stream.read_exact(&mut body).unwrap();
            kept.lock().unwrap().extend_from_slice(&body);
            stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()?;
        }
    }

    fn received(&self) -> Vec<u8> {
        self.received.lock().unwrap().clone()
    }

    fn has(&self, bytes: &[u8]) -> bool {
        self.received().windows(bytes.len()).any(|window| window == bytes)
    }
}

fn traces_go_to_the_collector(database: &Database) {
    drop(Web::seeded(database));
    let collector = Collector::start();
    let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()), ("RELEASE_ID", "0.1.0.7")];
    let mut web = Web::start(database, &environment);
    let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let state = [("tracestate", "congo=t61rcWkgMzE"), ("tracestate", "rojo=00f067aa0ba902b7")];
    let answer = web.get_with(FIRST, &[("traceparent", given), state[0], state[1]]);
    assert_eq!(answer.status, 200);
    let own = answer.header("traceparent").unwrap().split('-').nth(2).unwrap().to_owned();
    assert_eq!(web.requests(1)[0]["trace_id"], given.split('-').nth(1).unwrap());
    assert!(web.requests(1)[0].get("otel.kind").is_none(), "{}", web.log());
    // What is still here is sent at the end.
    web.signal("TERM");
    assert_eq!(web.exit_code(), 0);
    let bytes =
        |hex: &str| (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    let ids: Vec<Vec<u8>> = given.split('-').skip(1).take(2).chain([own.as_str()]).map(bytes).collect();
    for id in &ids {
        assert!(collector.has(id), "trace, parent and span are in what was sent");
    }
    let engine = match database.engine.family() {
        Family::Sqlite => "sqlite",
        Family::MySql => "mysql",
        Family::Postgres => "postgresql",
    };
    let state = "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7";
    for text in
        [&*format!("GET {ROW_ROUTE}"), "query", engine, "http.route", "service.name", "roster", "0.1.0.7", state]
    {
        assert!(collector.has(text.as_bytes()), "{text} is in what was sent");
    }
}

fn a_collector_that_is_away_harms_nobody(database: &Database) {
    migrated(database, &["up"]);
    let mut web = Web::start(database, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")]);
    for _ in 0..20 {
        assert_eq!(web.get(LISTING).status, 200);
    }
    web.signal("TERM");
    assert_eq!(web.exit_code(), 0);
    assert!(web.log().contains("HTTP export failed"), "{}", web.log());
}

fn metrics_count_by_route(database: &Database) {
    drop(Web::seeded(database));
    let web = Web::start(database, &[("RELEASE_ID", "0.1.0.7"), ("DATABASE_MAX_CONNECTIONS", "3")]);
    for path in [LISTING, listing!("?limit=1"), FIRST, SECOND, listing!("/3"), "/canary", listing!("/1/canary")] {
        web.get(path);
    }
    web.send("HEAD", LISTING, &[]);
    let mut stream = TcpStream::connect(("127.0.0.1", web.port)).unwrap();
    stream.write_all(format!("CANARY {LISTING} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
    web.requests(9);
    let metrics = web.get("/metrics");
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4"));
    let text = metrics.body;
    let requests = |method: &str, route: &str, status: u16, count: u32| {
        let labels = [("request_method", method), ("response_status_code", &status.to_string()), ("route", route)];
        let labels = labels.map(|(name, value)| format!("http_{name}=\"{value}\"")).join(",");
        format!("http_server_requests_total{{{labels}}} {count}")
    };
    for line in [
        &requests("GET", LISTING, 200, 2),
        &requests("GET", ROW_ROUTE, 200, 2),
        &requests("GET", ROW_ROUTE, 404, 1),
        &requests("GET", "none", 404, 2),
        &requests("HEAD", LISTING, 200, 1),
        &requests("other", LISTING, 405, 1),
        &format!(
            "http_server_request_duration_seconds_count{{http_request_method=\"GET\",http_route=\"{ROW_ROUTE}\"}} 3"
        ),
        "http_server_active_requests 0",
        "db_client_connection_max 3",
        "db_client_connections{db_client_connection_state=\"used\"} 0",
        "db_client_operation_batch_size_count 6",
        "db_client_connection_wait_time_seconds_count 6",
        "db_client_connection_pending_requests 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    let queries = text.lines().find(|line| line.starts_with("db_client_operation_duration_seconds_count{")).unwrap();
    assert!(queries.contains("db_operation_name=\"SELECT\"") && queries.ends_with("} 6"), "{queries}");
    let target = text.lines().find(|line| line.starts_with("target_info{")).unwrap();
    assert!(target.contains("release_id=\"0.1.0.7\"") && target.ends_with("} 1"), "{target}");
    if cfg!(target_os = "linux") {
        for name in ["cpu_seconds_total", "resident_memory_bytes", "open_fds", "max_fds", "start_time_seconds"] {
            let (_, value) = text.split_once(&format!("\nprocess_{name} ")).unwrap();
            let value: f64 = value.split('\n').next().unwrap().parse().unwrap();
            assert!(value > 0.0 || name == "cpu_seconds_total", "{name}");
        }
    }
    assert!(!text.to_lowercase().contains("canary"), "{text}");
}

fn requests_keep_their_thread_busy(database: &Database) {
    let web = Web::start(database, &[("WEB_CONCURRENCY", "1")]);
    let busy = || {
        let text = web.get("/metrics").body;
        let (_, value) = text.split_once("\ntokio_worker_busy_seconds_total{thread_name=\"http-0\"} ").unwrap();
        value.split('\n').next().unwrap().parse::<f64>().unwrap()
    };
    let before = busy();
    eventually("requests raise it", || web.get("/livez").status == 200 && busy() > before);
}
