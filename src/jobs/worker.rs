//! A worker: takes jobs from the queue and runs them, until a stop is requested.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use opentelemetry::Context;
use opentelemetry::trace::{TraceContextExt as _, TraceState};
use tokio::sync::Notify;
use tokio::task::{JoinSet, spawn_local};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span, field};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::job::{CHANNEL, Failure, Job, Kind};
use super::metrics::Metrics;
use super::queue::{Outcome, Queue};
use crate::db::{Db, Error};
use crate::telemetry::parse_traceparent;

/// The interval at which a worker looks for jobs that it was not notified of.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// The interval at which the depth of the queue is measured, in polls.
const POLLS_PER_DEPTH: u32 = 15;
/// The interval at which leases are renewed.
const RENEW_INTERVAL: Duration = Duration::from_secs(10);
/// The longest attempt of a job.
const ATTEMPT_TIMEOUT: Duration = Duration::from_mins(5);
/// The most attempts of a job, in about half a day.
const ATTEMPTS_MAX: i64 = 20;
/// The delay after the first failure. It doubles with each further one.
const RETRY_DELAY: Duration = Duration::from_secs(5);
/// The longest delay.
const RETRY_DELAY_MAX: Duration = Duration::from_hours(1);

/// Runs jobs. `C` is what they need, such as the database.
pub struct Worker<C: 'static> {
    /// The database of the queue.
    pub db: Db,
    /// The kinds of jobs that it runs.
    pub kinds: &'static [Kind<C>],
    /// What they need.
    pub context: Rc<C>,
    /// The most jobs at the same time.
    pub concurrency: usize,
    /// Where it counts them.
    pub metrics: Metrics,
}

/// A job that is running.
struct Running {
    kind: &'static str,
    attempt: i64,
    started: Instant,
    span: Span,
}

impl<C: 'static> Worker<C> {
    /// Runs jobs until a stop is requested. Then it takes no new ones, and waits up to `limit` for those that are running.
    /// It releases the others, so that another worker takes them. Returns their number.
    ///
    /// # Panics
    /// Outside of a `LocalSet`.
    pub async fn run(self, stop: &CancellationToken, limit: Duration) -> usize {
        let notified = Rc::new(Notify::new());
        let (db, wake) = (self.db.clone(), notified.clone());
        let listening = spawn_local(async move { db.listen(CHANNEL, || wake.notify_one()).await });
        let queue = Queue {
            db: self.db.clone(),
            worker: format!("{:016x}", fastrand::u64(..)),
            kinds: self.kinds.iter().map(|kind| kind.name).collect(),
        };
        let mut active = Active { worker: &self, tasks: JoinSet::new(), running: HashMap::new(), outcomes: Vec::new() };
        let mut poll = interval(POLL_INTERVAL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut renew = interval(RENEW_INTERVAL);
        renew.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut polls = 0;
        let mut has_failed = false;
        let over = async {
            stop.cancelled().await;
            sleep(limit).await;
        };
        tokio::pin!(over);
        let mut is_stopping = false;
        loop {
            let mut may_be_due = false;
            tokio::select! {
                // Jobs that end quickly must not delay the leases of others.
                biased;
                () = &mut over => break,
                () = stop.cancelled(), if !is_stopping => is_stopping = true,
                _ = renew.tick() => {
                    let ids: Vec<_> = active.running.keys().copied().collect();
                    if !ids.is_empty() && let Err(error) = queue.renew(&ids).await {
                        report(&error);
                    }
                }
                () = notified.notified(), if !is_stopping => may_be_due = true,
                _ = poll.tick() => {
                    if polls % POLLS_PER_DEPTH == 0 {
                        match queue.depth().await {
                            Ok(depth) => {
                                self.metrics.set_depth(&depth);
                                may_be_due = true;
                            }
                            Err(error) => report(&error),
                        }
                    } else if has_failed {
                        may_be_due = true;
                    } else if !is_stopping && active.running.len() < self.concurrency {
                        may_be_due = queue.is_due().await.inspect_err(report).unwrap_or(false);
                    }
                    polls += 1;
                }
                Some(ended) = active.tasks.join_next(), if !active.running.is_empty() => active.ended(ended),
            }
            while let Some(ended) = active.tasks.try_join_next() {
                active.ended(ended);
            }
            // A failed exchange is repeated at the next poll.
            let free = if is_stopping { 0 } else { self.concurrency - active.running.len() };
            let is_needed = may_be_due && free > 0 || !active.outcomes.is_empty();
            if is_needed && (may_be_due || !has_failed) {
                match queue.exchange(&active.outcomes, free).await {
                    Ok(jobs) => {
                        active.outcomes.clear();
                        has_failed = false;
                        for job in jobs {
                            active.start(job);
                        }
                    }
                    Err(error) => {
                        report(&error);
                        has_failed = true;
                    }
                }
            }
            self.metrics.set_active(active.running.len());
            if is_stopping && active.running.is_empty() && active.outcomes.is_empty() {
                break;
            }
        }
        listening.abort();
        active.release(&queue).await
    }
}

/// The jobs of a worker that are running, and those whose outcome is not recorded yet.
struct Active<'w, C: 'static> {
    worker: &'w Worker<C>,
    tasks: JoinSet<(i64, Result<(), Failure>)>,
    running: HashMap<i64, Running>,
    outcomes: Vec<(i64, Outcome)>,
}

impl<C: 'static> Active<'_, C> {
    fn start(&mut self, job: Job) {
        let id = job.id;
        // The own lease has expired, while the job is still running, and was renewed by taking the job again.
        if self.running.contains_key(&id) {
            return;
        }
        let Some(kind) = self.worker.kinds.iter().find(|kind| kind.name == job.kind) else { return };
        if job.attempt > ATTEMPTS_MAX {
            let reason = "the worker ended during the last attempt".to_owned();
            tracing::error!(job_id = id, job_kind = kind.name, error = reason, "the job is dead");
            self.outcomes.push((id, Outcome::Dead(reason)));
            return;
        }
        let span = span(&job, kind.name);
        let running = Running { kind: kind.name, attempt: job.attempt, started: Instant::now(), span: span.clone() };
        self.running.insert(id, running);
        let attempt = (kind.run)(self.worker.context.clone(), job);
        let limited = async move {
            let caught = AssertUnwindSafe(timeout(ATTEMPT_TIMEOUT, attempt)).catch_unwind().await;
            let outcome = match caught {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => Err(Failure::temporary(format!("it took longer than {} s", ATTEMPT_TIMEOUT.as_secs()))),
                Err(_) => Err(Failure::temporary("it panicked".to_owned())),
            };
            (id, outcome)
        };
        self.tasks.spawn_local(limited.instrument(span));
    }

    fn ended(&mut self, ended: Result<(i64, Result<(), Failure>), tokio::task::JoinError>) {
        let Ok((id, outcome)) = ended else { return };
        let Some(Running { kind, attempt, started, span }) = self.running.remove(&id) else { return };
        let _entered = span.enter();
        let duration = started.elapsed();
        let duration_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let (name, outcome) = match outcome {
            Ok(()) => {
                tracing::info!(attempt, duration_us, outcome = "done", "job");
                ("done", Outcome::Done)
            }
            Err(failure) if failure.is_permanent || attempt >= ATTEMPTS_MAX => {
                tracing::error!(attempt, duration_us, outcome = "dead", error = failure.reason, "job");
                ("dead", Outcome::Dead(failure.detail.unwrap_or(failure.reason)))
            }
            Err(failure) => {
                let delay = delay(attempt);
                let retry_s = delay.as_secs();
                tracing::warn!(attempt, duration_us, outcome = "retry", retry_s, error = failure.reason, "job");
                ("retry", Outcome::Retry(delay, failure.detail.unwrap_or(failure.reason)))
            }
        };
        self.worker.metrics.record(kind, name, duration);
        self.outcomes.push((id, outcome));
    }

    /// Stops the jobs that are running, and releases them. Returns their number.
    async fn release(mut self, queue: &Queue) -> usize {
        let released = self.running.len();
        // The futures are dropped when the task ends.
        self.tasks.shutdown().await;
        for (id, Running { kind, attempt, started, span }) in self.running.drain() {
            let _entered = span.enter();
            tracing::warn!(attempt, outcome = "released", "job");
            self.worker.metrics.record(kind, "released", started.elapsed());
            self.outcomes.push((id, Outcome::Released));
        }
        if !self.outcomes.is_empty()
            && let Err(error) = queue.exchange(&self.outcomes, 0).await
        {
            tracing::error!(error = %error, "the jobs were not released; another worker takes them when their leases expire");
        }
        released
    }
}

fn report(error: &Error) {
    tracing::warn!(error = %error, "the queue is unavailable");
}

/// The delay after this attempt: exponential, with a random part, so that jobs which failed together are not repeated together.
fn delay(attempt: i64) -> Duration {
    let doublings = u32::try_from(attempt - 1).unwrap_or(u32::MAX).min(16);
    let longest = RETRY_DELAY.saturating_mul(1 << doublings).min(RETRY_DELAY_MAX);
    longest.mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// The span of a job, which adds its ids, and those of the request that caused it, to each line of the log. With an exporter,
/// it belongs to the trace of that request.
fn span(job: &Job, kind: &'static str) -> Span {
    let parent = parse_traceparent(&job.origin.traceparent, TraceState::default());
    let trace_id = parent.as_ref().map(|parent| parent.trace_id().to_string());
    let request_id = Some(&*job.origin.request_id).filter(|id| !id.is_empty());
    let span = tracing::error_span!(
        "job",
        otel.kind = "consumer",
        job_id = job.id,
        job_kind = kind,
        request_id,
        trace_id = field::Empty
    );
    if let Some(parent) = parent {
        // It fails if traces are not exported.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent));
    }
    if let Some(trace_id) = trace_id {
        span.record("trace_id", trace_id);
    }
    span
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::delay;

    #[test]
    fn the_delay_doubles_up_to_an_hour() {
        for (attempt, longest) in [(1, 5), (2, 10), (3, 20), (10, 2560), (11, 3600), (20, 3600), (i64::MAX, 3600)] {
            let delay = delay(attempt);
            assert!(delay <= Duration::from_secs(longest), "{attempt}: {delay:?}");
            assert!(delay >= Duration::from_secs(longest) / 2, "{attempt}: {delay:?}");
        }
    }
}
