//! All programs in one binary, because they share most of their code. The image has it once, with a link for each program.
//!
//! Called as `exec`, it replaces its process with a command, as the shell builtin does. An image without a
//! shell needs it for the commands of the Procfile.

use std::env;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

#[path = "clock.rs"]
mod clock;
#[path = "migrate.rs"]
mod migrate;
#[path = "web.rs"]
mod web;
#[path = "worker.rs"]
mod worker;

/// Runs the program by whose name it was called, or `web` for any other name.
fn main() -> ExitCode {
    let mut arguments = env::args_os();
    let path = arguments.next().unwrap_or_default();
    match Path::new(&path).file_name().and_then(|name| name.to_str()) {
        Some("clock") => clock::main(),
        Some("migrate") => migrate::main(),
        Some("worker") => worker::main(),
        Some("exec") => exec(arguments),
        _ => web::main(),
    }
}

/// Replaces this process with a command. The exit codes of failures are those of a shell.
#[expect(clippy::print_stderr, reason = "the command has no other output when it does not start")]
fn exec(mut command: env::ArgsOs) -> ExitCode {
    let Some(program) = command.next() else {
        eprintln!("exec: the command is missing");
        return ExitCode::from(2);
    };
    let error = Command::new(&program).args(command).exec();
    eprintln!("exec: {}: {error}", program.display());
    ExitCode::from(if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 })
}
