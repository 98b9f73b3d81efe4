//! `migrate`: one-off admin tasks, from the same release and the same configuration as `web`.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::builder::PossibleValuesParser;
use clap::{Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use roster::config::Config;
use roster::db::migrations::{self, Limits, Run, State};
use roster::db::{Db, Session};
use roster::lifecycle::{Signal, Signals, Stop};
use roster::listing::Table;
use roster::listing::export;
use roster::listing::file::Format;
use roster::listing::import::{self, BadRow, Import};
use roster::listing::output::{self, Place, Replacement, Sink};
use roster::resources::{self, REQUIRED_SCHEMA, SAMPLE, TABLES};
use roster::telemetry;
use tokio_util::sync::CancellationToken;

#[path = "migrate/jobs.rs"]
mod jobs;
#[path = "migrate/report.rs"]
mod report;

use report::{Failure, counted, print};

/// Manages the database of DATABASE_URL. Without a command it does `up`.
///
/// Results go to standard output, and log lines to standard error.
#[derive(Parser)]
#[command(name = "migrate", version, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Option<AnyCommand>,
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
  2    the command line is wrong
  65   rows of the file cannot be imported; nothing was
  66   the file cannot be read
  69   the database is unreachable, or a lock was not released in time: run it again; or it is read-only: see the message
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
    #[arg(long = "table", value_name = "TABLE", default_value = TABLES[0].name, value_parser = PossibleValuesParser::new(TABLES.iter().map(|table| table.name)))]
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

#[derive(Clone, Copy, ValueEnum)]
enum FileFormat {
    Csv,
    Ndjson,
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
    let done = match arguments.command {
        None => run(on_database(Command::Up { to: None, dry_run: false, wait })).await,
        Some(AnyCommand::OnDatabase(command)) => run(on_database(command)).await,
        Some(AnyCommand::Jobs(command)) => run(async |config, _| manage_jobs(command, config).await).await,
        Some(AnyCommand::Latest) => print(migrations::LATEST).await.map(|()| ExitCode::SUCCESS).map_err(Failure::from),
    };
    done.unwrap_or_else(|Failure(code, message)| {
        if telemetry::accepts_line(&io::stderr()) {
            eprintln!("migrate: {message}");
        }
        ExitCode::from(code)
    })
}

/// Runs a command on a session of its own.
fn on_database(command: Command) -> impl AsyncFnOnce(&Config, &CancellationToken) -> Result<End, Failure> {
    async |config, stop| {
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
            for (version, name, sql) in migrations::pending(session, to, Limits::new(stop)).await? {
                print(format_args!("-- {version} {name}\n{sql}")).await?;
            }
        }
        Command::Up { to, dry_run: false, wait } => {
            let run = migrations::up(session, to, wait.limits(stop)).await?;
            print(format_args!("{} applied", migrations_of(&run))).await?;
            end = ended(run.stopped);
        }
        Command::Down { to, wait } => {
            let run = migrations::down(session, to, wait.limits(stop)).await?;
            print(format_args!("{} reverted", migrations_of(&run))).await?;
            end = ended(run.stopped);
        }
        Command::Status { json } => status(session, json, stop).await?,
        Command::Seed { count } => {
            require_schema(session, stop).await?;
            let mut progress = Progress::new("samples", Some(u64::from(count)));
            let done = resources::seed(session, count as usize, stop, |done| progress.at(done as u64)).await?;
            progress.end();
            print(format_args!("{} in place", counted(done as u64, SAMPLE))).await?;
            end = ended(done < count as usize);
        }
        Command::Import { file, format, skip_bad, table } => {
            let format = format_of(&file, format)?;
            require_schema(session, stop).await?;
            import(session, Import { table: table.find(), format, skip_bad }, file, stop).await?;
        }
        Command::Export { file, format, table } => {
            let format = format_of(&file, format)?;
            require_schema(session, stop).await?;
            export(session, table.find(), file, format, stop).await?;
        }
    }
    Ok(end)
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

async fn status(session: &mut Session, json: bool, stop: &CancellationToken) -> Result<(), Failure> {
    let lines = migrations::status(session, Limits::new(stop)).await?;
    if json {
        return Ok(print(serde_json::to_string(&lines).map_err(io::Error::from)?).await?);
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
        print(format_args!("{:04}  {name:<12}  {:<19}  {state}", line.version, line.applied_at.unwrap_or_default()))
            .await?;
    }
    Ok(())
}

async fn require_schema(session: &mut Session, stop: &CancellationToken) -> Result<(), Failure> {
    let applied = migrations::status(session, Limits::new(stop)).await?;
    let ready = applied.iter().any(|line| line.version >= REQUIRED_SCHEMA && line.state != State::Pending);
    if ready {
        return Ok(());
    }
    Err(Failure::new(75, &"the schema is older than this release: run `migrate up` first"))
}

fn format_of(file: &Path, format: Option<FileFormat>) -> Result<Format, Failure> {
    let extension = file.extension().unwrap_or_default();
    match format {
        Some(FileFormat::Csv) => Ok(Format::Csv),
        Some(FileFormat::Ndjson) => Ok(Format::Ndjson),
        None if extension.eq_ignore_ascii_case("csv") => Ok(Format::Csv),
        None if ["ndjson", "jsonl"].iter().any(|known| extension.eq_ignore_ascii_case(known)) => Ok(Format::Ndjson),
        None => Err(Failure::new(2, &"the file's name does not tell its format: pass --format csv or --format ndjson")),
    }
}

fn is_standard(file: &Path) -> bool {
    file.as_os_str() == "-"
}

async fn import(session: &mut Session, what: Import, file: PathBuf, stop: &CancellationToken) -> Result<(), Failure> {
    let mut progress = Progress::new("rows", None);
    let bar = progress.bar.clone();
    let mut errors = Sink::start(|| Ok(AboveBar(bar)))?;
    let report = async |rows: Vec<BadRow>| {
        let lines: Vec<String> = rows.iter().map(|(line, reason)| format!("line {line}: {reason}\n")).collect();
        // When nobody can read it, the exit code still reports it.
        let _ = errors.write(lines.concat().into()).await;
    };
    let open = move || -> io::Result<Box<dyn io::Read>> {
        if is_standard(&file) {
            return Ok(Box::new(io::stdin()));
        }
        let opened = File::open(&file).and_then(|opened| {
            if opened.metadata()?.is_dir() { Err(io::ErrorKind::IsADirectory.into()) } else { Ok(opened) }
        });
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", file.display()));
        Ok(Box::new(opened.map_err(named)?))
    };
    let imported = import::import(session, what, open, stop, report, |rows| progress.at(rows)).await;
    tokio::select! {
        () = stop.cancelled() => {}
        _ = errors.finish() => {}
    }
    progress.end();
    let imported = imported?;
    print(format_args!(
        "{} imported, {} left out",
        counted(imported.rows, what.table.row),
        counted(imported.bad, "row")
    ))
    .await?;
    Ok(())
}

/// Standard error, above a progress bar if there is one.
struct AboveBar(ProgressBar);

impl io::Write for AboveBar {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Meanwhile the bar is locked, and a pipe may block for good.
        if self.0.is_hidden() { io::stderr().write(bytes) } else { self.0.suspend(|| io::stderr().write(bytes)) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn export(
    session: &mut Session,
    table: &'static Table,
    file: PathBuf,
    format: Format,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let cannot_write = |error| Failure::new(74, &format_args!("cannot write {}: {error}", file.display()));
    let place = if is_standard(&file) { Place::Standard } else { Place::of(&file).map_err(cannot_write)? };
    if let Some(database) = session.file().await? {
        place.check_not_database(&database).map_err(cannot_write)?;
    }
    let count = match place {
        Place::Standard => {
            return Ok(export::export(session, table, Sink::standard()?, format, stop).await.map(drop)?);
        }
        Place::Descriptor(path) => {
            let sink = Sink::start(move || output::append(&path))?;
            return Ok(export::export(session, table, sink, format, stop).await.map(drop)?);
        }
        Place::Special(path) => {
            let sink = Sink::start(move || output::append(&path))?;
            export::export(session, table, sink, format, stop).await?
        }
        Place::Regular(path) => {
            let replacement = Replacement::of(path).map_err(cannot_write)?;
            let content = replacement.content()?;
            let count = export::export(session, table, Sink::start(|| Ok(content))?, format, stop).await?;
            replacement.finish().map_err(cannot_write)?;
            count
        }
    };
    print(format_args!("{} exported", counted(count, table.row))).await?;
    Ok(())
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
