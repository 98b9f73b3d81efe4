//! The runtime of a process.

use tokio::runtime::Builder;

/// Runs a task to its end, in this thread. The lookup of a name runs in another thread, which nothing can stop, and may take
/// longer than all time limits. It is abandoned.
///
/// # Panics
/// When the system has no resources for a runtime.
pub fn block_on<T>(task: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread().enable_all().build().expect("the system has file descriptors");
    let outcome = runtime.block_on(task);
    runtime.shutdown_background();
    outcome
}
