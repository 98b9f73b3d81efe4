//! The resources that this process uses, in the names of Prometheus' client libraries. Only Linux has them in /proc.

use prometheus::core::Collector;

/// The metrics of the process, if the system has them.
#[cfg(not(target_os = "linux"))]
pub(super) fn collector() -> prometheus::Result<Option<Box<dyn Collector>>> {
    Ok(None)
}

/// The metrics of the process.
#[cfg(target_os = "linux")]
pub(super) fn collector() -> prometheus::Result<Option<Box<dyn Collector>>> {
    linux::Process::new().map(|process| Some(Box::new(process) as Box<dyn Collector>))
}

#[cfg(target_os = "linux")]
mod linux {
    use procfs::process::{LimitValue, Process as Entry};
    use procfs::{ProcResult, WithCurrentSystemInfo as _};
    use std::time::Duration;

    use prometheus::core::{Collector, Desc};
    use prometheus::proto::MetricFamily;
    use prometheus::{Counter, Gauge, IntGauge};

    pub(super) struct Process {
        cpu: Counter,
        resident_memory: IntGauge,
        open_fds: IntGauge,
        max_fds: IntGauge,
        start_time: Gauge,
    }

    impl Process {
        pub(super) fn new() -> prometheus::Result<Self> {
            Ok(Self {
                cpu: Counter::new("process_cpu_seconds_total", "CPU time of the process and of the kernel for it.")?,
                resident_memory: IntGauge::new("process_resident_memory_bytes", "Resident memory.")?,
                open_fds: IntGauge::new("process_open_fds", "Open file descriptors.")?,
                max_fds: IntGauge::new("process_max_fds", "The most file descriptors that may be open.")?,
                start_time: Gauge::new("process_start_time_seconds", "Start time, in seconds since 1970.")?,
            })
        }

        /// Reads the values. Those that cannot be read stay.
        fn read(&self) -> ProcResult<()> {
            let process = Entry::myself()?;
            let stat = process.stat()?;
            let time = |ticks: u64| Duration::from_millis(ticks * 1000 / procfs::ticks_per_second());
            let cpu = time(stat.utime + stat.stime).as_secs_f64();
            self.cpu.inc_by((cpu - self.cpu.get()).max(0.0));
            let memory = stat.rss_bytes().get();
            self.resident_memory.set(i64::try_from(memory).unwrap_or(i64::MAX));
            let since_1970 = Duration::from_secs(procfs::boot_time_secs()?) + time(stat.starttime);
            self.start_time.set(since_1970.as_secs_f64());
            if let LimitValue::Value(max) = process.limits()?.max_open_files.soft_limit {
                self.max_fds.set(i64::try_from(max).unwrap_or(i64::MAX));
            }
            self.open_fds.set(i64::try_from(process.fd_count()?).unwrap_or(i64::MAX));
            Ok(())
        }

        fn parts(&self) -> [&dyn Collector; 5] {
            [&self.cpu, &self.resident_memory, &self.open_fds, &self.max_fds, &self.start_time]
        }
    }

    impl Collector for Process {
        fn desc(&self) -> Vec<&Desc> {
            self.parts().into_iter().flat_map(Collector::desc).collect()
        }

        fn collect(&self) -> Vec<MetricFamily> {
            if let Err(error) = self.read() {
                tracing::debug!(%error, "the resources of the process cannot be read");
            }
            self.parts().into_iter().flat_map(Collector::collect).collect()
        }
    }
}
