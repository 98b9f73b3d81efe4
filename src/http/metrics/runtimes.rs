//! The event loops of a process: tokio's runtime of its main thread, and that of each HTTP thread.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{CounterVec, IntGaugeVec, Opts};
use tokio::runtime::Handle;

/// The stable metrics of each runtime. Each has one thread, so its busy time per second is its load, from 0 to 1.
#[derive(Clone)]
pub(in crate::http) struct Runtimes {
    busy: CounterVec,
    tasks: IntGaugeVec,
    queued: IntGaugeVec,
    handles: Arc<Mutex<Vec<(String, Handle)>>>,
}

impl Runtimes {
    pub(super) fn new() -> prometheus::Result<Self> {
        let labels = ["thread_name"];
        Ok(Self {
            busy: CounterVec::new(
                Opts::new("tokio_worker_busy_seconds_total", "Time for which the thread ran tasks."),
                &labels,
            )?,
            tasks: IntGaugeVec::new(Opts::new("tokio_alive_tasks", "Tasks that have not ended."), &labels)?,
            queued: IntGaugeVec::new(
                Opts::new("tokio_global_queue_depth", "Tasks that other threads woke and that have not run yet."),
                &labels,
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

    fn parts(&self) -> [&dyn Collector; 3] {
        [&self.busy, &self.tasks, &self.queued]
    }
}

impl Collector for Runtimes {
    fn desc(&self) -> Vec<&Desc> {
        self.parts().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for (name, handle) in &*self.handles.lock().unwrap_or_else(PoisonError::into_inner) {
            let (labels, metrics) = ([name.as_str()], handle.metrics());
            let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
            let busy = (0..metrics.num_workers()).map(|worker| metrics.worker_total_busy_duration(worker));
            let counter = self.busy.with_label_values(&labels);
            counter.inc_by((busy.sum::<std::time::Duration>().as_secs_f64() - counter.get()).max(0.0));
            self.tasks.with_label_values(&labels).set(gauge(metrics.num_alive_tasks()));
            self.queued.with_label_values(&labels).set(gauge(metrics.global_queue_depth()));
        }
        self.parts().into_iter().flat_map(Collector::collect).collect()
    }
}
