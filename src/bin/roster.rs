//! Both programs in one, which share most of their code: an image holds this one under both names, and is half as large.

use std::env;
use std::path::Path;
use std::process::ExitCode;

#[path = "migrate.rs"]
mod migrate;
#[path = "web.rs"]
mod web;

/// Whichever it is called by.
fn main() -> ExitCode {
    let path = env::args_os().next().unwrap_or_default();
    match Path::new(&path).file_name() {
        Some(name) if name == "migrate" => migrate::main(),
        _ => web::main(),
    }
}
