//! `HOST`: what a server binds.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::values::shown;

/// An IP address, or a name that is resolved when the server starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An address of this machine, or `::` or `0.0.0.0` for every address.
    Address(IpAddr),
    /// A name, such as `localhost`. Each of its addresses is bound, because clients try them in any order.
    Name(String),
}

impl Host {
    /// Its addresses, each once, in the order of the resolver.
    ///
    /// # Errors
    /// When a name cannot be resolved.
    pub fn addresses(&self) -> io::Result<Vec<IpAddr>> {
        match self {
            Self::Address(address) => Ok(vec![*address]),
            Self::Name(name) => {
                let mut known = BTreeSet::new();
                let found = (name.as_str(), 0).to_socket_addrs()?.map(|address| address.ip());
                Ok(found.filter(|address| known.insert(*address)).collect())
            }
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse() {
            return Ok(Self::Address(address));
        }
        if is_name(text) {
            return Ok(Self::Name(text.to_owned()));
        }
        let expected = "expected an IP address, such as :: or 0.0.0.0 for every address, or a name, such as localhost";
        let has_port = text.rsplit_once(':').is_some_and(|(host, port)| is_name(host) && port.parse::<u16>().is_ok());
        let advice = if has_port { "; set PORT to the port" } else { "" };
        Err(format!("{expected}, got {}{advice}", shown(text)))
    }
}

/// Whether this can be the name of a host (RFC 1123, and underscores). A name whose last label has only digits would be a
/// wrong IPv4 address, which resolvers complete with zeros.
fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let last = text.rsplit('.').next().unwrap_or(text);
    text.len() <= 253 && text.split('.').all(is_label) && !last.bytes().all(|byte| byte.is_ascii_digit())
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl<'de> Deserialize<'de> for Host {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl Serialize for Host {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
