//! The URL of a database server.

use std::net::Ipv6Addr;

use sqlx::ConnectOptions;
use url::{ParseError, Url};

use super::location::Location;
use super::parameters::{Parameters, Row};
use super::tls::{Tls, Transport};
use crate::config::names::canonical;

const UNENCODED: &str = "a special character of the user, password or database must be percent-encoded: / as %2F, \
                         ? as %3F, # as %23, @ as %40, : as %3A, & as %26, ; as %3B, = as %3D, [ as %5B, ] as %5D";

/// The validated URL of a database server.
pub(super) struct Server {
    pub(super) url: Url,
    pub(super) parameters: Parameters,
    pub(super) is_host_given: bool,
}

impl Server {
    pub(super) fn parse(scheme: &str, rest: &str, table: &'static [Row]) -> Result<Self, String> {
        let written = format!("write it as {scheme}://user:password@host/database");
        let rest = rest.strip_prefix("//").ok_or(&written)?;
        let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (login, host) = authority.rsplit_once('@').map_or((None, authority), |(login, host)| (Some(login), host));
        let path = tail.split('?').next().unwrap_or_default();
        // Each of these moves a part of the password, or a parameter such as sslmode, to where it has no effect.
        if tail.contains(['@', '#']) || path.contains(['&', ';', '=']) || host.contains('\\') {
            return Err(UNENCODED.into());
        }
        // A password that begins with a slash, without an @ after it, has the same effect.
        if host.ends_with(':') {
            return Err(format!("the port is empty, or {UNENCODED}"));
        }
        if host.contains(',') {
            return Err("it names more than one host; name one".into());
        }
        // The parser rejects an empty host after a user, as in user@/database?host=/socket.
        let (login, at) = login.map_or(("", ""), |login| (login, "@"));
        let assumed = if host.is_empty() || host.starts_with(':') { "localhost" } else { "" };
        let is_host_given = assumed.is_empty();
        let url = Url::parse(&format!("{scheme}://{login}{at}{assumed}{host}{tail}")).map_err(|error| match error {
            ParseError::InvalidPort => format!(
                "the port is not a number from 1 to 65535, or {UNENCODED}; an IPv6 address is written in brackets"
            ),
            ParseError::InvalidIpv6Address => "the IPv6 address in brackets is not valid".to_owned(),
            _ => format!("the host is not valid, or {UNENCODED}; {written}"),
        })?;
        if url.port() == Some(0) {
            return Err("the port is not a number from 1 to 65535".into());
        }
        if url.path().trim_start_matches('/').contains('/') {
            return Err(format!("its path has more than the name of a database, or {UNENCODED}"));
        }
        let has_database = !url.path().trim_start_matches('/').is_empty();
        // Checked before the parameters, because apparent parameters may be a part of a password.
        if !has_database && !url.query_pairs().any(|(name, _)| name == "dbname") {
            return Err(format!("the URL names no database; end its path with one, as in {scheme}://host/roster"));
        }
        let mut parameters = Parameters::default();
        let parts = [
            ("user", !url.username().is_empty()),
            ("password", url.password().is_some()),
            ("dbname", has_database),
            ("port", url.port().is_some()),
        ];
        parameters.seen.extend(parts.into_iter().filter(|(_, is_given)| *is_given).map(|(name, _)| canonical(name)));
        parameters.read(table, url.query_pairs());
        parameters.check_pairs();
        Ok(Self { parameters: parameters.checked()?, url, is_host_given })
    }

    /// The options that the driver reads from the URL, which has only supported parameters.
    pub(super) fn driver_options<O: ConnectOptions>(&self) -> Result<O, String> {
        let mut url = self.url.clone();
        url.set_query(None);
        if !self.parameters.driver.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.parameters.driver);
        }
        let options = O::from_url(&url).map_err(|_| "a part of it is not UTF-8 once it is percent-decoded")?;
        Ok(options.disable_statement_logging())
    }

    /// The address in brackets. The drivers would treat it as a name.
    pub(super) fn ipv6(&self) -> Option<Ipv6Addr> {
        self.url.host_str()?.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
    }

    /// Where the server is, once the driver has read its host and port.
    pub(super) fn location(self, socket: Option<String>, host: &str, port: u16, tls: Tls) -> Location {
        let mut shown = self.url;
        // A parameter can contain a password.
        shown.set_query(None);
        // A URL with a user or a password has a host, so they can be replaced.
        if shown.password().is_some() {
            let _ = shown.set_password(Some("***"));
        }
        // A percent-encoded character may come from a password in the wrong part.
        if shown.username().contains('%') {
            let _ = shown.set_username("***");
        }
        if shown.path().contains('%') {
            shown.set_path("***");
        }
        let socket = socket.or_else(|| host.starts_with('/').then(|| host.to_owned()));
        let transport = match socket {
            Some(_) => Transport::Socket,
            None => Transport::network(tls, host),
        };
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let address = socket.unwrap_or_else(|| format!("{host}:{port}"));
        Location { transport: Some(transport), address, redacted: shown.to_string() }
    }
}
