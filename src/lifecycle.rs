//! A process from its start to its end: the signals, whether it is ready, and what is in flight.

mod runtime;
mod signals;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use runtime::block_on;
pub use signals::{Signal, Signals, Stop};

/// What is in flight in a process, and whether it has to end.
#[derive(Default)]
pub struct Lifecycle {
    /// Requests at work.
    in_flight: AtomicUsize,
    /// Requests whose responses were not sent completely.
    unfinished: AtomicUsize,
    connections: AtomicUsize,
    /// Is notified when the last connection ends.
    last_connection_ended: Notify,
    is_unready: AtomicBool,
    idle_connections_end: CancellationToken,
    all_connections_end: CancellationToken,
}

impl Lifecycle {
    /// Counts a request whose head is complete.
    #[must_use]
    pub fn request(self: &Arc<Self>) -> RequestGuard {
        self.unfinished.fetch_add(1, Ordering::Relaxed);
        RequestGuard { lifecycle: self.clone(), is_in_flight: false }
    }

    /// Counts a connection.
    #[must_use]
    pub fn connection(self: &Arc<Self>) -> ConnectionGuard {
        self.connections.fetch_add(1, Ordering::Relaxed);
        ConnectionGuard(self.clone())
    }

    /// The number of requests at work.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether the process must not receive new requests.
    #[must_use]
    pub fn is_unready(&self) -> bool {
        self.is_unready.load(Ordering::Relaxed)
    }

    /// Marks the process as not ready, permanently. Load balancers send no more requests, and each response is the last of
    /// its connection.
    pub fn mark_unready(&self) {
        self.is_unready.store(true, Ordering::Relaxed);
    }

    /// Is cancelled when connections end that serve no request. All others end after their current request.
    #[must_use]
    pub const fn idle_connections_end(&self) -> &CancellationToken {
        &self.idle_connections_end
    }

    /// Is cancelled when all connections end.
    #[must_use]
    pub const fn all_connections_end(&self) -> &CancellationToken {
        &self.all_connections_end
    }

    /// Waits until no connection is left.
    pub async fn without_connections(&self) {
        let last_ended = self.last_connection_ended.notified();
        if self.connections.load(Ordering::Acquire) > 0 {
            last_ended.await;
        }
    }

    /// Ends all connections, and returns the number of aborted requests.
    pub fn abort(&self) -> usize {
        let aborted = self.unfinished.load(Ordering::Relaxed);
        self.all_connections_end.cancel();
        aborted
    }
}

/// Counts a request until its response is sent, or aborted.
pub struct RequestGuard {
    lifecycle: Arc<Lifecycle>,
    is_in_flight: bool,
}

impl RequestGuard {
    /// Counts the request as at work. Returns the number of other requests at work.
    pub fn begin_work(&mut self) -> usize {
        self.is_in_flight = true;
        self.lifecycle.in_flight.fetch_add(1, Ordering::Relaxed)
    }

    /// Stops counting the request as at work. A client that does not read its response uses memory only.
    pub fn end_work(&mut self) {
        if std::mem::take(&mut self.is_in_flight) {
            self.lifecycle.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.end_work();
        self.lifecycle.unfinished.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a connection until it is closed.
pub struct ConnectionGuard(Arc<Lifecycle>);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        if self.0.connections.fetch_sub(1, Ordering::Release) == 1 {
            self.0.last_connection_ended.notify_waiters();
        }
    }
}
