//! HTTPolice compares recorded exchanges of every resource with the standards of HTTP.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;

use libtest_mimic::Trial;
use tempfile::TempDir;

use crate::http::responses::style_of;
use crate::support::engine::{Database, Engine};
use crate::support::process::{TOKEN, Web, migrated};
use crate::support::resource::{CSV, FIRST, LISTING, NDJSON, RELATED, SECOND, listing, related};
use crate::support::tool::Tool;
use crate::support::{Tests, tests};

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!())
        .with_tool(Tool::Httpolice, &[Engine::any()], tests![exchanges_keep_to_the_standards])
        .trials()
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
    // for a client of HTTP/1.0; and `immutable` and tokens without TLS, which is the balancer's.
    for silent in ["1277", "1025", "1302", "1263", "1261"] {
        httpolice.args(["--silence", silent]);
    }
    let done = httpolice.args(["--fail-on", "comment", "--input", kind]).args(files).output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
}

fn request(method: &str, target: &str, headers: &[&str]) -> String {
    let first = format!("{method} {target} HTTP/1.1");
    let lines = [&[&*first, "Host: localhost", "User-Agent: conformance"], headers].concat();
    lines.join("\r\n") + "\r\n"
}

fn exchanges_keep_to_the_standards(database: &Database) {
    const END: &str = "Connection: close\r\n\r\n";
    migrated(database, &["up"]);
    migrated(database, &["seed"]);
    let web = Web::writable(database, &[]);
    let style = &*style_of(&web.get("/"));
    let folder = TempDir::with_prefix("roster-conformance-").unwrap();
    let mut recorder = Recorder { web: &web, folder, whole: Vec::new(), answers: Vec::new() };
    let resources = [
        "/",
        LISTING,
        listing!("?limit=1"),
        FIRST,
        RELATED,
        NDJSON,
        CSV,
        "/livez",
        "/readyz",
        "/metrics",
        "/version",
        "/openapi.json",
        "/docs",
        "/favicon.ico",
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
    let token = format!("Authorization: Bearer {TOKEN}");
    let written = |method: &str, path: &str, headers: &[&str], body: &str| {
        let length = format!("Content-Length: {}", body.len());
        let media_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let media_type = format!("Content-Type: {media_type}");
        let own = [&*token, &*media_type, &*length];
        let own = if body.is_empty() { &own[..1] } else { &own };
        request(method, path, &[own, headers].concat()) + END + body
    };
    let [ada, bob] = ["ada", "bob"].map(|name| format!(r#"{{"username":"{name}","email":"{name}@example.com"}}"#));
    for (key, body) in [("a", &*ada), ("a", &*ada), ("a", &*bob), ("b", &*ada), ("c", "{}")] {
        recorder.exchange(&written("POST", LISTING, &[&format!("Idempotency-Key: {key}")], body));
    }
    for condition in [&["If-Match: *"][..], &["If-Match: \"x\""], &[]] {
        recorder.exchange(&written("PATCH", SECOND, condition, r#"{"username":"new"}"#));
    }
    recorder.refusal(&written("POST", LISTING, &[], "{"));
    recorder.refusal(&written("PATCH", SECOND, &["If-Match: *", "Content-Encoding: gzip"], "{}"));
    for method in ["PUT", "DELETE", "GET"] {
        let headers = if method == "PUT" { &["Content-Length: 0"][..] } else { &[] };
        recorder.exchange(&written(method, related!(1, "/3"), headers, ""));
    }
    for _ in 0..2 {
        recorder.exchange(&written("DELETE", listing!("/3"), &[], ""));
    }
    recorder.exchange(&(request("DELETE", SECOND, &["Authorization: Bearer x"]) + END));
    let body = ["Content-Type: text/plain", "Content-Length: 2"];
    recorder.exchange(&(request("POST", LISTING, &body) + END + "{}"));
    recorder.exchange(&(request("POST", LISTING, &[body[0], body[1], "Expect: 100-continue"]) + END + "{}"));
    recorder.exchange(&(request("POST", LISTING, &[body[0], "Content-Length: 70000"]) + END + &"x".repeat(70_000)));
    recorder.exchange(&(request("GET", &format!("{LISTING}?q={}", "a".repeat(9000)), &[]) + END));
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
