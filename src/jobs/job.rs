//! A job, and how it is enqueued.

use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::db::{self, Sql, Transaction};
use crate::telemetry::Origin;

/// The channel on which workers are notified of new jobs.
pub(super) const CHANNEL: &str = "jobs";

/// A kind of job. `C` is what its function needs besides the job, such as the database.
pub struct Kind<C: 'static> {
    /// Its name in the queue, the log and the metrics.
    pub name: &'static str,
    /// Runs a job. It may be run again, also after it succeeded.
    pub run: fn(Rc<C>, Job) -> LocalBoxFuture<'static, Result<(), Failure>>,
}

/// A job that a worker has claimed.
#[derive(Clone, Debug)]
pub struct Job {
    /// The number of the job, which no other job of this database has.
    pub id: i64,
    /// When it was enqueued, in seconds since 1970.
    pub created_at: i64,
    pub(super) kind: String,
    pub(super) payload: String,
    /// The number of this attempt, from 1.
    pub(super) attempt: i64,
    pub(super) origin: Origin,
}

impl Job {
    /// The payload that it was enqueued with.
    ///
    /// # Errors
    /// A permanent failure, if it is of another type.
    pub fn payload<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_str(&self.payload)
            .map_err(|error| Failure::permanent(format!("the payload is not valid: {error}")))
    }
}

/// Why an attempt failed.
#[derive(Debug)]
pub struct Failure {
    pub(super) is_permanent: bool,
    /// For the log, without personal data.
    pub(super) reason: String,
    /// For the queue, with what the reason leaves out.
    pub(super) detail: Option<String>,
}

impl Failure {
    /// A failure after which the job is tried again.
    #[must_use]
    pub const fn temporary(reason: String) -> Self {
        Self { is_permanent: false, reason, detail: None }
    }

    /// A failure that would repeat.
    #[must_use]
    pub const fn permanent(reason: String) -> Self {
        Self { is_permanent: true, reason, detail: None }
    }

    /// Adds a text that may have personal data. It is stored with the job, and is not logged.
    #[must_use]
    pub fn with_detail(self, detail: String) -> Self {
        Self { detail: Some(detail), ..self }
    }
}

impl From<db::Error> for Failure {
    fn from(error: db::Error) -> Self {
        Self::temporary(error.to_string())
    }
}

/// A job that is not in the queue yet.
pub struct NewJob {
    kind: &'static str,
    payload: String,
    unique_key: Option<String>,
    origin: Origin,
}

impl NewJob {
    /// A job of the kind with this name.
    ///
    /// # Panics
    /// If the payload cannot be JSON.
    #[must_use]
    pub fn new(kind: &'static str, payload: &impl Serialize) -> Self {
        let payload = serde_json::to_string(payload).expect("a payload is an object of numbers and texts");
        Self { kind, payload, unique_key: None, origin: Origin::default() }
    }

    /// Prevents a second job with this key, of up to 255 ASCII characters, for as long as the first one is stored.
    #[must_use]
    pub fn unique(self, key: String) -> Self {
        Self { unique_key: Some(key), ..self }
    }

    /// Names the request that causes the job. The log lines and the trace of the job have its ids.
    #[must_use]
    pub fn caused_by(self, origin: Origin) -> Self {
        Self { origin, ..self }
    }
}

/// Enqueues a job in a transaction. It exists when the transaction is committed.
///
/// # Errors
/// Those of the database.
pub async fn enqueue(transaction: &mut Transaction<'_>, job: &NewJob) -> Result<(), db::Error> {
    let mut sql = Sql::new(
        "INSERT INTO jobs (kind, payload, unique_key, request_id, traceparent, state, due_at, created_at) VALUES (",
    );
    sql.bind(job.kind.to_owned()).push(", ").bind(job.payload.clone()).push(", ");
    match &job.unique_key {
        Some(key) => sql.bind(key.clone()),
        None => sql.push("NULL"),
    };
    sql.push(", ").bind(job.origin.request_id.clone()).push(", ").bind(job.origin.traceparent.clone());
    sql.push(", 'waiting', ").push_now().push(", ").push_now().push(")");
    transaction.publish(&sql, Some("id"), CHANNEL).await.map(drop)
}
