//! The signals that end a process (factor IX: disposability).
//!
//! They are handled from the start, because a process that is PID 1 of its container has no default actions.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancellation tokens for shutdown.
#[derive(Clone, Default)]
pub struct Stop {
    requested: CancellationToken,
    immediate: CancellationToken,
}

impl Stop {
    /// Is cancelled when a stop is requested.
    #[must_use]
    pub const fn token(&self) -> &CancellationToken {
        &self.requested
    }

    /// Requests a stop, as SIGTERM does.
    pub fn request_stop(&self) {
        self.requested.cancel();
    }

    /// Requests a stop that must not wait for load balancers, as SIGINT does.
    pub fn request_immediate_stop(&self) {
        self.immediate.cancel();
        self.requested.cancel();
    }

    /// Runs a task to its end. Drops it if it still runs this time after a stop request, and returns `None`.
    pub async fn bounded<T>(&self, limit: Duration, task: impl Future<Output = T>) -> Option<T> {
        let over = async {
            self.requested.cancelled().await;
            tokio::time::sleep(limit).await;
        };
        tokio::select! {
            done = task => Some(done),
            () = over => None,
        }
    }

    /// Completes when a stop is requested that must not wait for load balancers.
    pub async fn immediate(&self) {
        self.immediate.cancelled().await;
    }
}

/// The handlers of the signals that request a stop. SIGHUP is received too, and ignored.
pub struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    _hangup: tokio::signal::unix::Signal,
}

/// A signal that requests a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, from a process manager.
    Terminate,
    /// SIGINT, from a keyboard.
    Interrupt,
}

impl Signal {
    /// The exit code of a process that the signal ended early: 128 and its number, as shells have it.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Terminate => 143,
            Self::Interrupt => 130,
        }
    }
}

impl Signals {
    /// Replaces the default actions of the signals.
    ///
    /// # Errors
    /// When the system refuses a handler.
    pub fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            _hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next signal.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Interrupt,
        }
    }

    /// Runs a task, and requests its stop at the first signal. Drops it at the second. Returns the outcome of a task that
    /// was not dropped, and the last signal, if there was one.
    pub async fn run<T>(&mut self, stop: &Stop, task: impl Future<Output = T>) -> (Option<T>, Option<Signal>) {
        tokio::pin!(task);
        let first = tokio::select! {
            done = &mut task => return (Some(done), None),
            signal = self.next() => signal,
        };
        tracing::info!(signal = ?first, "stopping");
        match first {
            Signal::Interrupt => stop.request_immediate_stop(),
            Signal::Terminate => stop.request_stop(),
        }
        tokio::select! {
            done = &mut task => (Some(done), Some(first)),
            second = self.next() => (None, Some(second)),
        }
    }
}
