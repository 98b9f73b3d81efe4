//! The statements of workers on the table `jobs`.
//!
//! A job may be claimed once its `due_at` has passed. Claiming sets `due_at` to the end of the lease, so an expired lease
//! needs no other process, and one index has the jobs in the order in which they are claimed.

use std::time::Duration;

use super::job::{CHANNEL, Job};
use crate::db::{Db, Error, Row, Select, Sql};
use crate::telemetry::Origin;

/// How long a job is leased. It is three times the interval of its renewal, so that a short outage of the database
/// does not end it.
const LEASE: Duration = Duration::from_secs(30);
/// How long jobs that are done are stored.
const DONE_LIFETIME: Duration = Duration::from_hours(7 * 24);
/// How long dead jobs are stored.
const DEAD_LIFETIME: Duration = Duration::from_hours(30 * 24);
/// The most jobs that one statement removes.
const REMOVAL_MAX: usize = 1000;
/// The longest error that is stored, in characters. MySQL's column has this size.
const ERROR_MAX: usize = 1000;

/// How an attempt of a job ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It succeeded.
    Done,
    /// It failed, and is tried again after this time.
    Retry(Duration, String),
    /// It failed permanently.
    Dead(String),
    /// It was not completed, and this does not count as an attempt.
    Released,
}

/// The number of jobs by state, each counted up to 10,000.
pub(super) struct Depth {
    pub(super) waiting: i64,
    pub(super) running: i64,
    pub(super) dead: i64,
}

/// The queue of one worker.
pub(super) struct Queue {
    pub(super) db: Db,
    /// The name of the worker in its leases.
    pub(super) worker: String,
    /// The kinds of jobs that it runs. Jobs of other kinds stay in the queue.
    pub(super) kinds: Vec<&'static str>,
}

impl Queue {
    /// Records outcomes, and claims up to `free` jobs that are due, in one transaction. An outcome has no effect if the lease
    /// has expired and another worker has claimed the job, or if it is recorded a second time.
    pub(super) async fn record_and_claim(&self, outcomes: &[(i64, Outcome)], free: usize) -> Result<Vec<Job>, Error> {
        let work = self.db.transaction(async |transaction| {
            let done: Vec<_> = outcomes.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Done)).collect();
            if !done.is_empty() {
                let mut sql = Sql::new(
                    "UPDATE jobs SET state = 'done', due_at = NULL, worker = '', last_error = '', finished_at = ",
                );
                sql.push_now();
                self.push_own(&mut sql, done.iter().map(|(id, _)| *id));
                transaction.execute(&sql).await?;
            }
            for (id, outcome) in outcomes {
                let mut sql = Sql::new("UPDATE jobs SET worker = '', ");
                match outcome {
                    Outcome::Done => continue,
                    Outcome::Retry(delay, error) => {
                        sql.push("state = 'waiting', due_at = ").push_now().push(" + ").bind(seconds(*delay));
                        sql.push(", last_error = ").bind(shortened(error));
                    }
                    Outcome::Dead(error) => {
                        sql.push("state = 'dead', due_at = NULL, finished_at = ").push_now();
                        sql.push(", last_error = ").bind(shortened(error));
                    }
                    Outcome::Released => {
                        sql.push("state = 'waiting', attempts = attempts - 1, due_at = ").push_now();
                    }
                }
                self.push_own(&mut sql, [*id].into_iter());
                match outcome {
                    Outcome::Released => transaction.publish(&sql, None, CHANNEL).await?,
                    _ => transaction.execute(&sql).await?,
                };
            }
            if free == 0 {
                return Ok(Vec::new());
            }
            let due = self.due(free);
            let jobs = transaction.fetch_skip_locked(&due, Vec::new(), |jobs, row| {
                jobs.push(Job {
                    id: row.integer(0)?,
                    kind: row.text(1)?.to_owned(),
                    payload: row.text(2)?.to_owned(),
                    attempt: row.integer(3)? + 1,
                    created_at: row.integer(4)?,
                    origin: Origin { request_id: row.text(5)?.to_owned(), traceparent: row.text(6)?.to_owned() },
                });
                Ok(())
            });
            let jobs = jobs.await?;
            if !jobs.is_empty() {
                let mut sql = Sql::new("UPDATE jobs SET state = 'running', attempts = attempts + 1, worker = ");
                sql.bind(self.worker.clone()).push(", due_at = ").push_now().push(" + ").bind(seconds(LEASE));
                push_ids(&mut sql, jobs.iter().map(|job| job.id));
                transaction.execute(&sql).await?;
            }
            Ok(jobs)
        });
        work.await
    }

    /// For how many seconds the oldest job has been due. None if none is due. With the depth of the queue, if that is asked for.
    pub(super) async fn measure(&self, with_depth: bool) -> Result<(Option<i64>, Option<Depth>), Error> {
        // Counting millions of rows would take too long.
        let columns = [
            "coalesce(now_at - oldest, -1)",
            "(SELECT count(*) FROM (SELECT 1 FROM jobs WHERE state = 'waiting' LIMIT 10000) AS waiting)",
            "(SELECT count(*) FROM (SELECT 1 FROM jobs WHERE state = 'running' LIMIT 10000) AS running)",
            "(SELECT count(*) FROM (SELECT 1 FROM jobs WHERE state = 'dead' LIMIT 10000) AS dead)",
        ];
        let columns = columns.into_iter().take(if with_depth { columns.len() } else { 1 });
        let mut select = Select::of(columns, "(SELECT ");
        select.push_now().push(" AS now_at, (SELECT due_at FROM jobs");
        self.push_due(&mut select, 1);
        select.push(") AS oldest) AS due");
        let read = |found: &mut (Option<i64>, Option<Depth>), row: Row<'_>| {
            found.0 = Some(row.integer(0)?).filter(|age| *age >= 0);
            if with_depth {
                found.1 = Some(Depth { waiting: row.integer(1)?, running: row.integer(2)?, dead: row.integer(3)? });
            }
            Ok(())
        };
        self.db.fetch(&select, (None, None), read).await
    }

    /// The jobs that are due, in their order.
    fn due(&self, limit: usize) -> Select {
        let columns = ["id", "kind", "payload", "attempts", "created_at", "request_id", "traceparent"];
        let mut select = Select::of(columns.into_iter(), "jobs");
        self.push_due(&mut select, limit);
        select
    }

    /// Appends the condition that a job is due, and the order.
    fn push_due(&self, select: &mut Select, limit: usize) {
        select.push(" WHERE due_at <= ").push_now().push(" AND kind IN ").bind_list(self.kinds.iter().copied());
        select.push(" ORDER BY due_at, id").push_limit(count(limit));
    }

    /// Renews the leases of these jobs.
    pub(super) async fn renew(&self, ids: &[i64]) -> Result<(), Error> {
        let mut sql = Sql::new("UPDATE jobs SET due_at = ");
        sql.push_now().push(" + ").bind(seconds(LEASE));
        self.push_own(&mut sql, ids.iter().copied());
        self.db.transaction(async |transaction| transaction.execute(&sql).await).await.map(drop)
    }

    /// Appends the condition that this worker has the leases of these jobs.
    fn push_own(&self, sql: &mut Sql, ids: impl Iterator<Item = i64>) {
        push_ids(sql, ids);
        sql.push(" AND worker = ").bind(self.worker.clone());
    }
}

/// Removes old jobs that are done or dead. Returns their number.
///
/// # Errors
/// Those of the database. What was removed before is removed.
pub async fn remove_finished(db: &Db) -> Result<u64, Error> {
    let mut removed = 0;
    for (state, lifetime) in [("done", DONE_LIFETIME), ("dead", DEAD_LIFETIME)] {
        let old = || {
            let mut select = Select::of(["id"].into_iter(), "jobs");
            select.push(" WHERE state = ").bind(state).push(" AND finished_at < ").push_now().push(" - ");
            select.bind(seconds(lifetime)).push_limit(count(REMOVAL_MAX));
            select
        };
        removed += db.remove_selected("jobs", old, |row| Ok(row.integer(0)?.into())).await?;
    }
    Ok(removed)
}

/// Appends the condition that a job is one of these.
fn push_ids(sql: &mut Sql, ids: impl Iterator<Item = i64>) {
    sql.push(" WHERE id IN ").bind_list(ids);
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

fn count(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// An error as it is stored. PostgreSQL stores no NUL.
fn shortened(error: &str) -> String {
    error.chars().filter(|c| *c != '\0').take(ERROR_MAX).collect()
}
