//! `web`: serves HTTP, asks a running server how it is, or checks the configuration.

use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use roster::admin::sample;
use roster::config::Config;
use roster::db::{Db, Session, migrations, users};
use roster::shutdown::{Signal, Signals};
use roster::{server, telemetry};
use tokio::net::TcpSocket;
use tokio_util::sync::CancellationToken;

/// The exit code for a configuration that cannot be used (sysexits.h: EX_CONFIG).
const BAD_CONFIGURATION: u8 = 78;
/// How many connections may wait to be accepted; the standard library's 128 are few for a burst.
const BACKLOG: u32 = 1024;
/// The longest that a health check waits for the server.
const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// Lists users from a database, over HTTP. Configured by environment variables alone; without a
/// command, it serves.
#[derive(Parser)]
#[command(name = "web", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Asks the running server's /readyz; exits 0 when it is ready, and 1 when not.
    Healthcheck,
    /// Validates the configuration and prints it, secrets hidden; exits 0, or 78 with every problem.
    Check,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(problems) => return fail(&problems, BAD_CONFIGURATION),
    };
    let outcome = match arguments.command {
        Some(Command::Check) => {
            print(&config);
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Healthcheck) => healthcheck(&config),
        None => serve(&config).await,
    };
    outcome.unwrap_or_else(|error| fail(&format_args!("{error:#}"), 1))
}

async fn serve(config: &Config) -> anyhow::Result<ExitCode> {
    telemetry::to_stdout(config);
    let mut signals = Signals::install().context("cannot handle signals")?;
    let stop = CancellationToken::new();
    let task = async {
        prepare(config, &stop).await?;
        if stop.is_cancelled() {
            return Ok(());
        }
        let listener = bind(config)?;
        let db = Db::open(config);
        let watch = watch(db.clone(), stop.clone());
        let serve = server::run(config, db, listener, stop.clone());
        tokio::join!(watch, serve).1.context("the server failed")
    };
    // On the heap: all of start-up is in this future.
    match signals.run(&stop, Box::pin(task)).await {
        (Some(outcome), _) => outcome.map(|()| ExitCode::SUCCESS),
        (None, signal) => Ok(ExitCode::from(signal.map_or(1, Signal::exit_code))),
    }
}

/// Applies migrations and inserts sample users, where the configuration asks for it.
async fn prepare(config: &Config, stop: &CancellationToken) -> anyhow::Result<()> {
    if !config.auto_migrate && config.auto_seed == 0 {
        return Ok(());
    }
    let mut session = Session::open(&config.database_url).await?;
    if config.auto_migrate {
        migrations::up(&mut session, None, stop).await.context("AUTO_MIGRATE")?;
    }
    if config.auto_seed > 0 && users::is_empty(&mut session).await.context("AUTO_SEED")? {
        let count = sample::seed(&mut session, config.auto_seed as usize, stop, |_| {}).await.context("AUTO_SEED")?;
        tracing::info!(count, "sample users inserted");
    }
    session.close().await;
    Ok(())
}

/// The listening socket, before anything says that it serves.
fn bind(config: &Config) -> anyhow::Result<TcpListener> {
    let address = SocketAddr::new(config.host, config.port);
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // Without it, the connections of a former process would keep the port for a minute.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)?.into_std()
    };
    let listener = listen().map_err(|error| {
        let advice = match error.kind() {
            ErrorKind::AddrInUse => "another program has this port; set PORT to a free one, or to 0 for any",
            ErrorKind::PermissionDenied => "ports below 1024 are for privileged processes; set PORT to a higher one",
            ErrorKind::AddrNotAvailable => "HOST is no address of this machine",
            _ => "set HOST and PORT",
        };
        anyhow::anyhow!("cannot listen on {address}: {error}: {advice}")
    })?;
    let address = listener.local_addr()?;
    tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "serving at http://localhost:{}", address.port());
    Ok(listener)
}

/// Logs when the database can be served from, or why not yet.
async fn watch(db: Db, stop: CancellationToken) {
    let mut told = None;
    let watch = async {
        loop {
            match db.ready().await {
                Ok(()) => break tracing::info!("ready"),
                Err(unready) => {
                    let reason = unready.to_string();
                    if told.as_ref() != Some(&reason) {
                        tracing::warn!(reason, "not ready");
                        told = Some(reason);
                    }
                }
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        () = watch => {}
        () = stop.cancelled() => {}
    }
}

#[expect(clippy::print_stdout, reason = "the configuration is what the command was asked for")]
fn print(config: &Config) {
    print!("{config}");
}

/// One request over a plain socket: an image without a shell has no curl either.
fn healthcheck(config: &Config) -> anyhow::Result<ExitCode> {
    let host = match config.host {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        host => host,
    };
    anyhow::ensure!(config.port != 0, "PORT is 0, so the server's port is known from its log alone; set PORT");
    let address = SocketAddr::new(host, config.port);
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, HEALTHCHECK_TIMEOUT)?;
        stream.set_read_timeout(Some(HEALTHCHECK_TIMEOUT))?;
        write!(stream, "GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut status = String::new();
        BufReader::new(stream).read_line(&mut status)?;
        Ok(status)
    };
    let status = ask().with_context(|| format!("no answer from {address}"))?;
    anyhow::ensure!(status.starts_with("HTTP/1.1 200 "), "not ready: {}", status.trim_end());
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stderr, reason = "a process that cannot start has no log yet")]
fn fail(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    eprintln!("web: {error}");
    ExitCode::from(code)
}
