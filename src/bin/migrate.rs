//! `migrate`: one-off admin tasks, from the same release and the same configuration as `web`.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use roster::admin::sample;
use roster::admin::transfer::{self, Format};
use roster::config::{Config, Problems};
use roster::db::migrations::{self, Limits, State};
use roster::db::{self, REQUIRED_SCHEMA, Session};
use roster::shutdown::{Signal, Signals, Stop};
use roster::telemetry;
use tokio_util::sync::CancellationToken;

/// Looks after the database that DATABASE_URL names. Without a command it does `up`.
///
/// Results go to standard output, and log lines to standard error.
#[derive(Parser)]
#[command(name = "migrate", version, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  2    the command line is wrong
  65   rows of the file cannot be imported; nothing was
  66   the file cannot be read
  69   the database cannot be reached, or a lock was not released in time; run it again
  70   a migration failed, or the history is not this release's; the message says what to do
  71   any other error of the database or the system
  74   the result cannot be written
  75   the schema is older than this release; run `migrate up` first
  78   the configuration is not valid
  130  stopped by SIGINT, between two statements
  143  stopped by SIGTERM, between two statements";

#[derive(Subcommand)]
enum Command {
    /// Applies pending migrations; safe to run any number of times, and by several processes at once
    Up {
        /// The last migration to apply
        #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(i64).range(1..=migrations::LATEST))]
        to: Option<i64>,
        /// Print the SQL and change nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        wait: LockTimeout,
    },
    /// Reverts the last migration, with its data
    Down {
        /// Revert every migration above this one; 0 reverts all
        #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(i64).range(0..=migrations::LATEST))]
        to: Option<i64>,
        #[command(flatten)]
        wait: LockTimeout,
    },
    /// Shows where each migration stands
    Status {
        /// Print a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Inserts sample users and their friendships; a second run changes nothing
    Seed {
        /// How many; the first two are admin and guest
        #[arg(value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
        count: u32,
    },
    /// Inserts the users of a file, all or none
    Import {
        /// A CSV file with a header, or NDJSON; columns username, email, and id if it is to be kept; - is standard input
        file: PathBuf,
        /// The file's format, where its extension does not tell
        #[arg(long)]
        format: Option<FileFormat>,
        /// Leave out the rows that cannot be imported, instead of importing none
        #[arg(long)]
        skip_bad: bool,
    },
    /// Writes all users to a file
    Export {
        /// The file, which is replaced once it is complete; - is standard output
        file: PathBuf,
        /// The file's format, where its extension does not tell
        #[arg(long)]
        format: Option<FileFormat>,
    },
}

#[derive(clap::Args)]
struct LockTimeout {
    /// The longest wait for a lock that another session holds, from 1 to 86400
    #[arg(long, value_name = "SECONDS", default_value_t = Limits::LOCK_TIMEOUT_SECONDS.into(), value_parser = clap::value_parser!(u32).range(1..=86_400))]
    lock_timeout: u32,
}

impl LockTimeout {
    fn limits(self, stop: &CancellationToken) -> Limits<'_> {
        Limits { stop, lock_timeout: Duration::from_secs(self.lock_timeout.into()) }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum FileFormat {
    Csv,
    Ndjson,
}

/// An error and the exit code that goes with it.
struct Failure(u8, String);

impl Failure {
    fn new(code: u8, message: &dyn Display) -> Self {
        Self(code, message.to_string())
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::new(78, &problems)
    }
}

impl From<db::Error> for Failure {
    fn from(error: db::Error) -> Self {
        let code = match error {
            db::Error::Schema(_) => 75,
            db::Error::Pooler => 78,
            _ if error.is_transient() => 69,
            _ => 71,
        };
        Self::new(code, &error)
    }
}

impl From<migrations::Error> for Failure {
    fn from(error: migrations::Error) -> Self {
        let code = match error {
            migrations::Error::Database(error) => return error.into(),
            migrations::Error::Interrupted { .. } | migrations::Error::LockTimeout { .. } => 69,
            _ => 70,
        };
        Self::new(code, &error)
    }
}

impl From<transfer::Error> for Failure {
    fn from(error: transfer::Error) -> Self {
        let code = match error {
            transfer::Error::Database(error) => return error.into(),
            transfer::Error::Header(_) | transfer::Error::BadRows { .. } => 65,
            transfer::Error::Read(_) => 66,
            transfer::Error::Write(_) => 74,
            transfer::Error::Stopped => 71,
        };
        Self::new(code, &error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(74, &format_args!("cannot write: {error}"))
    }
}

/// Whether a command did all that it was asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Complete,
    /// A signal ended it before.
    Stopped,
}

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stderr, reason = "an error of a command goes to the standard error stream")]
pub(crate) async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let wait = LockTimeout { lock_timeout: Limits::LOCK_TIMEOUT_SECONDS.into() };
    let command = arguments.command.unwrap_or(Command::Up { to: None, dry_run: false, wait });
    run(command).await.unwrap_or_else(|Failure(code, message)| {
        eprintln!("migrate: {message}");
        ExitCode::from(code)
    })
}

/// Runs a command until its end, or until a signal stops it.
async fn run(command: Command) -> Result<ExitCode, Failure> {
    let config = Config::from_env()?;
    telemetry::to_stderr(&config);
    let mut signals = Signals::install().map_err(|error| Failure::new(71, &error))?;
    let stop = Stop::default();
    let task = async {
        let mut session = Session::open(&config.database_url, stop.token()).await?;
        let done = perform(command, &mut session, stop.token()).await;
        session.close().await;
        done
    };
    let limit = Duration::from_millis(config.shutdown_timeout_ms.get());
    let (outcome, signal) = signals.run(&stop, stop.bounded(limit, task)).await;
    // What a signal stopped ends with the signal's code, whatever its error is.
    let stopped = |code| signal.map_or(code, Signal::exit_code);
    match outcome.flatten() {
        Some(Ok(End::Complete)) => Ok(ExitCode::SUCCESS),
        Some(Ok(End::Stopped)) => Ok(ExitCode::from(stopped(1))),
        Some(Err(Failure(code, message))) => Err(Failure(stopped(code), message)),
        None => {
            let message = "stopped before the database answered a statement; it may have taken effect or not: see `migrate status`";
            Err(Failure::new(stopped(1), &message))
        }
    }
}

async fn perform(command: Command, session: &mut Session, stop: &CancellationToken) -> Result<End, Failure> {
    let mut end = End::Complete;
    match command {
        Command::Up { to, dry_run: true, .. } => {
            for (version, name, sql) in migrations::pending(session, to).await? {
                print(format_args!("-- {version} {name}\n{sql}"))?;
            }
        }
        Command::Up { to, dry_run: false, wait } => {
            let run = migrations::up(session, to, wait.limits(stop)).await?;
            print(format_args!("{} applied", migrations_of(&run.done)))?;
            end = ended(run.stopped);
        }
        Command::Down { to, wait } => {
            let run = migrations::down(session, to, wait.limits(stop)).await?;
            print(format_args!("{} reverted", migrations_of(&run.done)))?;
            end = ended(run.stopped);
        }
        Command::Status { json } => status(session, json).await?,
        Command::Seed { count } => {
            require_schema(session).await?;
            let mut progress = Progress::new("users", Some(u64::from(count)));
            let done = sample::seed(session, count as usize, stop, |done| progress.at(done as u64)).await?;
            progress.end();
            print(format_args!("{done} sample users in place"))?;
            end = ended(done < count as usize);
        }
        Command::Import { file, format, skip_bad } => {
            let format = format_of(&file, format)?;
            require_schema(session).await?;
            import(session, &file, format, skip_bad, stop).await?;
        }
        Command::Export { file, format } => {
            let format = format_of(&file, format)?;
            require_schema(session).await?;
            export(session, &file, format, stop).await?;
        }
    }
    Ok(end)
}

const fn ended(stopped: bool) -> End {
    if stopped { End::Stopped } else { End::Complete }
}

/// A result on standard output, whose reader may be gone.
fn print(line: impl Display) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}

fn migrations_of(versions: &[i64]) -> String {
    match versions {
        [] => "nothing to do: no migration".to_owned(),
        [one] => format!("migration {one}"),
        [first, .., last] => format!("migrations {first} to {last}"),
    }
}

async fn status(session: &mut Session, json: bool) -> Result<(), Failure> {
    let lines = migrations::status(session).await?;
    if json {
        return Ok(print(serde_json::to_string(&lines).map_err(io::Error::from)?)?);
    }
    for line in lines {
        let state = match line.state {
            State::Applied => "applied",
            State::Pending => "pending",
            State::Interrupted => "interrupted: run `migrate up` to finish it",
            State::Modified => "modified after it was applied: restore its file",
            State::Newer => "applied by a newer release",
        };
        let name = line.name.unwrap_or("?");
        print(format_args!("{:04}  {name:<12}  {:<19}  {state}", line.version, line.applied_at.unwrap_or_default()))?;
    }
    Ok(())
}

async fn require_schema(session: &mut Session) -> Result<(), Failure> {
    let applied = migrations::status(session).await?;
    let ready = applied.iter().any(|line| line.version >= REQUIRED_SCHEMA && line.state != State::Pending);
    if ready {
        return Ok(());
    }
    Err(Failure::new(75, &"the schema is older than this release: run `migrate up` first"))
}

fn format_of(file: &Path, format: Option<FileFormat>) -> Result<Format, Failure> {
    match (format, file.extension().and_then(|extension| extension.to_str())) {
        (Some(FileFormat::Csv), _) | (None, Some("csv")) => Ok(Format::Csv),
        (Some(FileFormat::Ndjson), _) | (None, Some("ndjson" | "jsonl")) => Ok(Format::Ndjson),
        (None, _) => {
            Err(Failure::new(2, &"the file's name does not tell its format: pass --format csv or --format ndjson"))
        }
    }
}

fn is_standard(file: &Path) -> bool {
    file.as_os_str() == "-"
}

async fn import(
    session: &mut Session,
    file: &Path,
    format: Format,
    skip_bad: bool,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let input: Box<dyn io::Read> = if is_standard(file) {
        Box::new(io::stdin())
    } else {
        let opened = File::open(file);
        Box::new(opened.map_err(|error| Failure::new(66, &format_args!("cannot open {}: {error}", file.display())))?)
    };
    let mut progress = Progress::new("rows", None);
    let bar = progress.bar.clone();
    let tell_bad = |line, reason: &str| {
        bar.suspend(|| {
            // A bad row is told where errors are; when even that is gone, the exit code still tells.
            let _ = writeln!(io::stderr(), "line {line}: {reason}");
        });
    };
    let done = transfer::import(session, input, format, skip_bad, stop, tell_bad, |rows| progress.at(rows)).await?;
    progress.end();
    print(format_args!("{} users imported, {} rows left out", done.users, done.bad))?;
    Ok(())
}

async fn export(session: &mut Session, file: &Path, format: Format, stop: &CancellationToken) -> Result<(), Failure> {
    if is_standard(file) {
        transfer::export(session, io::stdout(), format, stop).await?;
        return Ok(());
    }
    // Written beside its place and moved there when it is whole, so that nobody ever sees a part of it.
    let mut partial = file.as_os_str().to_owned();
    partial.push(".partial");
    let partial = Path::new(&partial);
    let written = async {
        let output = File::create(partial)
            .map_err(|error| Failure::new(74, &format_args!("cannot create {}: {error}", partial.display())))?;
        let count = transfer::export(session, &output, format, stop).await?;
        output.sync_all()?;
        std::fs::rename(partial, file)?;
        Ok::<_, Failure>(count)
    };
    match written.await {
        Ok(count) => Ok(print(format_args!("{count} users exported"))?),
        Err(failure) => {
            // There may be none; then there is nothing to remove.
            let _ = std::fs::remove_file(partial);
            Err(failure)
        }
    }
}

/// How far a task is: a bar on a terminal, a log line now and then elsewhere.
struct Progress {
    bar: ProgressBar,
    total: Option<u64>,
    unit: &'static str,
    told: Instant,
}

impl Progress {
    fn new(unit: &'static str, total: Option<u64>) -> Self {
        let bar = match total {
            _ if !io::stderr().is_terminal() => ProgressBar::hidden(),
            Some(total) => ProgressBar::new(total).with_style(
                ProgressStyle::with_template("{bar:40} {human_pos} of {human_len} {msg}, {eta} left")
                    .unwrap_or_else(|_| ProgressStyle::default_bar()),
            ),
            None => ProgressBar::new_spinner(),
        };
        Self { bar: bar.with_message(unit), total, unit, told: Instant::now() }
    }

    fn at(&mut self, done: u64) {
        const EVERY: Duration = Duration::from_secs(2);
        self.bar.set_position(done);
        if self.bar.is_hidden() && self.told.elapsed() >= EVERY {
            self.told = Instant::now();
            tracing::info!(done, total = self.total, unit = self.unit, "progress");
        }
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}
