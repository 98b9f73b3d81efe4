//! PgBouncer before a PostgreSQL server.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Stdio};

use super::engine::Server;
use super::sql::Sql;
use super::tool::Tool;
use super::{Port, eventually};

/// A running pooler. Dropped, it is killed; and when this process ends, however it does, its shell sees the end of its
/// input.
pub(crate) struct Pooler {
    port: Port,
    guard: Child,
}

/// When a server session is returned to the pool (`pool_mode`).
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mode {
    Session,
    Transaction,
}

impl Pooler {
    /// A pooler with transaction pooling that does not track prepared statements. It has this number of connections to
    /// the database `app` of the server.
    pub(crate) fn start(server: &Server, connections: usize) -> Self {
        Self::start_as(Tool::Pgbouncer, Mode::Transaction, server, connections)
    }

    /// A pooler of this version. The newer one tracks prepared statements, as it does by default.
    pub(crate) fn start_as(version: Tool, mode: Mode, server: &Server, connections: usize) -> Self {
        let port = Port::reserve();
        let number = port.number;
        let folder = server.socket().parent().unwrap().to_owned();
        let file = folder.join(format!("pgbouncer-{number}.ini"));
        let mode = format!("{mode:?}").to_lowercase();
        let settings = format!(
            "[databases]\n\
             app = host={} user=postgres\n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\n\
             listen_port = {number}\n\
             unix_socket_dir =\n\
             auth_type = any\n\
             pool_mode = {mode}\n\
             default_pool_size = {connections}\n\
             ignore_startup_parameters = extra_float_digits\n",
            folder.display()
        );
        fs::write(&file, settings).unwrap();
        let mut guard = server.command("sh");
        guard.args(["-c", "\"$@\" 2>\"pgbouncer-$0.log\" & read end; kill -9 $!", &number.to_string()]);
        guard.args(version.program().unwrap()).arg(&file);
        let guard = guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn();
        let pooler = Self { port, guard: guard.unwrap() };
        eventually("the pooler answers", || Sql::try_connect(&pooler.url("")).is_some());
        pooler
    }

    /// The database `app` behind it, with these parameters.
    pub(crate) fn url(&self, parameters: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/app?sslmode=disable{parameters}", self.port.number)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}
