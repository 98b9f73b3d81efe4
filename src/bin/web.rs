//! `web`: serves HTTP, checks the health of a running server, checks the configuration, or makes a token.

use std::fmt::Display;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::{Parser, Subcommand};
use roster::config::{ApiTokens, Config, Host};
use roster::db::migrations::{self, Limits};
use roster::db::{Db, Session};
use roster::lifecycle::block_on;
use roster::resources;
use roster::server::{self, Server};
use tokio_util::sync::CancellationToken;

#[path = "process/output.rs"]
mod output;
#[path = "process/mod.rs"]
mod process;

/// The longest that a health check waits for the server.
const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// The HTTP server. It is configured by environment variables alone, which --help lists. Without a command, it serves.
#[derive(Parser)]
#[command(name = "web", version, after_long_help = process::help())]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Requests the running server's /readyz; exits 0 when it is ready, and 1 when not.
    Healthcheck {
        /// Request /livez instead, which does not depend on the database
        #[arg(long)]
        live: bool,
    },
    /// Generates a token for a client. Prints it, and its `name:sha256` pair for API_TOKENS.
    Token {
        /// The name of the client in the log: letters, digits, dots, hyphens and underscores
        name: String,
    },
    /// Validates the configuration and prints it, secrets hidden; exits 0, or 78 with every problem.
    Check,
}

pub(crate) fn main() -> ExitCode {
    let command = Arguments::parse().command;
    process::exit_code("web", block_on(run(command)))
}

async fn run(command: Option<Command>) -> anyhow::Result<ExitCode> {
    let config = process::config;
    match command {
        Some(Command::Token { name }) => token(&name).await,
        Some(Command::Check) => check(&config()?).await,
        Some(Command::Healthcheck { live }) => healthcheck(&config()?, live),
        None => serve(&config()?).await,
    }
}

async fn serve(config: &Config) -> anyhow::Result<ExitCode> {
    process::run(config, async |stop, dropped_lines| {
        let limit = Duration::from_millis(config.shutdown_timeout_ms.get());
        let prepared = stop.bounded(limit, prepare(config, stop.token())).await;
        if stop.token().is_cancelled() {
            tracing::info!("stopped before serving");
            return Ok(0);
        }
        prepared.transpose()?;
        let listener = server::bind(config)?;
        let application = resources::application(config).into();
        let server = Server { config, application, db: Db::open(config), collectors: vec![dropped_lines] };
        server.run(listener, stop.clone()).await.context("the server failed")
    })
    .await
}

/// Applies migrations and inserts samples, where the configuration asks for it.
async fn prepare(config: &Config, stop: &CancellationToken) -> anyhow::Result<()> {
    if !config.auto_migrate && config.auto_seed == 0 {
        return Ok(());
    }
    let mut session = Session::open(&config.database_url, stop).await?;
    if config.auto_migrate {
        migrations::up(&mut session, None, Limits::new(stop)).await.map_err(named("AUTO_MIGRATE"))?;
    }
    if config.auto_seed > 0 && resources::is_empty(&mut session).await.map_err(named("AUTO_SEED"))? {
        let seeded = resources::seed(&mut session, config.auto_seed as usize, stop, |_| {}).await;
        let count = seeded.map_err(named("AUTO_SEED"))?.inserted;
        tracing::info!(count, "samples inserted");
    }
    session.close().await;
    Ok(())
}

/// Names the variable that an error is about. The message of the error has its causes already.
fn named<E: Display>(variable: &str) -> impl Fn(E) -> anyhow::Error {
    move |error| anyhow::anyhow!("{variable}: {error}")
}

/// Prints the result of a command. When its reader has ended, the exit code is that of SIGPIPE in a shell.
async fn print(result: impl Display) -> anyhow::Result<ExitCode> {
    match output::print(result).await {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::from(output::READER_ENDED)),
        printed => printed.map(|()| ExitCode::SUCCESS).context("cannot write"),
    }
}

/// Generates a token of 256 random bits. This needs no configuration.
async fn token(name: &str) -> anyhow::Result<ExitCode> {
    let mut bits = [0; 32];
    getrandom::fill(&mut bits).context("the system has no randomness")?;
    let token = BASE64_URL_SAFE_NO_PAD.encode(bits);
    let pair = ApiTokens::pair(name, &token).map_err(anyhow::Error::msg)?;
    print(format_args!(
        "request header of the client:\n  Authorization: Bearer {token}\npair for API_TOKENS of the server:\n  {pair}"
    ))
    .await
}

async fn check(config: &Config) -> anyhow::Result<ExitCode> {
    let code = print(config.to_string().trim_end()).await?;
    for warning in &config.warnings {
        process::print_error("web", &format_args!("warning: {warning}"));
    }
    Ok(code)
}

/// One request over a plain socket: an image without a shell has no curl either.
fn healthcheck(config: &Config, live: bool) -> anyhow::Result<ExitCode> {
    let (path, state) = if live { ("/livez", "live") } else { ("/readyz", "ready") };
    let local: Vec<IpAddr> = match &config.host {
        Host::Address(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => vec![Ipv4Addr::LOCALHOST.into()],
        // The server listens on both families, and a machine may have only one of them.
        Host::Address(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => {
            vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
        }
        host => host.addresses().with_context(|| format!("HOST: cannot resolve {host}"))?,
    };
    anyhow::ensure!(config.port != 0, "PORT is 0, so the server's port is known from its log alone; set PORT");
    let addresses: Vec<_> = local.iter().map(|host| SocketAddr::new(*host, config.port)).collect();
    let connect = |address| TcpStream::connect_timeout(address, HEALTHCHECK_TIMEOUT);
    let request = || -> io::Result<String> {
        let (first, others) = addresses.split_first().expect("there is one at least");
        let connected = others.iter().fold(connect(first), |connected, next| connected.or_else(|_| connect(next)));
        let mut stream = connected?;
        let address = stream.peer_addr()?;
        stream.set_read_timeout(Some(HEALTHCHECK_TIMEOUT))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut status = String::new();
        BufReader::new(stream).read_line(&mut status)?;
        Ok(status)
    };
    let shown = || addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
    let status = request().with_context(|| format!("no response from {}", shown()))?;
    anyhow::ensure!(status.starts_with("HTTP/1.1 200 "), "not {state}: {}", status.trim_end());
    Ok(ExitCode::SUCCESS)
}
