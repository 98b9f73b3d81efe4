//! `clock`: enqueues jobs at scheduled times.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use roster::db::Db;
use roster::jobs::clock;
use roster::lifecycle::block_on;
use roster::resources::{operations, schedules};
use roster::server::{self, Server};

#[path = "process/mod.rs"]
mod process;

/// Enqueues jobs at scheduled times until SIGTERM; several clocks enqueue each job once. It is configured by environment
/// variables alone, which --help lists, and serves /livez, /readyz, /metrics and /version on PORT.
#[derive(Parser)]
#[command(name = "clock", version, after_long_help = process::help())]
pub(crate) struct Arguments;

pub(crate) fn main() -> ExitCode {
    Arguments::parse();
    process::exit_code("clock", block_on(run()))
}

async fn run() -> anyhow::Result<ExitCode> {
    let config = &process::config()?.single_threaded();
    process::run(config, async |stop, dropped_lines| {
        let db = Db::open(config);
        let server =
            Server { config, application: operations().into(), db: db.clone(), collectors: vec![dropped_lines] };
        let schedules = schedules(config);
        let work = async |stop: &_| clock::run(&db, &schedules, stop).await;
        server.run_beside(server::bind(config)?, stop, work).await.context("the server failed")?;
        Ok(0)
    })
    .await
}
