//! The end of a process that fails no request (factor IX).
//!
//! ```text
//! serving ── SIGTERM or SIGINT ──▶ not ready ── DRAIN_DELAY_MS ──▶ refusing new connections ──▶ finishing ──▶ exit
//! ```
//!
//! - **not ready**: `/readyz` is 503, so load balancers route elsewhere. Requests are served, and each response closes its
//!   connection. SIGINT, from a terminal, skips the delay.
//! - **refusing new connections**: closing a listener resets the connections that wait in its queue, and so does
//!   `SHUT_RD`. So a socket filter drops SYN packets for a moment. Pending handshakes complete, and the queue empties. Then
//!   the listener is closed. A client retransmits its SYN after about a second: another process accepts it, or it is
//!   refused, and load balancers retry elsewhere.
//! - **finishing**: idle connections are closed, and requests and streams complete. Those that still run after
//!   `SHUTDOWN_TIMEOUT_MS` are aborted and counted.

use std::io;
use std::net::{Shutdown, TcpListener};
use std::time::Duration;

use actix_server::ServerHandle;
use socket2::{SockFilter, Socket};
use tokio::time::{sleep, timeout};

use crate::config::Config;
use crate::lifecycle::{Lifecycle, Stop};

/// The time for handshakes to complete and for the queue of the listener to empty.
const ACCEPT_QUEUE_DRAIN: Duration = Duration::from_millis(200);
/// The time for the accept loop to pause.
const PAUSE: Duration = Duration::from_millis(50);
/// The time for aborted requests to write their log lines.
const ABORT_LOG_TIMEOUT: Duration = Duration::from_millis(200);

/// The listeners, which can refuse new connections without a reset of those in their queues.
pub(super) enum AcceptGate {
    /// Listeners of this process alone, or those among several that share their port.
    Own(Vec<Socket>),
    /// A listener that other processes hold, too. The next process accepts what this one does not.
    Inherited,
}

impl AcceptGate {
    pub(super) fn own(listeners: &[TcpListener]) -> io::Result<Self> {
        let listeners = listeners.iter().map(|listener| listener.try_clone().map(Socket::from));
        listeners.collect::<Result<_, _>>().map(Self::Own)
    }

    /// Accepts the connections in the queues, and no later ones.
    async fn close(&self, server: &ServerHandle) {
        let Self::Own(listeners) = self else {
            server.pause().await;
            // Connections that were accepted meanwhile send their requests.
            return sleep(ACCEPT_QUEUE_DRAIN).await;
        };
        // Without the filter, connections that arrive in the last moment are reset.
        for listener in listeners {
            let _ = drop_syn_packets(listener);
        }
        sleep(ACCEPT_QUEUE_DRAIN).await;
        server.pause().await;
        // The server has received the command, and is about to execute it.
        sleep(PAUSE).await;
        for listener in listeners {
            let _ = listener.shutdown(Shutdown::Read);
        }
    }
}

/// Drops every segment with a SYN that comes for this listener, by a filter in the kernel.
#[cfg(target_os = "linux")]
fn drop_syn_packets(listener: &Socket) -> io::Result<()> {
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_SET: u16 = 0x45;
    const RETURN: u16 = 0x06;
    /// The offset of the flags in a TCP header, and the flag that begins a connection (RFC 9293, section 3.1).
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    listener.attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(JUMP_IF_SET, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])
}

#[cfg(not(target_os = "linux"))]
fn drop_syn_packets(_listener: &Socket) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Ends a server, and returns the number of aborted requests.
pub(super) async fn drain(
    config: &Config,
    lifecycle: &Lifecycle,
    server: &ServerHandle,
    gate: AcceptGate,
    stop: &Stop,
) -> usize {
    lifecycle.mark_unready();
    let delay = Duration::from_millis(config.drain_delay_ms);
    // The delay ends early if the stop must be immediate.
    let _ = timeout(delay, stop.immediate()).await;

    gate.close(server).await;

    lifecycle.idle_connections_end().cancel();
    let limit = Duration::from_millis(config.shutdown_timeout_ms.get());
    let mut aborted = 0;
    if timeout(limit, lifecycle.without_connections()).await.is_err() {
        aborted = lifecycle.abort();
        if aborted > 0 {
            tracing::error!(aborted, "SHUTDOWN_TIMEOUT_MS: requests were aborted");
        }
        let _ = timeout(ABORT_LOG_TIMEOUT, lifecycle.without_connections()).await;
    }
    // Connections that remain are dropped.
    server.stop(false).await;
    drop(gate);
    aborted
}
