//! The metrics of the database. The names are those of OpenTelemetry's semantic conventions, where there is one.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};

/// Bounds in seconds. Most are small, because a statement for a page takes less than a millisecond. The last is above the
/// default of `DATABASE_QUERY_TIMEOUT_MS`.
const BUCKETS: [f64; 14] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

/// The metrics of a pool, which all workers share.
pub(super) struct Metrics {
    connections: IntGaugeVec,
    connections_max: IntGauge,
    /// Queries and transactions that have not begun.
    pub(super) pending: IntGauge,
    /// Their waits, in seconds.
    pub(super) wait_times: Histogram,
    durations: HistogramVec,
    /// The durations of queries, in seconds. A query for a page that has its own statement is not measured if its client
    /// disconnects.
    pub(super) queries: Histogram,
    /// The durations of transactions, in seconds, without the wait for a connection.
    pub(super) transactions: Histogram,
    /// The numbers of queries that statements for pages have.
    pub(super) batch_sizes: Histogram,
    outcomes: IntCounterVec,
    by_outcome: [IntCounter; OUTCOMES.len()],
}

impl Metrics {
    /// The metrics of a pool for this engine. A statement has at most the largest of these numbers of queries.
    pub(super) fn new(engine: &str, batch_sizes: impl IntoIterator<Item = usize>) -> Self {
        Self::create(engine, batch_sizes).expect("the names are valid")
    }

    fn create(engine: &str, batch_sizes: impl IntoIterator<Item = usize>) -> prometheus::Result<Self> {
        let durations = HistogramVec::new(
            HistogramOpts::new("db_client_operation_duration_seconds", "Duration of queries and of transactions.")
                .const_label("db_system_name", engine)
                .buckets(BUCKETS.to_vec()),
            &["db_operation_name"],
        )?;
        let mut sizes: Vec<_> = batch_sizes.into_iter().filter_map(|size| u32::try_from(size).ok()).collect();
        sizes.sort_unstable();
        let outcomes = IntCounterVec::new(
            Opts::new("db_client_transactions_total", "Transactions of requests that write."),
            &["outcome"],
        )?;
        Ok(Self {
            // The convention's name ends in _count, which promtool accepts for histograms only.
            connections: IntGaugeVec::new(
                Opts::new(
                    "db_client_connections",
                    "Connections of requests to the database; used ones until their session has ended.",
                ),
                &["db_client_connection_state"],
            )?,
            connections_max: IntGauge::new("db_client_connection_max", "The most connections that may be open.")?,
            pending: IntGauge::new(
                "db_client_connection_pending_requests",
                "Queries and transactions that have not begun: they wait for a connection, or for the statement before.",
            )?,
            wait_times: Histogram::with_opts(
                HistogramOpts::new(
                    "db_client_connection_wait_time_seconds",
                    "Time for which a query or a transaction waited until it began, or until its time-out.",
                )
                .buckets(BUCKETS.to_vec()),
            )?,
            queries: durations.with_label_values(&["SELECT"]),
            transactions: durations.with_label_values(&["TRANSACTION"]),
            durations,
            batch_sizes: Histogram::with_opts(
                HistogramOpts::new(
                    "db_client_operation_batch_size",
                    "Queries that shared a statement; a statement for one page has one.",
                )
                .buckets(sizes.into_iter().map(f64::from).collect()),
            )?,
            by_outcome: OUTCOMES.map(|outcome| outcomes.with_label_values(&[outcome])),
            outcomes,
        })
    }

    /// Records a statement with this number of queries for pages.
    pub(super) fn record_batch(&self, queries: usize) {
        self.batch_sizes.observe(u32::try_from(queries).map_or(f64::INFINITY, f64::from));
    }

    /// Counts a transaction.
    pub(super) fn count(&self, outcome: Outcome) {
        self.by_outcome[outcome as usize].inc();
    }

    /// Sets the gauges that are read only for their export.
    pub(super) fn set_connections(&self, connections: &Connections) {
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.connections.with_label_values(&["idle"]).set(gauge(connections.idle));
        self.connections.with_label_values(&["used"]).set(gauge(connections.used));
        self.connections_max.set(gauge(connections.max));
    }

    fn parts(&self) -> [&dyn Collector; 7] {
        [
            &self.connections,
            &self.connections_max,
            &self.pending,
            &self.wait_times,
            &self.durations,
            &self.batch_sizes,
            &self.outcomes,
        ]
    }
}

impl Collector for Metrics {
    fn desc(&self) -> Vec<&Desc> {
        self.parts().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.parts().into_iter().flat_map(Collector::collect).collect()
    }
}

/// How many connections a pool has.
#[derive(Clone, Copy, Debug)]
pub struct Connections {
    /// Open and unused.
    pub idle: usize,
    /// In use, or kept until the session in the server has ended.
    pub used: usize,
    /// The most that may be open.
    pub max: usize,
}

/// How a transaction of a request ended.
#[derive(Clone, Copy)]
pub(super) enum Outcome {
    Committed,
    RolledBack,
    /// It was rolled back because of a conflict, and repeated.
    Repeated,
    Unconfirmed,
}

/// The outcomes in their order.
const OUTCOMES: [&str; 4] = ["committed", "rolled_back", "repeated", "unconfirmed"];
