//! The durations of requests, and exemplars of them: for each bucket, the last request in it whose trace is exported. A
//! dashboard links it to its trace.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanId, TraceId};
use prometheus::core::Collector;
use prometheus::{HistogramOpts, HistogramVec};

/// Bounds in seconds. Most are small, because a page takes a millisecond or less. The last is the default of
/// `REQUEST_TIMEOUT_MS`.
const BUCKETS: [f64; 14] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
pub(super) const NAME: &str = "http_server_request_duration_seconds";
pub(super) const LABELS: [&str; 2] = ["http_request_method", "http_route"];

/// A request whose trace is exported.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct Exemplar {
    pub(in crate::http) trace_id: TraceId,
    pub(in crate::http) span_id: SpanId,
}

/// An exemplar, its duration in seconds, and when it was recorded.
pub(super) type Recorded = (Exemplar, f64, SystemTime);

/// The exemplars of a method and a route: one for each bucket, and one above the last bound.
type Buckets = [Option<Recorded>; BUCKETS.len() + 1];

/// The durations of each method and route.
pub(super) struct Durations {
    histograms: HistogramVec,
    exemplars: Mutex<HashMap<[&'static str; 2], Buckets>>,
}

impl Durations {
    pub(super) fn new() -> prometheus::Result<Self> {
        let help = "Time from the head of a request to the last byte of its response.";
        let histograms = HistogramVec::new(HistogramOpts::new(NAME, help).buckets(BUCKETS.to_vec()), &LABELS)?;
        Ok(Self { histograms, exemplars: Mutex::default() })
    }

    /// The metric for a registry.
    pub(super) fn collector(&self) -> Box<dyn Collector> {
        Box::new(self.histograms.clone())
    }

    /// Records a duration.
    pub(super) fn record(&self, labels: [&'static str; 2], duration: Duration, exemplar: Option<Exemplar>) {
        let seconds = duration.as_secs_f64();
        self.histograms.with_label_values(&labels).observe(seconds);
        if let Some(exemplar) = exemplar {
            let bucket = BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS.len());
            // An exemplar is replaced as a whole, so a panic leaves none incomplete.
            let mut exemplars = self.exemplars.lock().unwrap_or_else(PoisonError::into_inner);
            exemplars.entry(labels).or_default()[bucket] = Some((exemplar, seconds, SystemTime::now()));
        }
    }

    /// The exemplar of a bucket, by the number of its bound.
    pub(super) fn exemplar(&self, labels: [&str; 2], bucket: usize) -> Option<Recorded> {
        let exemplars = self.exemplars.lock().unwrap_or_else(PoisonError::into_inner);
        exemplars.get(&labels as &[&str; 2]).and_then(|buckets| buckets[bucket])
    }
}
