//! Exemplars: for each bucket of a duration, the last traced request in it. A dashboard links them to their traces.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use opentelemetry::trace::{SpanId, TraceId};

use super::BUCKETS;

/// A request whose trace is exported.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct Exemplar {
    pub(in crate::http) trace_id: TraceId,
    pub(in crate::http) span_id: SpanId,
}

/// An exemplar, its duration in seconds, and when it was recorded.
pub(super) type Recorded = (Exemplar, f64, SystemTime);

/// One for each bucket, and one above the last bound.
type Buckets = [Option<Recorded>; BUCKETS.len() + 1];

/// The exemplars of each method and route.
#[derive(Default)]
pub(super) struct Exemplars(Mutex<HashMap<(&'static str, &'static str), Buckets>>);

impl Exemplars {
    pub(super) fn record(&self, method: &'static str, route: &'static str, seconds: f64, exemplar: Exemplar) {
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS.len());
        // An exemplar is replaced as a whole, so a panic leaves none incomplete.
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry((method, route)).or_default()[bucket] = Some((exemplar, seconds, SystemTime::now()));
    }

    /// The exemplar of a bucket, whose number is that of its bound.
    pub(super) fn get(&self, method: &str, route: &str, bucket: usize) -> Option<Recorded> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().find(|(labels, _)| **labels == (method, route)).and_then(|(_, buckets)| buckets[bucket])
    }
}
