//! What the processes have in common that run until a signal.

use std::fmt::Display;
use std::process::ExitCode;

use anyhow::Context as _;
use prometheus::core::Collector;
use roster::config::{Config, Problems};
use roster::lifecycle::{Signal, Signals, Stop};
use roster::telemetry;

/// The exit code for a configuration that cannot be used (sysexits.h: EX_CONFIG).
const BAD_CONFIGURATION: u8 = 78;

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
            telemetry.flush();
            outcome.map(|aborted| if aborted == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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

#[expect(clippy::print_stderr, reason = "a process that does not serve has no log")]
pub(crate) fn print_error(name: &str, message: &dyn Display) {
    eprintln!("{name}: {message}");
}
