//! What others make of the HTTP surface: the description of the API against what the service does, and
//! recorded exchanges of every resource against the standards.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::support::Factor;
use crate::support::engine::{Database, Engine};
use crate::support::process::{Web, migrated};
use crate::support::tool::Tool;

pub(super) fn tests(factor: Factor) -> Factor {
    let engines = &[Engine::Sqlite, Engine::Postgres];
    factor
        .on(&[Engine::Sqlite], "the_description_is_the_committed_one", the_description_is_the_committed_one)
        .on(&[Engine::Sqlite], "the_description_has_a_page", the_description_has_a_page)
        .judged_by(
            Tool::Schemathesis,
            engines,
            "the_service_does_what_it_describes",
            the_service_does_what_it_describes,
        )
        .judged_by(
            Tool::Httpolice,
            &[Engine::Sqlite],
            "exchanges_keep_to_the_standards",
            exchanges_keep_to_the_standards,
        )
}

fn the_description_is_the_committed_one(database: &Database) {
    let web = Web::start(database, &[]);
    let served = web.get("/openapi.json");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let committed = fs::read_to_string(file).unwrap();
    assert!(committed == served.body, "openapi.json is not what is served");
    let description = served.json();
    assert_eq!(description["openapi"], "3.1.0");
    for path in description["paths"].as_object().unwrap().keys() {
        let path = path.replace("{id}", "1");
        assert_ne!(web.send("POST", &path, &[]).status, 404, "{path} is a resource");
    }
}

fn the_description_has_a_page(database: &Database) {
    let web = Web::start(database, &[]);
    let description = web.get("/openapi.json").json();
    let page = web.get("/docs").body;
    for (path, methods) in description["paths"].as_object().unwrap() {
        assert!(page.contains(&format!("<b>GET</b> {path}</code>")), "{path}");
        for parameter in methods["get"]["parameters"].as_array().into_iter().flatten() {
            assert!(page.contains(&format!("<code>{}</code>", parameter["name"].as_str().unwrap())), "{parameter}");
        }
    }
    // Nothing is loaded from elsewhere, and nothing runs.
    assert!(!page.contains("://") || page.matches("://").count() == page.matches("http://www.w3.org/2000/svg").count());
    assert!(!page.contains("<script") && !page.contains("style="));
}

fn the_service_does_what_it_describes(database: &Database) {
    migrated(database, &["up"]);
    migrated(database, &["seed", "200"]);
    let web = Web::start(database, &[]);
    let scratch = TempDir::with_prefix("roster-judge-").unwrap();
    let mut schemathesis = Tool::Schemathesis.command();
    let done = schemathesis
        .args(["run", &web.url("/openapi.json"), "--checks", "all"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/judges"))
        .env("HYPOTHESIS_STORAGE_DIRECTORY", scratch.path())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
    assert!(web.events().len() > 1000, "it asked");
}

/// Conversations as they went over the wire, a file for each direction.
struct Recorder<'a> {
    web: &'a Web,
    folder: TempDir,
    /// Those whose requests are in order.
    whole: Vec<PathBuf>,
    /// The answers to requests that are not.
    answers: Vec<PathBuf>,
}

impl Recorder<'_> {
    /// Sends what must end with a request to close the connection, and keeps both directions.
    fn record(&mut self, requests: &str) -> (PathBuf, PathBuf) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.web.port)).unwrap();
        stream.write_all(requests.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let name = |end: &str| self.folder.path().join(format!("{}.{end}", self.whole.len() + self.answers.len()));
        let (sent, received) = (name("in"), name("out"));
        fs::write(&sent, requests).unwrap();
        fs::write(&received, answer).unwrap();
        (sent, received)
    }

    fn exchange(&mut self, requests: &str) {
        let (sent, received) = self.record(requests);
        self.whole.extend([sent, received]);
    }

    fn refusal(&mut self, request: &str) {
        let (_, received) = self.record(request);
        self.answers.push(received);
    }
}

/// Asserts that HTTPolice has nothing to say.
fn assert_clean(kind: &str, files: &[PathBuf]) {
    let mut httpolice = Tool::Httpolice.command();
    // Names that begin with x-, as that of x-request-id does; a stream that ends with the connection, as one must
    // for a client of HTTP/1.0; and `immutable` without TLS, which is the balancer's.
    for silent in ["1277", "1025", "1302"] {
        httpolice.args(["--silence", silent]);
    }
    let done = httpolice.args(["--fail-on", "comment", "--input", kind]).args(files).output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
}

fn request(method: &str, target: &str, headers: &[&str]) -> String {
    let first = format!("{method} {target} HTTP/1.1");
    let lines = [&[&*first, "Host: localhost", "User-Agent: judge"], headers].concat();
    lines.join("\r\n") + "\r\n"
}

fn exchanges_keep_to_the_standards(database: &Database) {
    const END: &str = "Connection: close\r\n\r\n";
    let web = Web::seeded(database);
    let style = &*super::style(&web.get("/"));
    let folder = TempDir::with_prefix("roster-judge-").unwrap();
    let mut recorder = Recorder { web: &web, folder, whole: Vec::new(), answers: Vec::new() };
    let resources = [
        "/",
        "/users",
        "/users?limit=1",
        "/users/1",
        "/users/1/friends",
        "/users.ndjson",
        "/users.csv",
        "/livez",
        "/readyz",
        "/metrics",
        "/version",
        "/openapi.json",
        "/docs",
        style,
    ];
    for resource in resources {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"] {
            let length = if method.starts_with('P') { &["Content-Length: 0"][..] } else { &[] };
            recorder.exchange(&(request(method, resource, length) + END));
        }
        if let Some(tag) = web.get(resource).header("etag") {
            for known in [tag, &format!("W/{tag}"), "*", "\"other\""] {
                recorder.exchange(&(request("GET", resource, &[&format!("If-None-Match: {known}")]) + END));
            }
        }
        for accept in ["image/png", "text/html,*/*;q=0.8", "text/csv", "*/*;q=0"] {
            for method in ["GET", "HEAD"] {
                recorder.exchange(&(request(method, resource, &[&format!("Accept: {accept}")]) + END));
            }
        }
        for target in [format!("{resource}?limit=0"), format!("{resource}/no/thing")] {
            recorder.exchange(&(request("GET", &target, &["Accept: text/html"]) + END));
            recorder.exchange(&(request("GET", &target, &[]) + END));
        }
        recorder.exchange(&(request("GET", resource, &["Range: bytes=0-3", "Accept-Encoding: gzip"]) + END));
        recorder.exchange(&(request("GET", resource, &[]).replace("HTTP/1.1", "HTTP/1.0") + "\r\n"));
    }
    let body = ["Content-Type: text/plain", "Content-Length: 2"];
    recorder.exchange(&(request("POST", "/users", &body) + END + "{}"));
    recorder.exchange(&(request("POST", "/users", &[body[0], body[1], "Expect: 100-continue"]) + END + "{}"));
    recorder.exchange(&(request("POST", "/users", &[body[0], "Content-Length: 70000"]) + END + &"x".repeat(70_000)));
    recorder.exchange(&(request("GET", &format!("/users?q={}", "a".repeat(9000)), &[]) + END));
    recorder.exchange(
        &(resources.map(|resource| request("GET", resource, &[]) + "\r\n").concat()
            + &request("GET", "/livez", &[])
            + END),
    );
    for head in [
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\na b: c\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "GET / HTTP/3.7\r\nHost: a\r\n",
        "GET a b HTTP/1.1\r\nHost: a\r\n",
    ] {
        recorder.refusal(&format!("{head}{END}"));
    }
    assert!(recorder.whole.len() > 400);
    assert_clean("streams", &recorder.whole);
    assert_clean("resp-stream", &recorder.answers);
}
