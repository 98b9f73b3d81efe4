//! Where a database is, and how the bytes reach it: what may be shown of its URL.

use std::net::IpAddr;

use super::tls::Tls;

/// The parts of a URL that give no access to the database.
#[derive(Clone)]
pub(super) struct Location {
    pub(super) transport: Transport,
    /// The host and port, the socket, or the file.
    pub(super) address: String,
    /// The URL without the password and the parameters.
    pub(super) redacted: String,
}

/// How the bytes reach the database.
#[derive(Clone, Copy)]
pub(super) enum Transport {
    Embedded,
    Socket,
    Network {
        tls: Tls,
        /// Whether the server is on this machine.
        is_local: bool,
    },
}

impl Transport {
    /// A connection to a host.
    pub(super) fn network(tls: Tls, host: &str) -> Self {
        Self::Network { tls, is_local: is_this_machine(host) }
    }
}

fn is_this_machine(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}
