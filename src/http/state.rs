//! What the requests of one process share.

use std::sync::Arc;
use std::time::Duration;

use prometheus::core::Collector;

use super::application::Application;
use super::metrics::Metrics;
use crate::config::{ApiTokens, ClientAddressHeader, Config, TokensRequired, TrustedProxies};
use crate::lifecycle::Lifecycle;

/// What the requests of one process share.
pub struct State {
    pub(super) application: Arc<Application>,
    pub(crate) limits: Limits,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(super) metrics: Metrics,
    pub(crate) proxies: Proxies,
    pub(super) tokens: ApiTokens,
    pub(super) tokens_required: TokensRequired,
    pub(super) release_id: Option<String>,
    pub(super) exports_traces: bool,
}

/// The proxies that name the client of a request.
pub(crate) struct Proxies {
    /// None if no address is logged.
    pub(crate) trusted: Option<TrustedProxies>,
    pub(super) header: ClientAddressHeader,
}

/// The limits of one process.
pub(crate) struct Limits {
    /// The most requests at work.
    pub(super) max_in_flight: usize,
    /// The longest time for a whole request, and for a client to send or read the next part of one.
    pub(crate) request_timeout: Duration,
    /// The longest time for which a connection may be idle.
    pub(crate) keep_alive: Duration,
}

impl Limits {
    /// The shorter of the two time limits.
    pub(crate) fn shortest(&self) -> Duration {
        self.request_timeout.min(self.keep_alive)
    }
}

impl State {
    /// The state of a process, whose metrics include these.
    #[must_use]
    pub fn new(
        config: &Config,
        application: Arc<Application>,
        lifecycle: Arc<Lifecycle>,
        collectors: Vec<Box<dyn Collector>>,
    ) -> Self {
        let limits = Limits {
            max_in_flight: config.max_in_flight.get().into(),
            request_timeout: Duration::from_millis(config.request_timeout_ms.get()),
            keep_alive: Duration::from_millis(config.keep_alive_ms.get()),
        };
        Self {
            application,
            limits,
            lifecycle,
            metrics: Metrics::new(config.release_id.as_deref(), collectors),
            proxies: Proxies { trusted: config.trusted_proxies.clone(), header: config.client_address_header },
            tokens: config.api_tokens.clone(),
            tokens_required: config.api_tokens_required,
            release_id: config.release_id.clone(),
            exports_traces: config.traces_endpoint().is_some(),
        }
    }

    /// Measures the runtime of this thread.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub(crate) fn measure_runtime(&self, thread_name: String) {
        self.metrics.runtimes.add_current(thread_name);
    }
}
