//! The end of a process that fails no request (factor IX).
//!
//! ```text
//! serving ── SIGTERM or SIGINT ──▶ leaving ── DRAIN_DELAY_MS ──▶ closing the door ── SETTLE ──▶ finishing ──▶ gone
//! ```
//!
//! - **leaving**: `/readyz` is 503, so balancers send elsewhere; whatever comes is served, and every answer ends its
//!   connection. SIGINT, from a keyboard, leaves this out.
//! - **closing the door**: nobody new comes in. A listener that is closed resets the connections that wait to be
//!   accepted, and so does `SHUT_RD`. So the listener stays open for a moment, and only the first segment of a new
//!   connection, its SYN, is dropped: who sent it tries again within a second and meets another process or a refusal,
//!   which balancers repeat elsewhere. Handshakes under way complete, and the queue empties.
//! - **finishing**: connections that are not used are ended, requests and streams are finished, and what is not
//!   finished by `SHUTDOWN_TIMEOUT_MS` is cut off, and counted.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use actix_server::ServerHandle;
use socket2::{SockFilter, Socket};
use tokio::time::timeout;

use crate::config::Config;
use crate::http::State;
use crate::shutdown::Stop;

/// How long connections that are on their way in may take to arrive.
const SETTLE: Duration = Duration::from_millis(200);

/// The way in, which can be closed to those who are not in it yet.
pub(super) enum Door {
    /// A listener of this process alone, or one of several that share its port.
    Own(Socket),
    /// A listener that others hold as well: the next process accepts what this one does not.
    Inherited,
}

impl Door {
    pub(super) fn own(listener: &TcpListener) -> io::Result<Self> {
        listener.try_clone().map(|listener| Self::Own(listener.into()))
    }

    /// Lets nobody new in.
    async fn close(&self, server: &ServerHandle) {
        match self {
            Self::Own(listener) if drop_new(listener).is_ok() => {}
            // What waits to be accepted is left to whoever else has the listener, if anybody has.
            _ => server.pause().await,
        }
    }
}

/// Drops every segment with a SYN that comes for this listener, by a filter in the kernel.
#[cfg(target_os = "linux")]
fn drop_new(listener: &Socket) -> io::Result<()> {
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_SET: u16 = 0x45;
    const RETURN: u16 = 0x06;
    /// Where a TCP header has its flags, and the one that begins a connection (RFC 9293, section 3.1).
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
fn drop_new(_listener: &Socket) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Brings a server to its end, and tells how many requests were cut off.
pub(super) async fn drain(config: &Config, state: &State, server: &ServerHandle, door: Door, stop: &Stop) -> usize {
    state.leave();
    let delay = Duration::from_millis(config.drain_delay_ms);
    // An Err is the delay's end, and an Ok a reason to cut it short.
    let _ = timeout(delay, stop.without_delay()).await;

    door.close(server).await;
    tokio::time::sleep(SETTLE).await;

    state.end_idle_connections();
    let limit = Duration::from_millis(config.shutdown_timeout_ms.get());
    let mut cut = 0;
    if timeout(limit, state.without_connections()).await.is_err() {
        cut = state.cut_off();
        if cut > 0 {
            tracing::error!(cut, "SHUTDOWN_TIMEOUT_MS: requests were cut off");
        }
        // Each has a last line to write.
        let _ = timeout(SETTLE, state.without_connections()).await;
    }
    // Nothing is left to wait for.
    server.stop(false).await;
    drop(door);
    cut
}
