//! `migrate`: one-off admin tasks, from the same release and the same configuration as `web`.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Parser, Subcommand};
use roster::config::Config;
use roster::db::migrations::{self, Limits, Run, State, Status};
use roster::db::{Db, Session};
use roster::lifecycle::{Signal, Signals, Stop, block_on};
use roster::listing::import::Import;
use roster::listing::{Seeded, Table};
use roster::resources::{self, REQUIRED_SCHEMA, SAMPLE, TABLES};
use roster::telemetry;
use tokio_util::sync::CancellationToken;

#[path = "migrate/bad_rows.rs"]
mod bad_rows;
#[path = "migrate/down.rs"]
mod down;
#[path = "migrate/files.rs"]
mod files;
#[path = "migrate/jobs.rs"]
mod jobs;
#[path = "migrate/progress.rs"]
mod progress;
#[path = "migrate/report.rs"]
mod report;

use files::FileFormat;
use progress::Progress;
use report::{Failure, counted, print};

/// Manages the database of DATABASE_URL.
///
/// Results go to standard output, and log lines to standard error. `web --help` lists the variables.
#[derive(Parser)]
#[command(name = "migrate", version, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: AnyCommand,
}

#[derive(Subcommand)]
enum AnyCommand {
    #[command(flatten)]
    OnDatabase(Command),
    /// Shows, repeats and discards jobs of the queue
    #[command(subcommand)]
    Jobs(jobs::Command),
    /// Prints the number of this release's newest migration; reads no configuration and no database
    Latest,
}

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    not confirmed, or a job was not found
  2    the command line is wrong, or lacks --yes; or no command is given
  3    `status --exit-code`: a migration is pending
  4    `status --exit-code`: a migration was interrupted
  5    `status --exit-code`: a migration was modified after it was applied
  6    `status --exit-code`: a newer release applied a migration; none of 3 to 5 applies
  65   rows of the file cannot be imported; nothing was
  66   the file cannot be read
  69   the database is unreachable, or a lock was not released in time: run it again; or it is read-only: see the message
  70   a migration failed, or the ledger does not match this release; the message has the fix
  71   any other error of the database or the system
  74   the result cannot be written
  75   the schema is older than this release; run `migrate up` first
  78   the configuration is not valid
  130  stopped by SIGINT; the message states if a statement may have taken effect
  141  the reader of the output has ended, such as `head`
  143  stopped by SIGTERM; the message states if a statement may have taken effect";

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
    ///
    /// On a terminal, it shows the SQL and the number of rows, and asks for confirmation. Otherwise it needs --yes.
    Down {
        /// Revert every migration above this one; 0 reverts all
        #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(i64).range(0..=migrations::LATEST))]
        to: Option<i64>,
        /// Do not ask for confirmation
        #[arg(long)]
        yes: bool,
        /// Print the SQL and change nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        wait: LockTimeout,
    },
    /// Shows the state of each migration, with times in UTC
    Status {
        /// Print a JSON array
        #[arg(long)]
        json: bool,
        /// Exit with the code of the most serious state: 5 modified, 4 interrupted, 3 pending, 6 newer, or else 0
        #[arg(long)]
        exit_code: bool,
    },
    /// Inserts sample rows; a second run changes nothing
    Seed {
        /// The number of samples
        #[arg(value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
        count: u32,
    },
    /// Inserts the rows of a file, all or none
    Import {
        /// A CSV file with a header, or NDJSON, in UTF-8; - is standard input
        ///
        /// Its columns are those of the table. An id may be absent; then the database chooses it. CSV is separated by commas,
        /// semicolons or tabs. White space around a text is removed.
        file: PathBuf,
        /// The file's format, where its name does not end with .csv, .ndjson or .jsonl
        #[arg(long)]
        format: Option<FileFormat>,
        /// Leave out the rows that cannot be imported, instead of importing none
        #[arg(long)]
        skip_bad: bool,
        /// Write all rows that cannot be imported to a file, with their lines and reasons; otherwise only the first 100 are listed
        #[arg(long, value_name = "FILE")]
        bad_rows: Option<PathBuf>,
        #[command(flatten)]
        table: TableName,
    },
    /// Writes all rows of a table to a file
    Export {
        /// The file; - is standard output
        ///
        /// A regular file is replaced once the export is complete, and keeps its mode and owner. A FIFO or a device is written
        /// directly.
        file: PathBuf,
        /// The file's format, where its name does not end with .csv, .ndjson or .jsonl
        #[arg(long)]
        format: Option<FileFormat>,
        #[command(flatten)]
        table: TableName,
    },
}

#[derive(clap::Args)]
struct TableName {
    /// The table
    #[arg(long = "table", value_name = "TABLE", default_value = TABLES.first().map(|table| table.name), value_parser = PossibleValuesParser::new(TABLES.iter().map(|table| table.name)))]
    name: String,
}

impl TableName {
    fn find(&self) -> &'static Table {
        TABLES.iter().find(|table| table.name == self.name).expect("the parser accepts the names of tables alone")
    }
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

/// Whether a command did all that it was asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Complete,
    /// A signal ended it before.
    Stopped,
    /// Complete; the exit code reports a state.
    Reported(u8),
}

pub(crate) fn main() -> ExitCode {
    let command = Arguments::parse().command;
    let done = block_on(async {
        match command {
            AnyCommand::OnDatabase(command) => run(on_database(command)).await,
            AnyCommand::Jobs(command) => run(async |config, _| manage_jobs(command, config).await).await,
            AnyCommand::Latest => print(migrations::LATEST).await.map(|()| ExitCode::SUCCESS).map_err(Failure::from),
        }
    });
    done.unwrap_or_else(|Failure(code, message)| {
        if !message.is_empty() && telemetry::accepts_line(&io::stderr()) {
            // `eprintln` would panic if standard error cannot be written.
            let _ = writeln!(io::stderr(), "migrate: {message}");
        }
        ExitCode::from(code)
    })
}

/// Runs a command on a session of its own.
fn on_database(command: Command) -> impl AsyncFnOnce(&Config, &CancellationToken) -> Result<End, Failure> {
    async |config, stop| {
        if let Command::Down { yes: false, dry_run: false, .. } = command {
            down::check_terminal()?;
        }
        let mut session = Session::open(&config.database_url, stop).await?;
        let done = perform(command, &mut session, stop).await;
        session.close().await;
        done
    }
}

async fn manage_jobs(command: jobs::Command, config: &Config) -> Result<End, Failure> {
    jobs::perform(command, &Db::open(config)).await.map(|()| End::Complete)
}

/// Runs a task until its end, or until a signal stops it.
async fn run(task: impl AsyncFnOnce(&Config, &CancellationToken) -> Result<End, Failure>) -> Result<ExitCode, Failure> {
    let config = Config::from_env()?;
    telemetry::to_stderr(&config);
    let mut signals = Signals::install().map_err(|error| Failure::new(71, &error))?;
    let stop = Stop::default();
    let limit = Duration::from_millis(config.shutdown_timeout_ms.get());
    let (outcome, signal) = signals.run(&stop, stop.bounded(limit, task(&config, stop.token()))).await;
    // What a signal stopped ends with the signal's code, whatever its error is.
    let stopped = |code| signal.map_or(code, Signal::exit_code);
    match outcome.flatten() {
        Some(Ok(End::Complete)) => Ok(ExitCode::SUCCESS),
        Some(Ok(End::Reported(code))) => Ok(ExitCode::from(code)),
        Some(Ok(End::Stopped)) => Ok(ExitCode::from(stopped(1))),
        Some(Err(Failure(code, message))) => Err(Failure(stopped(code), message)),
        None => {
            let message = "stopped before the database answered a statement; it may have taken effect or not: see `migrate status`";
            Err(Failure::new(stopped(1), &message))
        }
    }
}

async fn perform(command: Command, session: &mut Session, stop: &CancellationToken) -> Result<End, Failure> {
    match command {
        Command::Up { to, dry_run: true, .. } => {
            print_sql(&migrations::pending(session, to, Limits::new(stop)).await?).await?;
        }
        Command::Up { to, dry_run: false, wait } => {
            let run = migrations::up(session, to, wait.limits(stop)).await?;
            print(format_args!("{} applied", migrations_of(&run))).await?;
            return Ok(ended(run.stopped));
        }
        Command::Down { to, dry_run: true, .. } => {
            print_sql(&migrations::applied(session, to, Limits::new(stop)).await?).await?;
        }
        Command::Down { to, yes, dry_run: false, wait } => {
            let confirmed = if yes { None } else { Some(down::confirm(session, to, stop).await?) };
            let run = migrations::down(session, to, confirmed.as_deref(), wait.limits(stop)).await?;
            print(format_args!("{} reverted", migrations_of(&run))).await?;
            return Ok(ended(run.stopped));
        }
        Command::Status { json, exit_code } => {
            let migrations = migrations::status(session, Limits::new(stop)).await?;
            print_status(&migrations, json).await?;
            if exit_code {
                return Ok(End::Reported(code_of(&migrations)));
            }
        }
        Command::Seed { count } => return seed(session, count, stop).await,
        Command::Import { file, format, skip_bad, bad_rows, table } => {
            let format = files::format_of(&file, format)?;
            require_schema(session, stop).await?;
            let import = Import { table: table.find(), format, skip_bad };
            files::import(session, import, file, bad_rows, stop).await?;
        }
        Command::Export { file, format, table } => {
            let format = files::format_of(&file, format)?;
            require_schema(session, stop).await?;
            files::export(session, table.find(), file, format, stop).await?;
        }
    }
    Ok(End::Complete)
}

async fn print_sql(migrations: &[(i64, &str, String)]) -> Result<(), Failure> {
    for (version, name, sql) in migrations {
        print(format_args!("-- {version} {name}\n{sql}")).await?;
    }
    Ok(())
}

async fn seed(session: &mut Session, count: u32, stop: &CancellationToken) -> Result<End, Failure> {
    require_schema(session, stop).await?;
    let mut progress = Progress::new("samples", Some(count.into()));
    let mut last = Seeded::default();
    let seeded = resources::seed(session, count as usize, stop, |seeded| {
        last = seeded;
        progress.bar().set_position(seeded.processed);
        progress.at(seeded.processed, None);
    });
    let seeded = seeded.await;
    progress.end();
    let how_to_continue = format!(
        "this run processed {} of {} and inserted {}; run `migrate seed {count}` again to continue",
        last.processed,
        counted(count.into(), SAMPLE),
        last.inserted
    );
    match seeded {
        Err(error) => {
            let Failure(code, message) = error.into();
            Err(Failure(code, format!("{message}; {how_to_continue}")))
        }
        Ok(Seeded { processed, .. }) if processed < u64::from(count) => {
            print(format_args!("stopped: {how_to_continue}")).await?;
            Ok(End::Stopped)
        }
        Ok(_) => {
            print(format_args!("{} in place", counted(count.into(), SAMPLE))).await?;
            Ok(End::Complete)
        }
    }
}

const fn ended(stopped: bool) -> End {
    if stopped { End::Stopped } else { End::Complete }
}

fn migrations_of(run: &Run) -> String {
    match &*run.done {
        [] if run.stopped => "stopped by a signal: no migration".to_owned(),
        [] => "nothing to do: no migration".to_owned(),
        [one] => format!("migration {one}"),
        [first, .., last] => format!("migrations {first} to {last}"),
    }
}

async fn print_status(migrations: &[Status], json: bool) -> Result<(), Failure> {
    if json {
        return Ok(print(serde_json::to_string(migrations).map_err(io::Error::from)?).await?);
    }
    for Status { version, name, state, applied_at } in migrations {
        let state = match state {
            State::Applied => "applied",
            State::Pending => "pending",
            State::Interrupted => "interrupted: run `migrate up` to finish it",
            State::Modified => "modified after it was applied: restore its file",
            State::Newer => "applied by a newer release",
        };
        let (name, applied_at) = (name.unwrap_or("?"), applied_at.as_deref().unwrap_or_default());
        print(format_args!("{version:04}  {name:<16}  {applied_at:<20}  {state}")).await?;
    }
    Ok(())
}

/// The exit code of the most serious state.
fn code_of(migrations: &[Status]) -> u8 {
    let codes = [(State::Modified, 5), (State::Interrupted, 4), (State::Pending, 3), (State::Newer, 6)];
    let found = codes.into_iter().find(|(state, _)| migrations.iter().any(|migration| migration.state == *state));
    found.map_or(0, |(_, code)| code)
}

async fn require_schema(session: &mut Session, stop: &CancellationToken) -> Result<(), Failure> {
    let applied = migrations::status(session, Limits::new(stop)).await?;
    let ready = applied.iter().any(|line| line.version >= REQUIRED_SCHEMA && line.state != State::Pending);
    if ready {
        return Ok(());
    }
    Err(Failure::new(75, &"the schema is older than this release: run `migrate up` first"))
}
