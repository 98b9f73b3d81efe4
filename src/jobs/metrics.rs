//! The metrics of a worker.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts};

use super::queue::Depth;

/// Bounds in seconds. The last is the longest time of a job.
const BUCKETS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0];

/// The metrics of a worker.
#[derive(Clone)]
pub struct Metrics {
    attempts: IntCounterVec,
    durations: HistogramVec,
    active: IntGauge,
    depth: IntGaugeVec,
    oldest_age: IntGauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new().expect("the names are valid")
    }
}

impl Metrics {
    fn new() -> prometheus::Result<Self> {
        Ok(Self {
            attempts: IntCounterVec::new(
                Opts::new("jobs_attempts_total", "Completed attempts of jobs by this process."),
                &["job_kind", "outcome"],
            )?,
            durations: HistogramVec::new(
                HistogramOpts::new("jobs_attempt_duration_seconds", "Duration of an attempt.")
                    .buckets(BUCKETS.to_vec()),
                &["job_kind"],
            )?,
            active: IntGauge::new("jobs_active", "Jobs that this process is running.")?,
            depth: IntGaugeVec::new(
                Opts::new("jobs_queue_depth", "Jobs in the queue, of all processes, each state counted up to 10000."),
                &["state"],
            )?,
            oldest_age: IntGauge::new(
                "jobs_queue_oldest_age_seconds",
                "Time since the oldest job was due that this process can run, 0 if none is due.",
            )?,
        })
    }

    /// The metrics for a registry.
    #[must_use]
    pub fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![
            Box::new(self.attempts.clone()),
            Box::new(self.durations.clone()),
            Box::new(self.active.clone()),
            Box::new(self.depth.clone()),
            Box::new(self.oldest_age.clone()),
        ]
    }

    /// Creates the time series of a kind of jobs, so that the first failure is an increase.
    pub(super) fn declare(&self, kind: &str) {
        for outcome in ["done", "retry", "dead", "released"] {
            self.attempts.with_label_values(&[kind, outcome]);
        }
        self.durations.with_label_values(&[kind]);
    }

    pub(super) fn record(&self, kind: &str, outcome: &str, duration: Duration) {
        self.attempts.with_label_values(&[kind, outcome]).inc();
        self.durations.with_label_values(&[kind]).observe(duration.as_secs_f64());
    }

    pub(super) fn set_active(&self, active: usize) {
        self.active.set(i64::try_from(active).unwrap_or(i64::MAX));
    }

    pub(super) fn set_depth(&self, depth: &Depth) {
        for (state, count) in [("waiting", depth.waiting), ("running", depth.running), ("dead", depth.dead)] {
            self.depth.with_label_values(&[state]).set(count);
        }
    }

    pub(super) fn set_oldest_age(&self, seconds: i64) {
        self.oldest_age.set(seconds);
    }
}
