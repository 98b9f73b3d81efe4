//! The statements of workers on the table `jobs`.
//!
//! A job can be taken when its `due_at` is over. Taking it moves `due_at` to the end of the lease, so that an expired lease
//! needs no attention, and one index has the jobs in the order in which they are taken. Jobs that are done are not in it.

use std::time::Duration;

use super::job::{CHANNEL, Job};
use crate::db::{Db, Error, Row, Select, Sql, Timestamp};
use crate::telemetry::Origin;

/// How long a job is leased. It is three times the interval of its renewal, so that a short outage of the database
/// does not end it.
pub(super) const LEASE: Duration = Duration::from_secs(30);
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

/// The number of jobs by state, each counted up to [`Depth::MAX`], and when the oldest one was due.
pub(super) struct Depth {
    pub(super) waiting: i64,
    pub(super) running: i64,
    pub(super) dead: i64,
    /// In seconds.
    pub(super) oldest_age: i64,
}

/// The part of the queue that a worker knows.
pub(super) struct Queue {
    pub(super) db: Db,
    /// The name of the worker in its leases.
    pub(super) worker: String,
    /// The kinds of jobs that it takes. Other releases may know more.
    pub(super) kinds: Vec<&'static str>,
}

impl Queue {
    /// Records outcomes, and takes up to `free` jobs that are due, in one transaction. An outcome has no effect if the lease
    /// has expired and another worker has taken the job, or if it is recorded a second time.
    pub(super) async fn exchange(&self, outcomes: &[(i64, Outcome)], free: usize) -> Result<Vec<Job>, Error> {
        let work = self.db.transaction(async |transaction| {
            let done: Vec<_> = outcomes.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Done)).collect();
            if !done.is_empty() {
                let mut sql = Sql::new("UPDATE jobs SET state = 'done', due_at = NULL, worker = '', finished_at = ");
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
            let jobs = transaction.fetch_unlocked(&due, Vec::new(), |jobs, row| {
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

    /// Whether a job is due.
    pub(super) async fn is_due(&self) -> Result<bool, Error> {
        let each = |is_due: &mut bool, _: Row<'_>| {
            *is_due = true;
            Ok(())
        };
        self.db.fetch(&self.due(1), false, each).await
    }

    /// The jobs that are due, in their order.
    fn due(&self, limit: usize) -> Select {
        let columns = ["id", "kind", "payload", "attempts", "created_at", "request_id", "traceparent"];
        let mut select = Select::of(columns.into_iter(), "jobs");
        select.push(" WHERE due_at <= ").push_now().push(" AND kind IN (");
        for (number, kind) in self.kinds.iter().enumerate() {
            select.push(if number > 0 { ", " } else { "" }).bind(*kind);
        }
        select.push(") ORDER BY due_at, id LIMIT ").bind(count(limit));
        select
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

    /// The depth of the queue.
    pub(super) async fn depth(&self) -> Result<Depth, Error> {
        // Counting millions of rows would take too long.
        let columns = [
            "(SELECT count(*) FROM (SELECT 1 FROM jobs WHERE state = 'waiting' LIMIT 10000) AS waiting)",
            "(SELECT count(*) FROM (SELECT 1 FROM jobs WHERE state = 'running' LIMIT 10000) AS running)",
            "(SELECT count(*) FROM (SELECT 1 FROM jobs WHERE state = 'dead' LIMIT 10000) AS dead)",
            "coalesce((SELECT min(due_at) FROM jobs), 0)",
        ];
        let none = Depth { waiting: 0, running: 0, dead: 0, oldest_age: 0 };
        let read = |depth: &mut Depth, row: Row<'_>| {
            let oldest = row.integer(3)?;
            let age = if oldest > 0 { Timestamp::now().unix() - oldest } else { 0 };
            *depth = Depth {
                waiting: row.integer(0)?,
                running: row.integer(1)?,
                dead: row.integer(2)?,
                oldest_age: age.max(0),
            };
            Ok(())
        };
        self.db.fetch(&Select::of(columns.into_iter(), "(SELECT 1 AS one) AS one"), none, read).await
    }
}

/// Removes old jobs that are done or dead. Returns their number.
///
/// # Errors
/// Those of the database. What was removed before is removed.
pub async fn remove_finished(db: &Db) -> Result<u64, Error> {
    let mut removed = 0;
    for (state, lifetime) in [("done", DONE_LIFETIME), ("dead", DEAD_LIFETIME)] {
        loop {
            // By their ids, because MariaDB would lock the whole table for a condition with a subquery.
            let mut select = Select::of(["id"].into_iter(), "jobs");
            select.push(" WHERE state = ").bind(state).push(" AND finished_at < ").push_now().push(" - ");
            select.bind(seconds(lifetime)).push(" LIMIT ").bind(count(REMOVAL_MAX));
            let each = |ids: &mut Vec<_>, row: Row<'_>| {
                ids.push(row.integer(0)?);
                Ok(())
            };
            let ids = db.fetch(&select, Vec::new(), each).await?;
            if ids.is_empty() {
                break;
            }
            let mut delete = Sql::new("DELETE FROM jobs");
            push_ids(&mut delete, ids.iter().copied());
            removed += db.transaction(async |transaction| transaction.execute(&delete).await).await?;
        }
    }
    Ok(removed)
}

/// Appends the condition that a job is one of these.
pub(super) fn push_ids(sql: &mut Sql, ids: impl Iterator<Item = i64>) {
    sql.push(" WHERE id IN (");
    for (number, id) in ids.enumerate() {
        sql.push(if number > 0 { ", " } else { "" }).bind(id);
    }
    sql.push(")");
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

fn count(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn shortened(error: &str) -> String {
    error.chars().take(ERROR_MAX).collect()
}
