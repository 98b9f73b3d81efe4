//! What protects the connection to a server, as a report and as a warning.

use super::tls::{Tls, Transport};
use super::{DatabaseUrl, DriverOptions};

impl DatabaseUrl {
    /// Whether the connection to a server is encrypted and the server verified.
    #[must_use]
    pub fn protection(&self) -> Option<&'static str> {
        Some(match self.location.transport? {
            Transport::Socket => "a Unix socket: not encrypted, and not sent over a network",
            Transport::Network { tls, .. } => match tls {
                Tls::Disabled => "not encrypted, server not verified",
                Tls::Preferred => "encrypted only if the server supports TLS, server not verified",
                Tls::Required => "encrypted, server not verified",
                Tls::VerifyAuthority => "encrypted, server certificate verified, host name not verified",
                Tls::VerifyHost => "encrypted, server certificate and host name verified",
            },
        })
    }

    /// A warning when the connection leaves this machine and may be in plain text.
    pub(in crate::config) fn warning(&self) -> Option<String> {
        let Some(Transport::Network { tls, is_local: false }) = self.location.transport else { return None };
        let problem = match tls {
            Tls::Disabled => "is not encrypted",
            Tls::Preferred => "is not encrypted if the server does not support TLS",
            Tls::Required | Tls::VerifyAuthority | Tls::VerifyHost => return None,
        };
        let fix = match self.options {
            DriverOptions::MySql(_) => "ssl-mode=VERIFY_IDENTITY",
            DriverOptions::Postgres(_) | DriverOptions::Sqlite(_) => "sslmode=verify-full",
        };
        Some(format!("DATABASE_URL: the connection to {} {problem}; add {fix}", self.address()))
    }
}
