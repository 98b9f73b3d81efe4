//! `worker`: runs jobs from the queue.

use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use roster::db::Db;
use roster::jobs::{Metrics, Worker};
use roster::lifecycle::block_on;
use roster::resources::{JOBS, JobContext, operations};
use roster::server::{self, Server};
use tokio::task::LocalSet;

#[path = "process/mod.rs"]
mod process;

/// Runs jobs from the queue until SIGTERM. It is configured by environment variables alone, which --help lists, and serves
/// /livez, /readyz, /metrics and /version on PORT.
#[derive(Parser)]
#[command(name = "worker", version, after_long_help = process::help())]
pub(crate) struct Arguments;

pub(crate) fn main() -> ExitCode {
    Arguments::parse();
    process::exit_code("worker", block_on(LocalSet::new().run_until(run())))
}

async fn run() -> anyhow::Result<ExitCode> {
    let config = &process::config()?.single_threaded();
    process::run(config, async |stop, dropped_lines| {
        let db = Db::open(config);
        let context = Rc::new(JobContext::new(config, &db)?);
        let (concurrency, metrics) = (config.worker_concurrency.get().into(), Metrics::default());
        let server = Server {
            config,
            application: operations().into(),
            db: db.clone(),
            collectors: metrics.collectors().into_iter().chain([dropped_lines]).collect(),
        };
        let worker = Worker { db, kinds: JOBS, context, concurrency, metrics };
        let limit = Duration::from_millis(config.shutdown_timeout_ms.get());
        let work = async |stop: &_| worker.run(stop, limit).await;
        server.run_beside(server::bind(config)?, stop, work).await.context("the server failed")
    })
    .await
}
