//! What the processes have in common that run until a signal.

use std::fmt::{Display, Write as _};
use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use prometheus::core::Collector;
use roster::config::{Config, Problems};
use roster::lifecycle::{Signal, Signals, Stop};
use roster::telemetry;

/// The exit code for a configuration that cannot be used (sysexits.h: EX_CONFIG).
const BAD_CONFIGURATION: u8 = 78;

const EXIT_CODES: &str = "\
Exit codes:
  0    a signal ended the process, and it completed its work; or a command succeeded
  1    work was aborted at SHUTDOWN_TIMEOUT_MS, the server failed, or a command failed
  2    the command line is wrong
  78   the configuration is not valid; each problem is reported
  130  a second SIGINT ended the process immediately
  141  the reader of a command's output has ended, such as `head`
  143  a second SIGTERM ended the process immediately";

/// The end of `--help`: the variables of [`Config::VARIABLES`], and the exit codes.
pub(crate) fn help() -> String {
    /// The width of a line, and how far a meaning is indented.
    const WIDTH: usize = 100;
    const INDENT: &str = "          ";
    let mut help =
        "Environment variables, with their defaults (in milliseconds, if the name ends in _MS):\n".to_owned();
    for variable in Config::VARIABLES {
        let default = variable.default.replace('`', "");
        let default = if default == "–" { String::new() } else { format!(" [{default}]") };
        let _ = write!(help, "  {}{default}", variable.name);
        let mut width = WIDTH;
        for word in variable.meaning.replace('`', "").split(' ') {
            if width + word.len() >= WIDTH {
                let _ = write!(help, "\n{INDENT}{word}");
                width = INDENT.len() + word.len();
            } else {
                let _ = write!(help, " {word}");
                width += 1 + word.len();
            }
        }
        help.push('\n');
    }
    format!("{help}\n{EXIT_CODES}")
}

/// Reads the configuration of a process that serves HTTP.
pub(crate) fn config() -> Result<Config, Problems> {
    Config::from_env().and_then(|config| config.check_server().map(|()| config))
}

/// Runs a task until its end, with logs, traces and signals. The task returns how much it aborted. It also receives the metric
/// of the log.
pub(crate) async fn run(
    config: &Config,
    task: impl AsyncFnOnce(&Stop, Box<dyn Collector>) -> anyhow::Result<usize>,
) -> anyhow::Result<ExitCode> {
    let telemetry = telemetry::to_stdout(config).context("OTEL_EXPORTER_OTLP_ENDPOINT")?;
    let mut signals = Signals::install().context("cannot handle signals")?;
    let stop = Stop::default();
    match signals.run(&stop, task(&stop, telemetry.dropped_lines.collector())).await {
        (Some(outcome), _) => {
            let code = outcome.map(|aborted| if aborted == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
            // The next signal does not wait for the collector of traces.
            tokio::select! {
                _ = tokio::task::spawn_blocking(|| telemetry.flush()) => code,
                signal = signals.next() => code.map(|_| ExitCode::from(signal.exit_code())),
            }
        }
        (None, signal) => Ok(ExitCode::from(signal.map_or(1, Signal::exit_code))),
    }
}

/// The exit code of the process with this name. Prints an error.
pub(crate) fn exit_code(name: &str, outcome: anyhow::Result<ExitCode>) -> ExitCode {
    outcome.unwrap_or_else(|error| {
        let code = if error.is::<Problems>() { BAD_CONFIGURATION } else { 1 };
        print_error(name, &format_args!("{error:#}"));
        ExitCode::from(code)
    })
}

/// Prints an error. `eprintln` would panic if standard error cannot be written.
pub(crate) fn print_error(name: &str, message: &dyn Display) {
    let _ = writeln!(io::stderr(), "{name}: {message}");
}
