//! A worker: claims jobs from the queue and runs them, until a stop is requested.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt as _, TraceState};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span, field};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::job::{CHANNEL, Failure, Job, Kind};
use super::metrics::Metrics;
use super::outage::Outage;
use super::queue::{Outcome, Queue};
use crate::db::Db;
use crate::telemetry::parse_traceparent;

/// The interval at which a worker looks for jobs that it was not notified of.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// The interval at which the depth of the queue is measured, in polls.
const POLLS_PER_DEPTH: u32 = 15;
/// The interval at which leases are renewed.
const RENEW_INTERVAL: Duration = Duration::from_secs(10);
/// The longest attempt of a job.
const ATTEMPT_TIMEOUT: Duration = Duration::from_mins(5);
/// The most attempts of a job, which take 5 to 11 hours if each fails at once.
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
    /// Runs jobs until a stop is requested. Then it claims no new ones, and waits up to `limit` for those that are running.
    /// It releases the others, so that another worker claims them. Returns the number of jobs that are to be run again.
    ///
    /// # Panics
    /// Outside of a `LocalSet`.
    pub async fn run(self, stop: &CancellationToken, limit: Duration) -> usize {
        for kind in self.kinds {
            self.metrics.declare(kind.name);
        }
        let queue = Queue {
            db: self.db.clone(),
            worker: format!("{:016x}", fastrand::u64(..)),
            kinds: self.kinds.iter().map(|kind| kind.name).collect(),
        };
        let (leases, notified) = (RefCell::default(), Notify::new());
        // Boxed, because the compiler limits the depth of nested futures.
        let running = self.run_jobs(&queue, &leases, &notified, stop, limit).boxed_local();
        tokio::select! {
            again = running => again,
            never = self.db.listen(CHANNEL, || notified.notify_one()).boxed_local() => match never {},
            never = renew(&queue, &leases).boxed_local() => match never {},
        }
    }

    async fn run_jobs(
        &self,
        queue: &Queue,
        leases: &Leases,
        notified: &Notify,
        stop: &CancellationToken,
        limit: Duration,
    ) -> usize {
        let outage = Outage::default();
        let mut active =
            Active { worker: self, leases, tasks: JoinSet::new(), running: HashMap::new(), outcomes: Vec::new() };
        let mut poll = interval(POLL_INTERVAL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut polls = 0;
        let deadline = async {
            stop.cancelled().await;
            sleep(limit).await;
        };
        tokio::pin!(deadline);
        let mut has_stopped = false;
        loop {
            let mut may_be_due = false;
            tokio::select! {
                // Jobs that end quickly, and notifications of many jobs, must not delay the others.
                biased;
                () = &mut deadline => break,
                () = stop.cancelled(), if !has_stopped => has_stopped = true,
                _ = poll.tick() => {
                    let measured = outage.observe(queue.measure(polls % POLLS_PER_DEPTH == 0).await);
                    polls += 1;
                    if let Some((oldest_age, depth)) = measured {
                        may_be_due = oldest_age.is_some();
                        self.metrics.set_oldest_age(oldest_age.unwrap_or(0));
                        if let Some(depth) = depth {
                            self.metrics.set_depth(&depth);
                        }
                    }
                }
                () = notified.notified(), if !has_stopped => may_be_due = true,
                Some(ended) = active.tasks.join_next(), if !active.running.is_empty() => active.ended(ended),
            }
            active.end_completed();
            // The stop may have been requested meanwhile.
            let is_stopping = stop.is_cancelled();
            let free = if is_stopping { 0 } else { self.concurrency - active.running.len() };
            let is_needed = may_be_due && free > 0 || !active.outcomes.is_empty();
            // During an outage, only a poll that succeeds ends the wait.
            if is_needed
                && !outage.is_present()
                && let Some(jobs) = outage.observe(queue.record_and_claim(&active.outcomes, free).await)
            {
                active.recorded();
                for job in jobs {
                    active.start(job);
                }
            }
            self.metrics.set_active(active.running.len());
            if is_stopping && active.running.is_empty() && active.outcomes.is_empty() {
                break;
            }
        }
        active.release(queue).await
    }
}

/// The jobs whose leases a worker has: those that are running, and those whose outcome is not recorded yet.
type Leases = RefCell<HashSet<i64>>;

/// Renews leases, also while another statement of the worker is slow.
async fn renew(queue: &Queue, leases: &Leases) -> Infallible {
    let outage = Outage::default();
    loop {
        sleep(RENEW_INTERVAL).await;
        let ids: Vec<_> = leases.borrow().iter().copied().collect();
        if !ids.is_empty() {
            outage.observe(queue.renew(&ids).await);
        }
    }
}

/// The jobs of a worker that are running, and those whose outcome is not recorded yet.
struct Active<'w, C: 'static> {
    worker: &'w Worker<C>,
    leases: &'w Leases,
    tasks: JoinSet<(i64, Result<(), Failure>)>,
    running: HashMap<i64, Running>,
    outcomes: Vec<(i64, Outcome)>,
}

impl<C: 'static> Active<'_, C> {
    /// The outcomes are recorded.
    fn recorded(&mut self) {
        let mut leases = self.leases.borrow_mut();
        for (id, _) in self.outcomes.drain(..) {
            leases.remove(&id);
        }
    }

    /// Receives the results of completed tasks.
    fn end_completed(&mut self) {
        while let Some(ended) = self.tasks.try_join_next() {
            self.ended(ended);
        }
    }

    fn start(&mut self, job: Job) {
        let id = job.id;
        // The lease expired while the job was running here. It was renewed by claiming the job again.
        if self.running.contains_key(&id) {
            return;
        }
        let Some(kind) = self.worker.kinds.iter().find(|kind| kind.name == job.kind) else { return };
        self.leases.borrow_mut().insert(id);
        if job.attempt > ATTEMPTS_MAX {
            let reason = "the worker ended during the last attempt".to_owned();
            tracing::error!(job_id = id, job_kind = kind.name, error = reason, "the job is dead");
            self.worker.metrics.record(kind.name, "dead", Duration::ZERO);
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
        let duration_s = duration.as_secs_f64();
        let (name, outcome) = match outcome {
            Ok(()) => {
                tracing::info!(attempt, duration_s, outcome = "done", "job");
                ("done", Outcome::Done)
            }
            Err(failure) if failure.is_permanent || attempt >= ATTEMPTS_MAX => {
                tracing::error!(attempt, duration_s, outcome = "dead", error = failure.reason, "job");
                ("dead", Outcome::Dead(failure.detail.unwrap_or(failure.reason)))
            }
            Err(failure) => {
                let delay = delay(attempt);
                let retry_s = delay.as_secs();
                tracing::warn!(attempt, duration_s, outcome = "retry", retry_s, error = failure.reason, "job");
                ("retry", Outcome::Retry(delay, failure.detail.unwrap_or(failure.reason)))
            }
        };
        self.worker.metrics.record(kind, name, duration);
        self.outcomes.push((id, outcome));
    }

    /// Stops the jobs that are running, and releases them. Returns the number of jobs that are to be run again.
    async fn release(mut self, queue: &Queue) -> usize {
        self.end_completed();
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
            && let Err(error) = queue.record_and_claim(&self.outcomes, 0).await
        {
            let jobs = self.outcomes.len();
            tracing::error!(error = %error, jobs, "outcomes were not recorded: the jobs run again when their leases expire");
            return jobs;
        }
        released
    }
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
    let parent_trace_id = parent.as_ref().map(SpanContext::trace_id);
    let request_id = Some(&*job.origin.request_id).filter(|id| !id.is_empty());
    let span = tracing::error_span!(
        "job",
        otel.kind = "consumer",
        job_id = job.id,
        job_kind = kind,
        request_id,
        trace_id = field::Empty,
        span_id = field::Empty
    );
    if let Some(parent) = parent {
        // It fails if traces are not exported.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent));
    }
    let context = span.context();
    let own = context.span().span_context().clone();
    if own.is_valid() {
        span.record("trace_id", field::display(own.trace_id())).record("span_id", field::display(own.span_id()));
    } else if let Some(trace_id) = parent_trace_id {
        span.record("trace_id", field::display(trace_id));
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
