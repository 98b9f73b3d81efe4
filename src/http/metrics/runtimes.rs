//! The event loops of a process: tokio's runtime of its main thread, and that of each HTTP thread.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{CounterVec, Opts};
use tokio::runtime::Handle;

/// The busy time of each runtime. Each has one thread, so its busy time per second is its load, from 0 to 1. Most tasks are
/// those of a `LocalSet`, which the runtime does not count.
#[derive(Clone)]
pub(in crate::http) struct Runtimes {
    busy: CounterVec,
    handles: Arc<Mutex<Vec<(String, Handle)>>>,
}

impl Runtimes {
    pub(super) fn new() -> prometheus::Result<Self> {
        Ok(Self {
            busy: CounterVec::new(
                Opts::new("tokio_worker_busy_seconds_total", "Time for which the thread ran tasks."),
                &["thread_name"],
            )?,
            handles: Arc::default(),
        })
    }

    /// Adds the runtime of this thread.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub(in crate::http) fn add_current(&self, thread_name: String) {
        // A complete element is added, so a panic changes nothing.
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).push((thread_name, Handle::current()));
    }
}

impl Collector for Runtimes {
    fn desc(&self) -> Vec<&Desc> {
        self.busy.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for (name, handle) in &*self.handles.lock().unwrap_or_else(PoisonError::into_inner) {
            let metrics = handle.metrics();
            let busy = (0..metrics.num_workers()).map(|worker| metrics.worker_total_busy_duration(worker));
            let counter = self.busy.with_label_values(&[name]);
            counter.inc_by((busy.sum::<std::time::Duration>().as_secs_f64() - counter.get()).max(0.0));
        }
        self.busy.collect()
    }
}
