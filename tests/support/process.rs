//! The real binaries as processes, and a client for `web`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use roster::config::ApiTokens;
use serde_json::Value;
use socket2::SockRef;
use url::Url;

use super::engine::Database;
use super::eventually;
use super::resource::SAMPLES;

/// The name of the client that may write, and its token.
pub(crate) const CLIENT: &str = "tester";
pub(crate) const TOKEN: &str = "canary-token-of-the-tests";

/// The programs that serve HTTP, and their files.
pub(crate) const PROGRAMS: &[(&str, &str)] = &[
    ("web", env!("CARGO_BIN_EXE_web")),
    ("worker", env!("CARGO_BIN_EXE_worker")),
    ("clock", env!("CARGO_BIN_EXE_clock")),
];

/// A command that has this environment and no other.
fn command(binary: &str, environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(binary);
    command.env_clear().envs(environment.iter().copied());
    command
}

/// `web`, run to its end.
pub(crate) fn web(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    command(env!("CARGO_BIN_EXE_web"), environment).args(arguments).output().unwrap()
}

/// `web` with an environment, not started yet.
pub(crate) fn web_command(environment: &[(&str, &str)]) -> Command {
    command(env!("CARGO_BIN_EXE_web"), environment)
}

/// `migrate` with an environment, not started yet.
pub(crate) fn migrate_command(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = command(env!("CARGO_BIN_EXE_migrate"), environment);
    command.args(arguments);
    command
}

/// `migrate` on a database, run to its end.
pub(crate) fn migrate(database: &Database, arguments: &[&str]) -> Output {
    migrate_command(arguments, &[("DATABASE_URL", &database.url)]).output().unwrap()
}

/// `migrate` on a database, which must succeed; gives its output.
pub(crate) fn migrated(database: &Database, arguments: &[&str]) -> String {
    let done = migrate(database, arguments);
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    String::from_utf8(done.stdout).unwrap()
}

/// Migrates the database at this URL, and gives it the two users.
pub(crate) fn seed(url: &str) {
    for task in ["up", "seed"] {
        let done = migrate_command(&[task], &[("DATABASE_URL", url)]).output().unwrap();
        assert_eq!(code(&done), 0, "{}", stderr(&done));
    }
}

/// Migrates this database, and gives each table rows: this many of `migrate seed`, and [`SAMPLES`].
pub(crate) fn sampled(database: &Database, rows: &str) {
    migrated(database, &["up"]);
    migrated(database, &["seed", rows]);
    for statement in SAMPLES {
        database.sql().execute(statement);
    }
}

/// `migrate` fed with text.
pub(crate) fn migrate_from(database: &Database, arguments: &[&str], input: &str) -> Output {
    let mut command = migrate_command(arguments, &[("DATABASE_URL", &database.url)]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // Written from beside, because a process that refuses its input answers before it has read it all.
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let done = child.wait_with_output().unwrap();
    writer.join().unwrap();
    done
}

/// `migrate import` fed with CSV.
pub(crate) fn import_csv(database: &Database, csv: &str) -> Output {
    migrate_from(database, &["import", "-", "--format", "csv"], csv)
}

pub(crate) fn code(done: &Output) -> i32 {
    done.status.code().expect("it was not killed")
}

pub(crate) fn stderr(done: &Output) -> String {
    String::from_utf8(done.stderr.clone()).unwrap()
}

/// Sends a signal to a process.
pub(crate) fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status().unwrap();
    assert!(sent.success());
}

/// A running `web` on a free port.
pub(crate) struct Web {
    child: Child,
    pub(crate) port: u16,
    lines: Arc<Mutex<Vec<String>>>,
    agent: ureq::Agent,
}

/// What `web` answered.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The address that was requested.
    pub(crate) url: Url,
    pub(crate) status: u16,
    pub(crate) headers: ureq::http::HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The target of the link to the next page, as a path with a query.
    pub(crate) fn next(&self) -> Option<String> {
        let link = self.header("link")?;
        let target = link.strip_prefix('<')?.strip_suffix(">; rel=\"next\"");
        let next = self.url.join(target.unwrap_or_else(|| panic!("not a link to the next page: {link}"))).unwrap();
        Some(next[url::Position::BeforePath..].to_owned())
    }
}

/// An HTTP client that returns every status as a response.
pub(crate) fn agent() -> ureq::Agent {
    let timeout = Some(Duration::from_secs(30));
    ureq::Agent::config_builder().http_status_as_error(false).timeout_global(timeout).build().into()
}

/// Sends a request to this URL.
pub(crate) fn request(agent: &ureq::Agent, method: &str, url: Url, headers: &[(&str, &str)]) -> Answer {
    request_with_body(agent, method, url, headers, "")
}

/// Sends a request with this body, if it is not empty.
fn request_with_body(agent: &ureq::Agent, method: &str, url: Url, headers: &[(&str, &str)], body: &str) -> Answer {
    let request = ureq::http::Request::builder().method(method).uri(url.as_str());
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let mut response = if body.is_empty() {
        agent.run(request.body(()).unwrap()).unwrap()
    } else {
        agent.run(request.body(body.to_owned()).unwrap()).unwrap()
    };
    Answer {
        url,
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.body_mut().with_config().limit(1 << 30).read_to_string().unwrap(),
    }
}

impl Web {
    /// A server on this database, migrated and with the two users.
    pub(crate) fn seeded(database: &Database) -> Self {
        migrated(database, &["up"]);
        migrated(database, &["seed"]);
        Self::start(database, &[])
    }

    /// A server on this database as it is.
    pub(crate) fn start(database: &Database, environment: &[(&str, &str)]) -> Self {
        Self::start_at(&database.url, environment)
    }

    /// A server on the database at this URL.
    pub(crate) fn start_at(url: &str, environment: &[(&str, &str)]) -> Self {
        let own = [("DATABASE_URL", url), ("HOST", "127.0.0.1"), ("PORT", "0")];
        let environment: Vec<_> = own.into_iter().chain(environment.iter().copied()).collect();
        Self::launch(command(env!("CARGO_BIN_EXE_web"), &environment))
    }

    /// One of [`PROGRAMS`], on this database as it is.
    pub(crate) fn program(name: &str, database: &Database, environment: &[(&str, &str)]) -> Self {
        let (_, program) = PROGRAMS.iter().find(|(known, _)| *known == name).unwrap();
        let own = [("DATABASE_URL", &*database.url), ("HOST", "127.0.0.1"), ("PORT", "0")];
        let environment: Vec<_> = own.into_iter().chain(environment.iter().copied()).collect();
        Self::launch(command(program, &environment))
    }

    /// A server on this database that is handed a listener, as systemd does it.
    pub(crate) fn activated(database: &Database, listener: &TcpListener) -> Self {
        // A child has no descriptor but the standard ones, unless a shell between the two makes it one.
        let mut shell = command("/bin/sh", &[("DATABASE_URL", &database.url), ("LISTEN_FDS", "1")]);
        shell.args(["-c", "exec 3<&0 </dev/null; exec \"$0\"", env!("CARGO_BIN_EXE_web")]);
        shell.stdin(OwnedFd::from(listener.try_clone().unwrap()));
        Self::launch(shell)
    }

    /// A server that this command starts, or another that passes its output on.
    pub(crate) fn launch(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (output, collected) = (BufReader::new(child.stdout.take().unwrap()), lines.clone());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                collected.lock().unwrap().push(line);
            }
        });
        let mut web = Self { child, port: 0, lines, agent: agent() };
        eventually("web serves", || {
            assert!(web.child.try_wait().unwrap().is_none(), "web ended: {}", web.log());
            let log = web.log();
            let Some((_, rest)) = log.split_once("serving at http://localhost:") else { return false };
            web.port = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap();
            true
        });
        web
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[])
    }

    pub(crate) fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send("GET", path, headers)
    }

    pub(crate) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        request(&self.agent, method, Url::parse(&self.url(path)).unwrap(), headers)
    }

    /// A server on this database as it is, with the token of [`Web::write`].
    pub(crate) fn writable(database: &Database, environment: &[(&str, &str)]) -> Self {
        let pair = ApiTokens::pair(CLIENT, TOKEN).unwrap();
        let environment: Vec<_> = [("API_TOKENS", &*pair)].into_iter().chain(environment.iter().copied()).collect();
        Self::start(database, &environment)
    }

    /// Sends a request that writes, with a token. A body is JSON.
    pub(crate) fn write(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let authorization = format!("Bearer {TOKEN}");
        let own = [("authorization", &*authorization), ("content-type", "application/json")];
        let headers: Vec<_> = own[..if body.is_empty() { 1 } else { 2 }].iter().chain(headers).copied().collect();
        self.send_body(method, path, &headers, body)
    }

    /// Sends a request with a body, without a token.
    pub(crate) fn send_body(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        request_with_body(&self.agent, method, Url::parse(&self.url(path)).unwrap(), headers, body)
    }

    /// A connection that has asked for this path and has read no more than the beginning of the answer.
    pub(crate) fn slow_reader(&self, path: &str) -> TcpStream {
        use std::io::Read as _;

        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        SockRef::from(&stream).set_recv_buffer_size(64 * 1024).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut beginning = [0; 15];
        stream.read_exact(&mut beginning).unwrap();
        assert_eq!(&beginning, b"HTTP/1.1 200 OK");
        stream
    }

    /// Every row of a listing, page by page.
    pub(crate) fn all(&self, path: &str) -> Vec<Value> {
        let mut rows = Vec::new();
        let mut next = Some(path.to_owned());
        while let Some(path) = next {
            let answer = self.get(&path);
            assert_eq!(answer.status, 200, "{}", answer.body);
            rows.extend(answer.json().as_array().unwrap().iter().cloned());
            next = answer.next();
        }
        rows
    }

    /// The value of the first metric that begins with this name.
    pub(crate) fn metric(&self, name: &str) -> usize {
        let metrics = self.get("/metrics").body;
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// The lines that it logged so far, as JSON.
    pub(crate) fn events(&self) -> Vec<Value> {
        let lines = self.lines.lock().unwrap();
        lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }

    /// The lines of the requests that it logged, once there are so many: a line is written before its
    /// answer is, but may be read after it.
    pub(crate) fn requests(&self, count: usize) -> Vec<Value> {
        let requests = || self.events().into_iter().filter(|event| event["message"] == "request").collect::<Vec<_>>();
        eventually("every request has its line", || requests().len() >= count);
        let requests = requests();
        assert_eq!(requests.len(), count, "{requests:?}");
        requests
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Whether it accepts a connection.
    pub(crate) fn is_accepting(&self) -> bool {
        TcpStream::connect(("127.0.0.1", self.port)).is_ok()
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// Its exit code, once it has ended.
    pub(crate) fn exit_code(&mut self) -> i32 {
        eventually("web ends", || !self.is_running());
        self.child.wait().unwrap().code().expect("it was not killed")
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "web logged:\n{}", self.log());
        }
    }
}
