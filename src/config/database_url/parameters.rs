//! The parameters of a database URL: those that are applied, and those that are rejected with advice. Each engine has a
//! table of its own.
//!
//! Names are compared without case, `-` and `_`: `sslmode`, `ssl-mode` and `sslMode` are one parameter.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;

// [only servers]
use super::tls::{self, Tls, check_pem};
// [end]
use crate::config::names::{canonical, suggestion};

/// How a parameter is handled.
#[derive(Clone, Copy, Debug)]
pub(super) enum Parameter {
    /// Passed to the driver.
    Text,
    /// Passed to the driver if it is one of these.
    OneOf(&'static [&'static str]),
    // [only servers]
    /// An integer in this range, passed to the driver.
    Number(u64, u64),
    /// The path of a readable file that contains PEM with this label, passed to the driver.
    Pem(&'static str),
    /// The folder of a Unix socket, or a host.
    HostOrFolder,
    /// An IP address.
    IpAddress,
    /// The path of a Unix socket.
    SocketPath,
    /// The protection by TLS.
    SslMode,
    /// The file with the certificate authority of the server.
    RootCertificate,
    /// A collation of utf8mb4.
    Collation,
    /// Whether the URL is that of a pooler such as PgBouncer.
    Pooler,
    /// Accepted with these values, which are the fixed behaviour. Any other value is rejected with the advice.
    Only(&'static [&'static str], &'static str),
    // [end]
    /// Rejected with advice.
    Refused(&'static str),
}

/// One parameter: the driver's name, other names, and how the parameter is handled.
pub(super) type Row = (&'static str, &'static [&'static str], Parameter);

/// The row of a parameter.
fn find(table: &'static [Row], name: &str) -> Option<&'static Row> {
    let name = canonical(name);
    table.iter().find(|(own, others, _)| [own].into_iter().chain(*others).any(|known| canonical(known) == name))
}

/// The names of the parameters that are applied.
fn names(table: &'static [Row]) -> impl Iterator<Item = &'static str> + Clone {
    let is_applied = |parameter: &Parameter| !matches!(parameter, Parameter::Refused(_));
    // [only servers]
    let is_applied = move |parameter: &Parameter| is_applied(parameter) && !matches!(parameter, Parameter::Only(..));
    // [end]
    table.iter().filter(move |(.., parameter)| is_applied(parameter)).map(|(name, ..)| *name)
}

pub(super) const POOL_SIZE: &str = "set DATABASE_MAX_CONNECTIONS in place of it";
pub(super) const ACQUIRE_TIMEOUT: &str = "set DATABASE_ACQUIRE_TIMEOUT_MS in place of it";
pub(super) const QUERY_TIMEOUT: &str = "set DATABASE_QUERY_TIMEOUT_MS in place of it";
pub(super) const NOT_SUPPORTED: &str = "it is not supported: remove it";
pub(super) const ALWAYS_UTC: &str = "times are always UTC: remove it";
pub(super) const POOL_SIZES: &[&str] = &[
    "pool_size",
    "max_pool_size",
    "maximum_pool_size",
    "pool_max_conns",
    "pool",
    "max_connections",
    "pool_min_conns",
    "min_pool_size",
    "minimum_idle",
];
pub(super) const CONNECT_TIMEOUTS: &[&str] =
    &["connection_timeout", "login_timeout", "pool_timeout", "acquire_timeout", "timeout", "pool_checkout_timeout"];
pub(super) const QUERY_TIMEOUTS: &[&str] =
    &["socket_timeout", "read_timeout", "write_timeout", "query_timeout", "lock_timeout", "max_execution_time"];

/// The parameters of a URL.
#[derive(Default)]
pub(super) struct Parameters {
    /// Parameters for the driver, by the driver's names.
    pub(super) driver: Vec<(String, String)>,
    // [only servers]
    pub(super) tls: Option<Tls>,
    pub(super) authority: Option<Authority>,
    pub(super) socket_path: Option<String>,
    pub(super) host_or_folder: Option<String>,
    pub(super) is_pooler: bool,
    // [end]
    /// Canonical names of the parameters, and of the parts that the URL has before its parameters.
    pub(super) seen: BTreeSet<String>,
    problems: Vec<String>,
}

// [only servers]
/// The certificate authority that must have issued the server's certificate.
#[derive(Clone, Copy)]
pub(super) enum Authority {
    File,
    /// The public authorities, which are built in.
    System,
}
// [end]

/// The statements that a connection keeps prepared, unless the URL has another number. Each listing has some for each order,
/// cursor and search, in five sizes.
pub(super) const STATEMENTS: usize = 400;

impl Parameters {
    // [only servers]
    /// Whether the URL has this parameter.
    pub(super) fn has(&self, name: &str) -> bool {
        self.seen.contains(&canonical(name))
    }
    // [end]

    pub(super) fn read<'a>(
        &mut self,
        table: &'static [Row],
        pairs: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>,
    ) {
        let mut has_password = false;
        for (name, value) in pairs {
            let is_behind_password = has_password;
            has_password |= canonical(&name).contains("pass");
            let is_setting = name.starts_with("options[") && name.ends_with(']') && find(table, "options").is_some();
            let (own, parameter) = match find(table, &name) {
                Some((own, _, parameter)) => (*own, *parameter),
                None if is_setting => (&*name, Parameter::Text),
                None => {
                    // It may be a part of a password: behind one, without a value, or with special characters.
                    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.[]".contains(c);
                    let is_harmless = !is_behind_password && !value.is_empty() && name.chars().all(is_plain);
                    let shown = if is_harmless {
                        &*name
                    } else {
                        "(its name is hidden, because it may be a part of a password)"
                    };
                    self.problems.push(format!("unknown parameter {shown}; {}", { suggestion(&name, names(table)) }));
                    continue;
                }
            };
            if !self.seen.insert(canonical(own)) && !matches!(parameter, Parameter::Refused(_)) {
                let name = if is_setting { "options[...]" } else { &*name };
                self.problems.push(format!("{name}: it is given twice; keep one"));
            } else if let Err(problem) = self.apply(own, parameter, &value) {
                self.problems.push(format!("{name}: {problem}"));
            }
        }
    }

    /// Applies one parameter. An error message does not contain its value.
    fn apply(&mut self, own: &str, parameter: Parameter, value: &str) -> Result<(), String> {
        let mut pass = |value: &str| self.driver.push((own.to_owned(), value.to_owned()));
        match parameter {
            Parameter::Text => pass(value),
            Parameter::OneOf(values) if values.contains(&value) => pass(value),
            Parameter::OneOf(values) => return Err(format!("unknown value; {}", suggestion(value, values.to_vec()))),
            // [only servers]
            Parameter::Number(least, most) => {
                let number = value.parse().ok().filter(|number| (least..=most).contains(number));
                let number = number.ok_or_else(|| format!("expected an integer from {least} to {most}"))?;
                pass(value);
                self.is_pooler |= own == "statement-cache-capacity" && number == 0;
            }
            Parameter::Pem(label) => {
                check_pem(value, label)?;
                pass(value);
            }
            Parameter::RootCertificate if value == "system" => self.authority = Some(Authority::System),
            Parameter::RootCertificate => {
                check_pem(value, tls::CERTIFICATE)?;
                pass(value);
                self.authority = Some(Authority::File);
            }
            Parameter::HostOrFolder => {
                let host = value.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(value);
                let is_folder = host.starts_with('/');
                let is_host = host.parse::<IpAddr>().is_ok() || url::Host::parse(host).is_ok();
                if host.contains(',') || !is_folder && !is_host {
                    return Err("expected one host, or the folder of a Unix socket".into());
                }
                pass(host);
                self.host_or_folder = Some(host.to_owned());
            }
            Parameter::IpAddress => {
                value.parse::<IpAddr>().map_err(|_| "expected an IP address")?;
                pass(value);
                self.host_or_folder = Some(value.to_owned());
            }
            Parameter::SocketPath if value.starts_with('/') => {
                pass(value);
                self.socket_path = Some(value.to_owned());
            }
            Parameter::SocketPath => return Err("expected the path of a Unix socket, which begins with /".into()),
            Parameter::SslMode => self.tls = Some(Tls::parse(value, own)?),
            Parameter::Collation => {
                let is_plain = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
                if !is_plain || !value.to_ascii_lowercase().starts_with("utf8mb4_") {
                    return Err("expected a collation of utf8mb4, such as utf8mb4_bin".into());
                }
                pass(value);
            }
            Parameter::Pooler => match value {
                "true" | "1" => self.is_pooler = true,
                "false" | "0" => {}
                _ => return Err("expected true or false".into()),
            },
            Parameter::Only(values, advice) => {
                if !values.iter().any(|known| known.eq_ignore_ascii_case(value)) {
                    return Err(advice.into());
                }
            }
            // [end]
            Parameter::Refused(advice) => return Err(advice.into()),
        }
        Ok(())
    }

    pub(super) fn checked(self) -> Result<Self, String> {
        if self.problems.is_empty() { Ok(self) } else { Err(self.problems.join("; ")) }
    }

    // [only servers]
    /// Checks parameters that depend on each other.
    pub(super) fn check_pairs(&mut self) {
        for (one, other) in [("sslcert", "sslkey"), ("sslkey", "sslcert")] {
            if self.seen.contains(one) && !self.seen.contains(other) && self.problems.is_empty() {
                self.problems.push(format!("{one} needs {other}; add it"));
            }
        }
        if self.seen.contains("host") && self.seen.contains("hostaddr") {
            self.problems.push("keep one of host and hostaddr".into());
        }
    }

    /// How much TLS protects, by the rules of libpq and of MySQL's own client.
    pub(super) fn tls(&self, default: Tls) -> Result<Tls, String> {
        match (self.authority, self.tls) {
            (None, tls) => Ok(tls.unwrap_or(default)),
            (Some(Authority::System), None | Some(Tls::VerifyHost)) => Ok(Tls::VerifyHost),
            (Some(Authority::System), Some(_)) => {
                Err("the public authorities, `system`, need sslmode=verify-full".into())
            }
            (Some(Authority::File), None) => Ok(default.max(Tls::VerifyAuthority)),
            (Some(Authority::File), Some(Tls::Disabled | Tls::Preferred)) => Err(
                "the file of the certificate authority has no effect with this sslmode; use verify-full or verify-ca"
                    .into(),
            ),
            (Some(Authority::File), Some(tls)) => Ok(tls.max(Tls::VerifyAuthority)),
        }
    }
    // [end]
}
