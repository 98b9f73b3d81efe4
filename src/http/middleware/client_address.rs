//! The address of a client behind trusted proxies.

use std::net::{IpAddr, SocketAddr};

use actix_web::dev::ServiceRequest;
use actix_web::http::header::{HeaderName, HeaderValue};

use crate::config::{ClientAddressHeader, TrustedProxies};
use crate::http::state::Proxies;

/// The address of the client. None without trusted proxies, and if a proxy has not named an address.
///
/// Each proxy appends the address of its client to the header, so it is read from its end: the first address that is not a
/// trusted proxy is that of the client. What precedes it may be written by the client.
pub(super) fn of(request: &ServiceRequest, proxies: &Proxies) -> Option<IpAddr> {
    let trusted = proxies.trusted.as_ref()?;
    let (name, address) = match proxies.header {
        ClientAddressHeader::XForwardedFor => ("x-forwarded-for", parse as fn(&str) -> _),
        ClientAddressHeader::Forwarded => ("forwarded", parse_element as _),
    };
    let lines: Vec<_> = request.headers().get_all(HeaderName::from_static(name)).map(HeaderValue::as_bytes).collect();
    let peer = request.peer_addr()?.ip().to_canonical();
    walk(peer, &lines, address, trusted)
}

/// The address of a connection that has sent no request. None if it is a trusted proxy, because its client is unknown.
pub(super) fn of_peer(peer: SocketAddr, proxies: &Proxies) -> Option<IpAddr> {
    let (trusted, peer) = (proxies.trusted.as_ref()?, peer.ip().to_canonical());
    (!trusted.contains(peer)).then_some(peer)
}

fn walk(
    peer: IpAddr,
    lines: &[&[u8]],
    address: fn(&str) -> Option<IpAddr>,
    trusted: &TrustedProxies,
) -> Option<IpAddr> {
    let mut client = peer;
    for element in lines.iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b',')) {
        if !trusted.contains(client) {
            break;
        }
        client = address(str::from_utf8(element).ok()?)?;
    }
    Some(client)
}

/// The address in an element of `Forwarded` (RFC 7239, section 4).
fn parse_element(element: &str) -> Option<IpAddr> {
    let pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let (_, node) = pairs.into_iter().find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    let node = node.trim();
    parse(node.strip_prefix('"').and_then(|node| node.strip_suffix('"')).unwrap_or(node))
}

/// An address, which may have a port. An IPv6 address may be in brackets.
fn parse(node: &str) -> Option<IpAddr> {
    let node = node.trim();
    let bare = node.strip_prefix('[').and_then(|node| node.strip_suffix(']')).unwrap_or(node);
    let address = bare.parse().ok().or_else(|| node.parse::<SocketAddr>().ok().map(|address| address.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, header: &[&str], parse: fn(&str) -> Option<IpAddr>) -> Option<String> {
        let trusted: TrustedProxies = "10.0.0.0/8, ::1, fd00::/8".parse().expect("it is valid");
        let lines: Vec<_> = header.iter().map(|line| line.as_bytes()).collect();
        walk(peer.parse().expect("an address"), &lines, parse, &trusted).map(|address| address.to_string())
    }

    #[test]
    fn the_client_is_the_last_address_that_is_not_trusted() {
        for (peer, header, expected) in [
            // The header of an untrusted peer is ignored.
            ("192.0.2.1", &["198.51.100.9"][..], Some("192.0.2.1")),
            ("10.0.0.1", &[], Some("10.0.0.1")),
            ("10.0.0.1", &["198.51.100.9"], Some("198.51.100.9")),
            ("10.0.0.1", &["6.6.6.6, 198.51.100.9"], Some("198.51.100.9")),
            ("10.0.0.1", &["6.6.6.6, 198.51.100.9, 10.2.3.4"], Some("198.51.100.9")),
            ("10.0.0.1", &["6.6.6.6", "198.51.100.9,10.2.3.4"], Some("198.51.100.9")),
            ("::1", &["10.9.9.9 , 10.2.3.4"], Some("10.9.9.9")),
            ("fd00::1", &["2001:db8::7"], Some("2001:db8::7")),
            ("10.0.0.1", &["198.51.100.9:4711"], Some("198.51.100.9")),
            ("10.0.0.1", &["[2001:db8::7]:4711"], Some("2001:db8::7")),
            ("10.0.0.1", &["6.6.6.6, ::ffff:10.0.0.2"], Some("6.6.6.6")),
            ("10.0.0.1", &["6.6.6.6, unknown"], None),
            ("10.0.0.1", &["6.6.6.6, alice@example.com"], None),
            ("10.0.0.1", &["6.6.6.6,"], None),
            ("10.0.0.1", &["alice@example.com, 198.51.100.9"], Some("198.51.100.9")),
        ] {
            assert_eq!(client(peer, header, parse).as_deref(), expected, "{peer} {header:?}");
        }
    }

    #[test]
    fn an_element_of_forwarded_has_an_address() {
        for (header, expected) in [
            ("for=192.0.2.60;proto=http;by=203.0.113.43", Some("192.0.2.60")),
            ("for=\"6.6.6.6, For=\"[2001:db8:cafe::17]:4711\"", Some("2001:db8:cafe::17")),
            ("for=192.0.2.43, for=\"10.0.0.7:80\"", Some("192.0.2.43")),
            ("proto=https; for = \"192.0.2.43\"", Some("192.0.2.43")),
            ("for=_hidden", None),
            ("for=unknown", None),
            ("proto=https", None),
        ] {
            assert_eq!(client("10.0.0.1", &[header], parse_element).as_deref(), expected, "{header}");
        }
    }
}
