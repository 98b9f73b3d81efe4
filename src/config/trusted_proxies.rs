//! The proxies whose header names the client of a request.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::values::{one_of, shown};

/// Networks of trusted proxies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Whether this is the address of a trusted proxy.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

impl FromStr for TrustedProxies {
    type Err = String;

    /// Parses addresses and networks, separated by commas or white space.
    fn from_str(text: &str) -> Result<Self, String> {
        let items = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|item| !item.is_empty());
        let networks = items.map(|item| {
            let network = item.parse().ok().or_else(|| item.parse().ok().map(|address: IpAddr| address.into()));
            let expected = "expected addresses and networks, such as 10.0.0.0/8, fd00::/8 or 192.0.2.1";
            network.ok_or_else(|| format!("{expected}, got {}", shown(item)))
        });
        match networks.collect::<Result<Vec<_>, _>>()? {
            none if none.is_empty() => Err(format!("expected addresses or networks, got {}", shown(text))),
            networks => Ok(Self(networks)),
        }
    }
}

impl<'de> Deserialize<'de> for TrustedProxies {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for TrustedProxies {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let networks: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        serializer.serialize_str(&networks.join(","))
    }
}

/// The header in which proxies name their client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientAddressHeader {
    /// `X-Forwarded-For`, which most proxies write.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

impl<'de> Deserialize<'de> for ClientAddressHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let values = [("x-forwarded-for", Self::XForwardedFor), ("forwarded", Self::Forwarded)];
        one_of(&String::deserialize(deserializer)?, &values).map_err(D::Error::custom)
    }
}
