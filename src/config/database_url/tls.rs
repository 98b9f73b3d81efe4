//! How the bytes reach a server, how much TLS protects them, and the files that it needs.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::net::IpAddr;

use crate::config::names::{canonical, suggestion};

/// What protects a connection over the network, from the weakest to the strongest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tls {
    Disabled,
    Preferred,
    Required,
    VerifyAuthority,
    VerifyHost,
}

impl Tls {
    /// The names of `sslmode` and of `ssl-mode`. Both are accepted by either parameter.
    const NAMES: [(&str, &str, Self); 5] = [
        ("disable", "DISABLED", Self::Disabled),
        ("prefer", "PREFERRED", Self::Preferred),
        ("require", "REQUIRED", Self::Required),
        ("verify-ca", "VERIFY_CA", Self::VerifyAuthority),
        ("verify-full", "VERIFY_IDENTITY", Self::VerifyHost),
    ];

    /// Reads the value of a parameter. An error has the names of this parameter.
    pub(super) fn parse(value: &str, parameter: &str) -> Result<Self, String> {
        let name = canonical(value);
        if name == "allow" {
            return Err("allow is not supported; use prefer, or a stronger mode".into());
        }
        let found =
            Self::NAMES.into_iter().find(|(one, other, _)| [one, other].map(|known| canonical(known)).contains(&name));
        found.map(|(.., tls)| tls).ok_or_else(|| {
            let names = Self::NAMES.map(|(lower, upper, _)| if parameter == "ssl-mode" { upper } else { lower });
            format!("unknown value; {}", suggestion(value, names))
        })
    }
}

/// The labels of PEM in the files.
pub(super) const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
pub(super) const PRIVATE_KEY: &str = "PRIVATE KEY-----";

/// Checks that a file can be read and contains PEM with this label. The driver would fail only when it connects, with
/// an error that does not name the parameter.
pub(super) fn check_pem(path: &str, label: &str) -> Result<(), String> {
    const SIZE_MAX: u64 = 1024 * 1024;
    if path.is_empty() || path.contains("-----BEGIN ") {
        return Err("expected the path of a file in PEM format".into());
    }
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| {
        if file.metadata()?.is_file() {
            file.take(SIZE_MAX).read_to_end(&mut text)
        } else {
            Err(ErrorKind::InvalidInput.into())
        }
    });
    read.map_err(|error| format!("the file that it names cannot be read: {error}"))?;
    let text = String::from_utf8_lossy(&text);
    if text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err("the key in the file is encrypted, which is not supported; decrypt it with `openssl pkey`".into());
    }
    if !text.contains(label) {
        return Err(format!("the file that it names has no `{label}` in it; convert it to PEM format"));
    }
    Ok(())
}

/// How the bytes reach a server.
#[derive(Clone, Copy)]
pub(super) enum Transport {
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
