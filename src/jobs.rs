//! The queue: work that a request causes and does not wait for.
//!
//! A job is a row of the table `jobs`, in the database of the application. So it is enqueued in the transaction of the write
//! that causes it, and neither of the two exists without the other (a transactional outbox).
//!
//! ```text
//! waiting ─ claimed ─▶ running ── succeeded ──▶ done
//!    ▲                    │ └──── failed permanently, or 20 times ──▶ dead
//!    └── failed, released, or its lease expired
//! ```
//!
//! A worker claims a job for the time of a lease, and renews the lease while it runs the job. If the worker is killed, the
//! lease expires, and another worker claims the job. So a job runs **at least once**, and must be idempotent.

pub mod admin;
pub mod clock;
mod job;
mod metrics;
mod outage;
mod queue;
mod worker;

pub use job::{Failure, Job, Kind, NewJob, enqueue};
pub use metrics::Metrics;
pub use queue::remove_finished;
pub use worker::Worker;
