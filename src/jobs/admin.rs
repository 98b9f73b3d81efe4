//! What an operator does with jobs: lists, repeats and discards them.

use serde::Serialize;

use super::job::CHANNEL;
use crate::db::{Db, Error, Row, Select, Sql, Timestamp};

/// The states of jobs.
pub const STATES: [&str; 4] = ["waiting", "running", "done", "dead"];

/// A job, as an operator sees it.
#[derive(Debug, Serialize)]
pub struct JobRecord {
    /// Its number.
    pub id: i64,
    /// Its kind.
    pub kind: String,
    /// One of [`STATES`].
    pub state: String,
    /// The number of attempts that have begun.
    pub attempts: i64,
    /// When it was enqueued.
    pub created_at: Option<Timestamp>,
    /// From when a worker may claim it. For a running job, when its lease ends.
    pub due_at: Option<Timestamp>,
    /// When it was done or dead.
    pub finished_at: Option<Timestamp>,
    /// The error of the last attempt, if it failed.
    pub last_error: Option<String>,
    /// The request that enqueued it.
    pub request_id: Option<String>,
    /// Prevents a second job.
    pub unique_key: Option<String>,
    /// Its payload, as JSON.
    pub payload: String,
}

impl JobRecord {
    fn read(row: Row<'_>) -> Result<Self, sqlx::Error> {
        let text = |position| row.text(position).map(|text| Some(text.to_owned()).filter(|text| !text.is_empty()));
        let time = |position| row.integer(position).map(|time| Timestamp::from_unix(time).filter(|_| time > 0));
        Ok(Self {
            id: row.integer(0)?,
            kind: row.text(1)?.to_owned(),
            state: row.text(2)?.to_owned(),
            attempts: row.integer(3)?,
            created_at: time(4)?,
            due_at: time(5)?,
            finished_at: time(6)?,
            last_error: text(7)?,
            request_id: text(8)?,
            unique_key: text(9)?,
            payload: row.text(10)?.to_owned(),
        })
    }

    fn select() -> Select {
        let columns = [
            "id",
            "kind",
            "state",
            "attempts",
            "created_at",
            "coalesce(due_at, 0)",
            "coalesce(finished_at, 0)",
            "last_error",
            "request_id",
            "coalesce(unique_key, '')",
            "payload",
        ];
        Select::of(columns.into_iter(), "jobs")
    }
}

/// The jobs of a state, or of all states, the newest first.
///
/// # Errors
/// Those of the database.
pub async fn list(db: &Db, state: Option<&str>, limit: u32) -> Result<Vec<JobRecord>, Error> {
    let mut select = JobRecord::select();
    if let Some(state) = state {
        select.push(" WHERE state = ").bind(state.to_owned());
    }
    select.push(" ORDER BY id DESC").push_limit(i64::from(limit));
    let each = |jobs: &mut Vec<_>, row: Row<'_>| {
        jobs.push(JobRecord::read(row)?);
        Ok(())
    };
    db.fetch(&select, Vec::new(), each).await
}

/// One job.
///
/// # Errors
/// Those of the database.
pub async fn get(db: &Db, id: i64) -> Result<Option<JobRecord>, Error> {
    let mut select = JobRecord::select();
    select.push(" WHERE id = ").bind(id);
    let each = |job: &mut Option<_>, row: Row<'_>| {
        *job = Some(JobRecord::read(row)?);
        Ok(())
    };
    db.fetch(&select, None, each).await
}

/// The most jobs that one transaction changes.
const BATCH: i64 = 1000;

/// Which jobs an operator selects.
#[derive(Clone, Debug)]
pub enum Selection {
    /// That with this number, if no worker is running it.
    Id(i64),
    /// All dead jobs.
    Dead,
}

impl Selection {
    /// The first of its jobs after this number.
    fn select(&self, after: i64) -> Select {
        let mut select = Select::of(["id"].into_iter(), "jobs");
        match self {
            Self::Id(id) => {
                select
                    .push(" WHERE id = ")
                    .bind(*id)
                    .push(" AND (state IN ('waiting', 'dead') OR state = 'running' AND due_at < ");
                select.push_now().push(")")
            }
            Self::Dead => select.push(" WHERE state = 'dead' AND id > ").bind(after).push(" ORDER BY id"),
        };
        select.push_limit(BATCH);
        select
    }
}

/// Makes jobs due now, with all their attempts. Returns their number.
///
/// # Errors
/// Those of the database. What was changed before is changed.
pub async fn retry(db: &Db, selection: &Selection) -> Result<u64, Error> {
    let (mut changed, mut after) = (0, 0);
    // A job that is dead again since is not selected again.
    loop {
        let retried = db.transaction(async |transaction| {
            let each = |ids: &mut Vec<i64>, row: Row<'_>| {
                ids.push(row.integer(0)?);
                Ok(())
            };
            let ids = transaction.fetch_locked(&selection.select(after), Vec::new(), each).await?;
            let Some(last) = ids.iter().copied().max() else { return Ok((0, None)) };
            let mut sql = Sql::new("UPDATE jobs SET state = 'waiting', attempts = 0, finished_at = NULL, due_at = ");
            sql.push_now().push(" WHERE id IN ").bind_list(ids);
            Ok::<_, Error>((transaction.publish(&sql, None, CHANNEL).await?, Some(last)))
        });
        let (count, last): (u64, _) = retried.await?;
        changed += count;
        match (last, selection) {
            (Some(last), Selection::Dead) => after = last,
            _ => return Ok(changed),
        }
    }
}

/// Removes jobs. Returns their number.
///
/// # Errors
/// Those of the database. What was removed before is removed.
pub async fn discard(db: &Db, selection: &Selection) -> Result<u64, Error> {
    db.remove_selected("jobs", || selection.select(0), |row| Ok(row.integer(0)?.into())).await
}
