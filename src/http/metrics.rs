//! The metrics of a process: its requests, its resources, and those of its other parts; for Prometheus.

mod durations;
mod openmetrics;
mod process;
mod runtimes;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use actix_web::http::StatusCode;
use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use durations::Durations;
pub(super) use durations::Exemplar;
pub(super) use runtimes::Runtimes;

/// The formats of `/metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exposition {
    /// The text format of Prometheus.
    Text,
    /// OpenMetrics 1.0, which has exemplars.
    OpenMetrics,
}

impl Exposition {
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::Text => prometheus::TEXT_FORMAT,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The metrics of one process.
pub(super) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: Durations,
    aborted: IntCounter,
    in_flight: IntGauge,
    pub(super) runtimes: Runtimes,
    rendering: Mutex<()>,
}

impl Metrics {
    /// The metrics of a process of this release, and those of other parts of the process.
    pub(super) fn new(release_id: Option<&str>, others: Vec<Box<dyn Collector>>) -> Self {
        Self::register(release_id, others).expect("the names are valid, and each is registered once")
    }

    fn register(release_id: Option<&str>, others: Vec<Box<dyn Collector>>) -> prometheus::Result<Self> {
        let target = IntGaugeVec::new(
            Opts::new("target_info", "The build and the release of this process; always 1."),
            &["service_name", "service_version", "vcs_ref_head_revision", "release_id"],
        )?;
        let package = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"), env!("ROSTER_COMMIT"));
        target.with_label_values(&[package.0, package.1, package.2, release_id.unwrap_or_default()]).set(1);
        let metrics = Self {
            registry: Registry::new(),
            requests: IntCounterVec::new(
                Opts::new("http_server_requests_total", "Completed requests."),
                &["http_request_method", "http_route", "http_response_status_code"],
            )?,
            durations: Durations::new()?,
            aborted: IntCounter::new(
                "http_server_responses_aborted_total",
                "Responses that the client did not receive completely.",
            )?,
            in_flight: IntGauge::new("http_server_active_requests", "Requests in progress, streams included.")?,
            runtimes: Runtimes::new()?,
            rendering: Mutex::default(),
        };
        let collectors: [Box<dyn Collector>; 6] = [
            Box::new(target),
            Box::new(metrics.requests.clone()),
            metrics.durations.collector(),
            Box::new(metrics.aborted.clone()),
            Box::new(metrics.in_flight.clone()),
            Box::new(metrics.runtimes.clone()),
        ];
        for collector in collectors.into_iter().chain(process::collector()?).chain(others) {
            metrics.registry.register(collector)?;
        }
        Ok(metrics)
    }

    /// Records a request. Each label has few values, so clients cannot create new time series. A sampled request is an
    /// example of its duration.
    pub(super) fn record(
        &self,
        method: &'static str,
        route: &'static str,
        status: StatusCode,
        duration: Duration,
        sampled: Option<Exemplar>,
    ) {
        self.requests.with_label_values(&[method, route, status.as_str()]).inc();
        self.durations.record([method, route], duration, sampled);
    }

    /// Counts a response that its client did not receive completely.
    pub(super) fn record_aborted(&self) {
        self.aborted.inc();
    }

    /// The metrics as text.
    pub(super) fn render(&self, in_flight: usize, format: Exposition) -> prometheus::Result<String> {
        // Two renderings must not add the same difference to a counter.
        let _rendering = self.rendering.lock().unwrap_or_else(PoisonError::into_inner);
        // It is set here, because it is read only for this.
        self.in_flight.set(i64::try_from(in_flight).unwrap_or(i64::MAX));
        let families = self.registry.gather();
        match format {
            Exposition::Text => TextEncoder::new().encode_to_string(&families),
            Exposition::OpenMetrics => Ok(openmetrics::encode(families, &self.durations)),
        }
    }
}
