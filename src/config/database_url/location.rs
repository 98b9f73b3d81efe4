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
    File,
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

    /// Whether the connection to a server is encrypted and the server verified.
    pub(super) fn protection(self) -> Option<&'static str> {
        Some(match self {
            Self::File => return None,
            Self::Socket => "a Unix socket: not encrypted, and not sent over a network",
            Self::Network { tls: Tls::Disabled, .. } => "not encrypted, server not verified",
            Self::Network { tls: Tls::Preferred, .. } => {
                "encrypted only if the server supports TLS, server not verified"
            }
            Self::Network { tls: Tls::Required, .. } => "encrypted, server not verified",
            Self::Network { tls: Tls::VerifyAuthority, .. } => {
                "encrypted, server certificate verified, host name not verified"
            }
            Self::Network { tls: Tls::VerifyHost, .. } => "encrypted, server certificate and host name verified",
        })
    }
}

fn is_this_machine(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}
