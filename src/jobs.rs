//! The queue: work that a request causes and does not wait for.
//!
//! A job is a row of the table `jobs`, in the database of the application. So it is enqueued in the transaction of the write
//! that causes it, and neither of the two exists without the other (a transactional outbox).
//!
//! ```text
//! waiting ── taken ──▶ running ── succeeded ──▶ done
//!    ▲                    │ └──── failed permanently, or 20 times ──▶ dead
//!    └── failed, released, or its lease expired
//! ```
//!
//! A worker takes a job for the time of a lease, and renews the lease while it runs the job. If the worker ends without
//! notice, the lease expires, and another worker takes the job. So a job is run **at least once**, and its effect should not
//! depend on how often.

pub mod admin;
pub mod clock;
mod job;
mod metrics;
mod queue;
mod worker;

pub use job::{Failure, Job, Kind, NewJob, enqueue};
pub use metrics::Metrics;
pub use queue::remove_finished;
pub use worker::Worker;
