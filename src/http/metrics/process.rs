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
    use std::time::Duration;

    use procfs::process::{LimitValue, Process as Entry};
    use procfs::{ProcResult, WithCurrentSystemInfo as _};
    use prometheus::core::{Collector, Desc};
    use prometheus::proto::MetricFamily;
    use prometheus::{Counter, Gauge, IntGauge};

    pub(super) struct Process {
        cpu: Counter,
        resident_memory: IntGauge,
        open_fds: IntGauge,
        max_fds: Gauge,
        /// It does not change. None if it cannot be read.
        start_time: Option<Gauge>,
    }

    impl Process {
        pub(super) fn new() -> prometheus::Result<Self> {
            let start_time = Gauge::new("process_start_time_seconds", "Start time, in seconds since 1970.")?;
            Ok(Self {
                cpu: Counter::new("process_cpu_seconds_total", "CPU time of the process and of the kernel for it.")?,
                resident_memory: IntGauge::new("process_resident_memory_bytes", "Resident memory.")?,
                open_fds: IntGauge::new("process_open_fds", "Open file descriptors.")?,
                max_fds: Gauge::new("process_max_fds", "The most file descriptors that may be open.")?,
                start_time: logged(started()).map(|started| {
                    start_time.set(started.as_secs_f64());
                    start_time
                }),
            })
        }
    }

    impl Collector for Process {
        fn desc(&self) -> Vec<&Desc> {
            let read: [&dyn Collector; 4] = [&self.cpu, &self.resident_memory, &self.open_fds, &self.max_fds];
            read.into_iter().flat_map(Collector::desc).chain(self.start_time.iter().flat_map(Collector::desc)).collect()
        }

        /// Each value is read on its own, and absent if it cannot be read.
        fn collect(&self) -> Vec<MetricFamily> {
            let mut families: Vec<_> = self.start_time.iter().flat_map(Collector::collect).collect();
            let Some(process) = logged(Entry::myself()) else { return families };
            if let Some(stat) = logged(process.stat()) {
                let cpu = duration(stat.utime + stat.stime).as_secs_f64();
                self.cpu.inc_by((cpu - self.cpu.get()).max(0.0));
                self.resident_memory.set(i64::try_from(stat.rss_bytes().get()).unwrap_or(i64::MAX));
                families.extend(self.cpu.collect());
                families.extend(self.resident_memory.collect());
            }
            if let Some(count) = logged(process.fd_count()) {
                self.open_fds.set(i64::try_from(count).unwrap_or(i64::MAX));
                families.extend(self.open_fds.collect());
            }
            if let Some(limits) = logged(process.limits()) {
                self.max_fds.set(number(limits.max_open_files.soft_limit));
                families.extend(self.max_fds.collect());
            }
            families
        }
    }

    /// The time from 1970 to the start of the process.
    fn started() -> ProcResult<Duration> {
        Ok(Duration::from_secs(procfs::boot_time_secs()?) + duration(Entry::myself()?.stat()?.starttime))
    }

    fn duration(ticks: u64) -> Duration {
        Duration::from_millis(ticks * 1000 / procfs::ticks_per_second())
    }

    /// A limit as a number, which is infinite if there is none. Then no part of it is in use.
    fn number(limit: LimitValue) -> f64 {
        match limit {
            LimitValue::Value(most) => u32::try_from(most).map_or(f64::INFINITY, f64::from),
            LimitValue::Unlimited => f64::INFINITY,
        }
    }

    fn logged<T>(read: ProcResult<T>) -> Option<T> {
        read.inspect_err(|error| tracing::debug!(%error, "a resource of the process cannot be read")).ok()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn no_limit_is_infinite() {
            assert!((number(LimitValue::Value(1024)) - 1024.0).abs() < f64::EPSILON);
            assert!(
                [LimitValue::Unlimited, LimitValue::Value(u64::MAX)].into_iter().all(|it| number(it).is_infinite())
            );
        }

        #[test]
        fn only_values_that_were_read_are_exported() {
            let mut process = Process::new().expect("the names are valid");
            let names = |process: &Process| process.collect().iter().map(|it| it.name().to_owned()).collect::<Vec<_>>();
            assert_eq!((names(&process).len(), process.desc().len()), (5, 5));
            process.start_time = None;
            let name = "process_start_time_seconds".to_owned();
            assert!(!names(&process).contains(&name) && process.desc().len() == 4);
        }
    }
}
