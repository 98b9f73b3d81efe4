//! `migrate jobs`: shows, repeats and discards jobs of the queue.

use std::collections::BTreeSet;

use clap::Subcommand;
use clap::builder::PossibleValuesParser;
use roster::db::{Db, Timestamp};
use roster::jobs::admin::{self, JobRecord, Selection};
use serde::Serialize;

use super::report::{Failure, counted, print};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Lists jobs, the newest first
    List {
        /// Only jobs of this state
        #[arg(long, value_parser = PossibleValuesParser::new(admin::STATES))]
        state: Option<String>,
        /// The most jobs to list
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
        /// Print a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Shows everything about a job
    Show {
        /// The number of the job
        id: i64,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Makes jobs due now that are waiting or dead, and permits all their attempts again
    Retry(Selected),
    /// Removes jobs that are waiting or dead
    Discard(Selected),
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct Selected {
    /// The numbers of the jobs
    #[arg(value_name = "ID")]
    ids: Vec<i64>,
    /// All dead jobs
    #[arg(long)]
    dead: bool,
}

impl Selected {
    fn list(&self) -> Vec<Selection> {
        if self.dead {
            return vec![Selection::Dead];
        }
        let ids: BTreeSet<_> = self.ids.iter().copied().collect();
        ids.into_iter().map(Selection::Id).collect()
    }
}

pub(super) async fn perform(command: Command, db: &Db) -> Result<(), Failure> {
    let done = match command {
        Command::List { state, limit, json } => list(&admin::list(db, state.as_deref(), limit).await?, json).await,
        Command::Show { id, json } => {
            let job = admin::get(db, id).await?;
            show(&job.ok_or_else(|| Failure::new(1, &format_args!("there is no job {id}")))?, json).await
        }
        Command::Retry(selected) => {
            each(&selected, async |selection| Ok(admin::retry(db, selection).await?), "due now").await
        }
        Command::Discard(selected) => {
            each(&selected, async |selection| Ok(admin::discard(db, selection).await?), "discarded").await
        }
    };
    db.close().await;
    done
}

/// Changes the chosen jobs. A job that is missing does not prevent the others.
async fn each(
    selected: &Selected,
    change: impl AsyncFn(&Selection) -> Result<u64, Failure>,
    changed: &str,
) -> Result<(), Failure> {
    let (mut total, mut missing) = (0, Vec::new());
    for selection in selected.list() {
        let count = change(&selection).await?;
        total += count;
        match selection {
            Selection::Id(id) if count == 0 => missing.push(id.to_string()),
            _ => {}
        }
    }
    print(format_args!("{} {changed}", counted(total, "job"))).await?;
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::new(1, &format_args!("not waiting or dead: job {}; see `migrate jobs show`", missing.join(", "))))
}

async fn list(jobs: &[JobRecord], json: bool) -> Result<(), Failure> {
    if json {
        return print_json(&jobs).await;
    }
    for job in jobs {
        let JobRecord { id, kind, state, attempts, .. } = job;
        let attempts = counted(u64::try_from(*attempts).unwrap_or(0), "attempt");
        let (created, error) = (time(job.created_at), job.last_error.as_deref().unwrap_or_default());
        let line = format!("{id:>8}  {created}  {kind:<12}  {state:<7}  {attempts:<11}  {}", one_line(error));
        print(line.trim_end()).await?;
    }
    Ok(())
}

async fn show(job: &JobRecord, json: bool) -> Result<(), Failure> {
    if json {
        return print_json(job).await;
    }
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    for (name, value) in [
        ("id", job.id.to_string()),
        ("kind", job.kind.clone()),
        ("state", job.state.clone()),
        ("attempts", job.attempts.to_string()),
        ("created at", time(job.created_at)),
        ("due at", time(job.due_at)),
        ("finished at", time(job.finished_at)),
        ("last error", text(&job.last_error)),
        ("request id", text(&job.request_id)),
        ("unique key", text(&job.unique_key)),
        ("payload", job.payload.clone()),
    ] {
        print(format_args!("{name:<12} {}", one_line(&value))).await?;
    }
    Ok(())
}

async fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    Ok(print(serde_json::to_string(value).map_err(std::io::Error::from)?).await?)
}

fn time(time: Option<Timestamp>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| time.to_string())
}

/// A text whose control characters are replaced, because it may be that of another server.
fn one_line(text: &str) -> String {
    // Also the characters that change the direction of text.
    let is_format = |c| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if c.is_control() || is_format(c) { ' ' } else { c }).collect()
}
