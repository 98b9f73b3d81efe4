//! The engines: which are installed, a server of each for the whole run, a fresh database for each test.
//!
//! A server lives in a temporary folder, on a Unix socket, under a small shell that waits for the end
//! of its standard input: when this process ends, however it does, the kernel closes that pipe, and the
//! shell kills the server and removes the folder.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use super::sql::Sql;
use super::{eventually, free_port};

/// One of the three engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Sqlite,
    MySql,
    Postgres,
}

/// The servers of this run, started when the first test needs them.
static SERVERS: [Mutex<Option<Server>>; 2] = [const { Mutex::new(None) }; 2];

impl Engine {
    pub(crate) const ALL: [Self; 3] = [Self::Sqlite, Self::MySql, Self::Postgres];
    /// Those that are servers.
    pub(crate) const SERVERS: [Self; 2] = [Self::MySql, Self::Postgres];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::MySql => "mysql",
            Self::Postgres => "postgres",
        }
    }

    pub(crate) fn is_installed(self) -> bool {
        match self {
            Self::Sqlite => true,
            Self::MySql => program("mariadbd").is_some() && program("mariadb-install-db").is_some(),
            Self::Postgres => program("initdb").is_some() && program("postgres").is_some(),
        }
    }

    /// A fresh database.
    pub(crate) fn database(self) -> Database {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("roster_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let slot = match self {
            Self::Sqlite => {
                let folder = TempDir::with_prefix("roster-").unwrap();
                let url = format!("sqlite:{}?mode=rwc", folder.path().join("roster.db").display());
                return Database { engine: self, url, _folder: Some(folder) };
            }
            Self::MySql => &SERVERS[0],
            Self::Postgres => &SERVERS[1],
        };
        // A test that fails while it holds the lock leaves the server as good as it was.
        let mut server = slot.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let server = server.get_or_insert_with(|| Server::start(self));
        server.admin().execute(&format!("CREATE DATABASE {name}"));
        Database { engine: self, url: server.url(&name), _folder: None }
    }

    /// The database that is always there.
    const fn maintenance(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::MySql => "mysql",
            Self::Postgres => "postgres",
        }
    }
}

/// A database of one test's own.
pub(crate) struct Database {
    pub(crate) engine: Engine,
    pub(crate) url: String,
    /// An SQLite file's.
    _folder: Option<TempDir>,
}

impl Database {
    /// A connection beside the product's.
    pub(crate) fn sql(&self) -> Sql {
        Sql::connect(&self.url)
    }

    /// Keeps every reader of a server's users waiting, until the result is dropped.
    pub(crate) fn hold_users(&self) -> Sql {
        let mut sql = self.sql();
        match self.engine {
            Engine::Sqlite => unreachable!("its readers wait for nobody"),
            Engine::MySql => sql.execute("LOCK TABLES users WRITE"),
            Engine::Postgres => {
                sql.execute("BEGIN");
                sql.execute("LOCK TABLE users");
            }
        }
        sql
    }

    /// The file of an SQLite database.
    pub(crate) fn file(&self) -> PathBuf {
        PathBuf::from(self.url.trim_start_matches("sqlite:").trim_end_matches("?mode=rwc"))
    }
}

pub(crate) fn stop_servers() {
    for server in &SERVERS {
        drop(server.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take());
    }
}

/// Where a program is: on the path, or where Debian, Homebrew and `.ci/tools` keep those that are not.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    folders.extend(["/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin"].map(PathBuf::from));
    folders.push(super::tool::folder().join("bin"));
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    folders.extend(versions.map(|version| version.path().join("bin")));
    folders.into_iter().map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// A running database server. Dropped, it is killed and its folder removed.
pub(crate) struct Server {
    engine: Engine,
    folder: PathBuf,
    /// Whom the server runs as, when not as we do: PostgreSQL refuses to run as root.
    owner: Option<(u32, u32)>,
    /// Where it listens besides its socket.
    network: Option<Network>,
    guard: Option<Child>,
}

/// How a server is reached over the network: on the loopback address alone.
struct Network {
    port: u16,
    /// Whether it has the certificate that is in its folder.
    has_certificate: bool,
}

impl Server {
    /// A server of this engine with nothing in it.
    pub(crate) fn start(engine: Engine) -> Self {
        Self::start_on(engine, |_| None)
    }

    /// A server that listens on the network too, with a certificate for this host, if any. Gives its port.
    pub(crate) fn start_with_certificate(engine: Engine, certificate: Option<&Certificate>) -> (Self, u16) {
        let port = free_port();
        let server = Self::start_on(engine, |server| {
            if let Some(certificate) = certificate {
                for (name, text) in [("cert.pem", &certificate.chain), ("key.pem", &certificate.key)] {
                    let file = server.folder.join(name);
                    fs::write(&file, text).unwrap();
                    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
                    if let Some((user, group)) = server.owner {
                        chown(&file, Some(user), Some(group)).unwrap();
                    }
                }
            }
            Some(Network { port, has_certificate: certificate.is_some() })
        });
        (server, port)
    }

    fn start_on(engine: Engine, network: impl FnOnce(&Self) -> Option<Network>) -> Self {
        // The guard removes the folder, which outlives this process for a moment.
        let folder = TempDir::with_prefix("roster-").unwrap().keep();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let root = fs::metadata(&folder).unwrap().uid() == 0;
        let owner = (root && engine == Engine::Postgres).then(unprivileged);
        if let Some((user, group)) = owner {
            chown(&folder, Some(user), Some(group)).unwrap();
        }
        let mut server = Self { engine, folder, owner, network: None, guard: None };
        server.initialise();
        server.network = network(&server);
        server.run();
        server
    }

    fn initialise(&self) {
        let data = self.folder.join("data");
        let mut command = match self.engine {
            Engine::Sqlite => unreachable!("SQLite has no server"),
            Engine::MySql => {
                let mut command = self.command("mariadb-install-db");
                command.arg("--no-defaults").arg(format!("--datadir={}", data.display()));
                command.args(["--auth-root-authentication-method=normal", "--skip-test-db"]);
                command
            }
            Engine::Postgres => {
                let mut command = self.command("initdb");
                command.arg("-D").arg(&data);
                command.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]);
                command
            }
        };
        let done = command.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        if self.engine == Engine::Postgres {
            // Everyone but the superuser needs a password, which a test gets wrong.
            fs::write(
                data.join("pg_hba.conf"),
                "local all postgres trust\nlocal all all scram-sha-256\nhost all all 127.0.0.1/32 trust\n",
            )
            .unwrap();
        }
    }

    /// Runs the server, again after [`Server::kill`].
    pub(crate) fn run(&mut self) {
        let data = self.folder.join("data");
        let server = match self.engine {
            Engine::Sqlite => unreachable!("SQLite has no server"),
            Engine::MySql => program("mariadbd"),
            Engine::Postgres => program("postgres"),
        };
        let mut guard = self.command("sh");
        guard
            .arg("-c")
            // PostgreSQL does not start while a process of one that was killed is still there.
            .arg(
                "folder=$1; shift; \
                 while :; do \"$@\" & echo $! >\"$folder/pid\"; wait $!; sleep 0.1; done >\"$folder/log\" 2>&1 & \
                 read end; kill -9 $! $(cat \"$folder/pid\"); wait; [ \"$end\" ] || rm -rf \"$folder\"",
            )
            .arg("sh")
            .arg(&self.folder)
            .arg(server.unwrap());
        match self.engine {
            Engine::Sqlite => {}
            Engine::MySql => {
                guard.args(["--no-defaults", "--user=root", "--max-connections=300"]);
                guard.args(match &self.network {
                    None => vec!["--skip-networking".to_owned()],
                    Some(network) => vec!["--bind-address=127.0.0.1".to_owned(), format!("--port={}", network.port)],
                });
                if let Some(Network { has_certificate: true, .. }) = self.network {
                    guard.arg(format!("--ssl-cert={}", self.folder.join("cert.pem").display()));
                    guard.arg(format!("--ssl-key={}", self.folder.join("key.pem").display()));
                }
                // What a test writes must survive the server, and need not survive the machine.
                guard.args(["--innodb-flush-log-at-trx-commit=2", "--innodb-buffer-pool-size=64M"]);
                guard.arg(format!("--datadir={}", data.display()));
                guard.arg(format!("--socket={}", self.folder.join("sock").display()));
            }
            Engine::Postgres => {
                guard.arg("-D").arg(&data).arg("-k").arg(&self.folder);
                guard.args(["-c", "max_connections=300", "-c", "fsync=off"]);
                match &self.network {
                    None => _ = guard.args(["-c", "listen_addresses="]),
                    Some(network) => {
                        guard.args(["-c", "listen_addresses=127.0.0.1", "-p", &network.port.to_string()]);
                        if network.has_certificate {
                            let file = |name| self.folder.join(name).display().to_string();
                            guard.args(["-c", "ssl=on", "-c", &format!("ssl_cert_file={}", file("cert.pem"))]);
                            guard.args(["-c", &format!("ssl_key_file={}", file("key.pem"))]);
                        }
                    }
                }
            }
        }
        // A group of its own, so that Ctrl-C reaches the guard through the pipe alone.
        let child = guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn();
        self.guard = Some(child.unwrap());
        let url = self.url(self.engine.maintenance());
        eventually("the server answers", || Sql::try_connect(&url).is_some());
    }

    /// Kills the server and keeps its data.
    pub(crate) fn kill(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            // A line, where the end of the pipe would remove the folder too.
            guard.stdin.take().unwrap().write_all(b"keep\n").unwrap();
            guard.wait().unwrap();
            // Killed, PostgreSQL leaves its processes a moment to notice.
            let url = self.url(self.engine.maintenance());
            eventually("the server is gone", || Sql::try_connect(&url).is_none());
        }
    }

    /// A connection to the database that is always there.
    pub(crate) fn admin(&self) -> Sql {
        Sql::connect(&self.url(self.engine.maintenance()))
    }

    /// The URL of one of its databases.
    pub(crate) fn url(&self, database: &str) -> String {
        self.url_of(if self.engine == Engine::MySql { "root" } else { "postgres" }, database)
    }

    /// The URL of one of its databases, for this user, who may be `name:password`.
    pub(crate) fn url_of(&self, user: &str, database: &str) -> String {
        let folder = self.folder.to_str().unwrap().replace('/', "%2F");
        match self.engine {
            Engine::Sqlite => unreachable!("SQLite has no server"),
            Engine::MySql => format!("mysql://{user}@localhost/{database}?socket={folder}%2Fsock"),
            Engine::Postgres => {
                let port = self.network.as_ref().map_or(5432, |network| network.port);
                format!("postgres://{user}@localhost:{port}/{database}?host={folder}")
            }
        }
    }

    /// The socket that it listens on.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join(if self.engine == Engine::MySql { "sock" } else { ".s.PGSQL.5432" })
    }

    /// A program that runs in its folder, as whom it runs itself.
    pub(crate) fn command(&self, name: &str) -> Command {
        let mut command = Command::new(program(name).unwrap());
        // MariaDB clears the temporary tables of others away when it starts.
        command.current_dir(&self.folder).env("TMPDIR", &self.folder);
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            let _ = guard.wait();
        }
        // A server that was killed has left it.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A certificate of an authority of its own, in PEM.
pub(crate) struct Certificate {
    chain: String,
    key: String,
    /// That of the authority.
    pub(crate) authority: String,
}

impl Certificate {
    pub(crate) fn for_host(host: &str) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, format!("the authority of {host}"));
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = parameters.self_signed(&key).unwrap().pem();
        let issuer = rcgen::Issuer::new(parameters, key);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        Self { chain: certificate.pem(), key: key.serialize_pem(), authority }
    }
}

/// The user and group `postgres`, or nobody's.
fn unprivileged() -> (u32, u32) {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let fields = users.lines().find(|line| line.starts_with("postgres:")).map(|line| line.split(':'));
    let mut numbers = fields.into_iter().flatten().skip(2).map_while(|number| number.parse().ok());
    (numbers.next().unwrap_or(65534), numbers.next().unwrap_or(65534))
}

/// Whether a folder holds anything but these names.
pub(crate) fn holds_only(folder: &Path, names: &[&str]) -> bool {
    fs::read_dir(folder).unwrap().all(|entry| names.contains(&entry.unwrap().file_name().to_str().unwrap()))
}
