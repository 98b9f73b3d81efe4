//! Metrics for Prometheus: requests and their durations by route, and the database connections.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use actix_web::http::StatusCode;
use prometheus::core::Collector;
use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::db::Connections;

/// The media type of the text format of `/metrics`.
pub(super) const TEXT_FORMAT: &str = prometheus::TEXT_FORMAT;

/// Bounds in seconds. Most are small, because a page takes a millisecond or less. The last is the default of
/// `REQUEST_TIMEOUT_MS`.
const BUCKETS: [f64; 14] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// The metrics of one process.
pub(super) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    aborted: IntCounter,
    in_flight: IntGauge,
    connections: IntGaugeVec,
    connections_max: IntGauge,
    pending_acquires: IntGauge,
    batches: IntCounterVec,
    transactions: IntCounterVec,
    adding: Mutex<()>,
}

impl Metrics {
    /// The metrics of a process of this release, and those of other parts of the process.
    pub(super) fn new(release_id: Option<&str>, others: Vec<Box<dyn Collector>>) -> Self {
        Self::register(release_id, others).expect("the names are valid, and each is registered once")
    }

    fn register(release_id: Option<&str>, others: Vec<Box<dyn Collector>>) -> prometheus::Result<Self> {
        let build = IntGaugeVec::new(
            Opts::new("roster_build_info", "Build information; always 1."),
            &["version", "commit", "release_id"],
        )?;
        let labels = [env!("CARGO_PKG_VERSION"), env!("ROSTER_COMMIT"), release_id.unwrap_or_default()];
        build.with_label_values(&labels).set(1);
        let metrics = Self {
            registry: Registry::new(),
            requests: IntCounterVec::new(
                Opts::new("http_server_requests_total", "Completed requests."),
                &["http_request_method", "http_route", "http_response_status_code"],
            )?,
            durations: HistogramVec::new(
                HistogramOpts::new(
                    "http_server_request_duration_seconds",
                    "Time from the head of a request to the last byte of its response.",
                )
                .buckets(BUCKETS.to_vec()),
                &["http_request_method", "http_route"],
            )?,
            aborted: IntCounter::new(
                "http_server_responses_aborted_total",
                "Responses that the client did not receive completely.",
            )?,
            in_flight: IntGauge::new("http_server_active_requests", "Requests in progress, streams included.")?,
            connections: IntGaugeVec::new(
                Opts::new(
                    "db_client_connections",
                    "Connections of requests to the database; used ones until their session has ended.",
                ),
                &["state"],
            )?,
            connections_max: IntGauge::new("db_client_connections_max", "The most connections that may be open.")?,
            pending_acquires: IntGauge::new(
                "db_client_connections_pending_acquires",
                "Requests whose statement has not begun: they wait for a connection, or for the statement before.",
            )?,
            batches: IntCounterVec::new(
                Opts::new("db_client_batches_total", "Statements for one page, or for those of several requests."),
                &["db_operation_batch_size"],
            )?,
            transactions: IntCounterVec::new(
                Opts::new("db_client_transactions_total", "Transactions of requests that write."),
                &["outcome"],
            )?,
            adding: Mutex::default(),
        };
        let collectors: [Box<dyn Collector>; 10] = [
            Box::new(build),
            Box::new(metrics.requests.clone()),
            Box::new(metrics.durations.clone()),
            Box::new(metrics.aborted.clone()),
            Box::new(metrics.in_flight.clone()),
            Box::new(metrics.connections.clone()),
            Box::new(metrics.connections_max.clone()),
            Box::new(metrics.pending_acquires.clone()),
            Box::new(metrics.batches.clone()),
            Box::new(metrics.transactions.clone()),
        ];
        for collector in collectors.into_iter().chain(others) {
            metrics.registry.register(collector)?;
        }
        Ok(metrics)
    }

    /// Records a request. Each label has few values, so clients cannot create new time series.
    pub(super) fn record(&self, method: &str, route: &str, status: StatusCode, duration: Duration) {
        self.requests.with_label_values(&[method, route, status.as_str()]).inc();
        self.durations.with_label_values(&[method, route]).observe(duration.as_secs_f64());
    }

    /// Counts a response that its client did not receive completely.
    pub(super) fn record_aborted(&self) {
        self.aborted.inc();
    }

    /// The metrics as text. The gauges are set here, because they are read only for this.
    pub(super) fn render(&self, in_flight: usize, connections: Connections) -> prometheus::Result<Vec<u8>> {
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.in_flight.set(gauge(in_flight));
        self.connections.with_label_values(&["idle"]).set(gauge(connections.idle));
        self.connections.with_label_values(&["used"]).set(gauge(connections.used));
        self.connections_max.set(gauge(connections.max));
        self.pending_acquires.set(gauge(connections.pending));
        // Two renderings must not add the same difference.
        let _adding = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        let raise = |counters: &IntCounterVec, label: &str, count: u64| {
            let counter = counters.with_label_values(&[label]);
            counter.inc_by(count.saturating_sub(counter.get()));
        };
        for (size, count) in connections.batches {
            raise(&self.batches, &size.to_string(), count);
        }
        for (outcome, count) in connections.transactions {
            raise(&self.transactions, outcome, count);
        }
        let mut text = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}
