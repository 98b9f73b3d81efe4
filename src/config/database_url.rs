//! `DATABASE_URL`: checked as a whole before a driver sees it.
//!
//! The drivers of PostgreSQL and MySQL ignore parameters that they do not know, so `?sslmod=verify-full` would connect
//! in plain text. Here every parameter is applied, or rejected by its name. The driver then reads a URL with supported
//! parameters only.
//!
//! The URL contains a password. A special character that is not percent-encoded can move a part of the password into
//! any other part of the URL. So an error message contains no part of the URL except the names of parameters.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize, Serializer};
use sqlx::ConnectOptions;
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::sqlite::SqliteConnectOptions;
use url::{ParseError, Url, form_urlencoded};

use super::names::{canonical, nearest, suggestion};
use super::parameters::{self, Parameter, Row};

/// Where the database is and how to log in. Shown, it hides the password.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct DatabaseUrl {
    /// The options of the driver. The drivers print passwords in their `Debug`, so it stays in this crate.
    pub(crate) options: DriverOptions,
    /// Whether a pooler such as PgBouncer assigns a server connection for each transaction. In a PostgreSQL URL,
    /// `statement-cache-capacity=0` declares it, because then no statement stays prepared; so does `pgbouncer=true`.
    pub(crate) transaction_pooling: bool,
    transport: Transport,
    address: String,
    redacted: String,
}

/// The parsed URL as each driver wants it.
#[derive(Clone)]
pub(crate) enum DriverOptions {
    Sqlite(SqliteConnectOptions),
    MySql(MySqlConnectOptions),
    Postgres(PgConnectOptions),
}

/// How the bytes reach the database.
#[derive(Clone, Copy)]
enum Transport {
    File,
    Socket,
    Network { tls: Tls, is_local: bool },
}

/// What protects a connection over the network, from the weakest to the strongest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Tls {
    Disabled,
    Preferred,
    Required,
    VerifyAuthority,
    VerifyHost,
}

const SCHEMES: [&str; 5] = ["sqlite", "mysql", "mariadb", "postgres", "postgresql"];

const UNENCODED: &str = "a special character of the user, password or database must be percent-encoded: / as %2F, \
                         ? as %3F, # as %23, @ as %40, : as %3A, & as %26, ; as %3B, = as %3D, [ as %5B, ] as %5D";

const IN_MEMORY: &str = "an in-memory SQLite database ends with its last connection; name a file";

impl DatabaseUrl {
    /// The host and port, the socket, or the file: what an operator needs to find the database, and
    /// nothing that gives access to it.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether the connection to a server is encrypted and the server verified.
    #[must_use]
    pub fn protection(&self) -> Option<&'static str> {
        Some(match self.transport {
            Transport::File => return None,
            Transport::Socket => "a Unix socket: not encrypted, and not sent over a network",
            Transport::Network { tls: Tls::Disabled, .. } => "not encrypted, server not verified",
            Transport::Network { tls: Tls::Preferred, .. } => {
                "encrypted only if the server supports TLS, server not verified"
            }
            Transport::Network { tls: Tls::Required, .. } => "encrypted, server not verified",
            Transport::Network { tls: Tls::VerifyAuthority, .. } => {
                "encrypted, server certificate verified, host name not verified"
            }
            Transport::Network { tls: Tls::VerifyHost, .. } => "encrypted, server certificate and host name verified",
        })
    }

    /// A warning when the connection leaves this machine and may be in plain text.
    pub(super) fn warning(&self) -> Option<String> {
        let Transport::Network { tls, is_local: false } = self.transport else { return None };
        let problem = match tls {
            Tls::Disabled => "is not encrypted",
            Tls::Preferred => "is not encrypted if the server does not support TLS",
            Tls::Required | Tls::VerifyAuthority | Tls::VerifyHost => return None,
        };
        let fix = match self.options {
            DriverOptions::MySql(_) => "ssl-mode=VERIFY_IDENTITY",
            DriverOptions::Postgres(_) | DriverOptions::Sqlite(_) => "sslmode=verify-full",
        };
        Some(format!("DATABASE_URL: the connection to {} {problem}; add {fix}", self.address))
    }
}

impl TryFrom<String> for DatabaseUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        check_text(&text)?;
        let (scheme, rest) = text.split_once(':').unwrap_or_default();
        let scheme = scheme.to_ascii_lowercase();
        match scheme.as_str() {
            "sqlite" => sqlite(rest),
            "mysql" | "mariadb" => mysql(&scheme, rest),
            "postgres" | "postgresql" => postgres(&scheme, rest),
            _ => Err(unknown_scheme(&scheme, rest)),
        }
    }
}

/// Rejects text that is often copied together with a URL.
fn check_text(text: &str) -> Result<(), String> {
    let is_quote = |c: char| matches!(c, '"' | '\'' | '`' | '\u{2018}'..='\u{201f}');
    let problem = if text.starts_with('\u{feff}') {
        "it begins with a byte order mark (U+FEFF); remove it"
    } else if text.starts_with(is_quote) || text.ends_with(is_quote) {
        "it begins or ends with a quotation mark; remove the quotation marks"
    } else if text.starts_with(char::is_whitespace) || text.ends_with(char::is_whitespace) {
        "it begins or ends with a blank or a line break; remove it"
    } else if text.starts_with("DATABASE_URL=") || text.starts_with("export ") {
        "it begins with the name of a variable; keep only what follows the first ="
    } else if text.contains(char::is_control) {
        // The URL parser would skip some of them.
        "it contains a line break, a tab or another control character; remove it"
    } else if text.contains(char::REPLACEMENT_CHARACTER) {
        "it is not UTF-8"
    } else if text.contains("%00") {
        "it contains %00, which no database accepts; remove it"
    } else {
        return Ok(());
    };
    Err(problem.to_owned())
}

/// A URL without a scheme may begin with a password, so the message does not contain the text before the colon.
fn unknown_scheme(scheme: &str, rest: &str) -> String {
    let all = "use sqlite:, mysql://, mariadb://, postgres:// or postgresql://";
    let engine = scheme.split('+').next().unwrap_or_default();
    if scheme == "jdbc" {
        return format!("unknown scheme; remove jdbc: and write it as postgres://user:password@host/database; {all}");
    }
    if scheme.contains('+') && SCHEMES.contains(&engine) {
        return format!("unknown scheme; remove the driver's name, from the + to the colon; {all}");
    }
    match nearest(scheme, SCHEMES).filter(|_| rest.starts_with("//")) {
        Some(likely) => format!("unknown scheme; did you mean {likely}://? {all}"),
        None => format!("unknown scheme; {all}"),
    }
}

fn sqlite(rest: &str) -> Result<DatabaseUrl, String> {
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    // Otherwise it is the URL of a server with the wrong scheme.
    let first = path.split('/').next().unwrap_or_default().to_ascii_lowercase();
    if path != ":memory:" && [":", "%3a"].iter().any(|colon| first.contains(colon)) {
        return Err("an SQLite URL has no user, password or host; write it as sqlite:roster.db?mode=rwc".into());
    }
    if path.contains(":memory:") || query.contains("mode=memory") {
        return Err(IN_MEMORY.into());
    }
    let mut parameters = Parameters::default();
    parameters.read(parameters::SQLITE, form_urlencoded::parse(query.as_bytes()));
    let parameters = parameters.checked()?;
    // The driver decodes the path.
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(&parameters.driver).finish();
    let redacted = format!("sqlite:{path}{}{query}", if query.is_empty() { "" } else { "?" });
    let options: SqliteConnectOptions = redacted.parse().map_err(|_| "its path is not UTF-8 once it is decoded")?;
    let file = options.get_filename().display().to_string();
    if file.is_empty() || file.ends_with('/') {
        return Err("the SQLite URL names no file; write it as sqlite:roster.db?mode=rwc".into());
    }
    Ok(DatabaseUrl {
        options: DriverOptions::Sqlite(ConnectOptions::disable_statement_logging(options)),
        transaction_pooling: false,
        transport: Transport::File,
        address: file,
        redacted,
    })
}

fn mysql(scheme: &str, rest: &str) -> Result<DatabaseUrl, String> {
    let server = Server::parse(scheme, rest, parameters::MYSQL)?;
    if server.url.host_str().is_some_and(|host| host.contains('%')) {
        return Err("the host is not valid; for a Unix socket, add ?socket=/PATH".into());
    }
    let tls = server.parameters.tls(Tls::Preferred)?;
    let mut options: MySqlConnectOptions = server.driver_options()?;
    options = options.ssl_mode(match tls {
        Tls::Disabled => MySqlSslMode::Disabled,
        Tls::Preferred => MySqlSslMode::Preferred,
        Tls::Required => MySqlSslMode::Required,
        Tls::VerifyAuthority => MySqlSslMode::VerifyCa,
        Tls::VerifyHost => MySqlSslMode::VerifyIdentity,
    });
    if let Some(address) = server.ipv6() {
        options = options.host(&address.to_string());
    }
    let (host, port) = (options.get_host().to_owned(), options.get_port());
    let socket = server.parameters.socket.clone();
    Ok(server.finish(DriverOptions::MySql(options), socket, &host, port, tls))
}

fn postgres(scheme: &str, rest: &str) -> Result<DatabaseUrl, String> {
    let mut server = Server::parse(scheme, rest, parameters::POSTGRES)?;
    let mut options: PgConnectOptions = server.driver_options()?;
    if options.get_application_name().is_none() {
        options = options.application_name(env!("CARGO_PKG_NAME"));
    }
    if server.parameters.is_pooler {
        options = options.statement_cache_capacity(0);
    }
    if server.parameters.host.is_none() {
        if let Some(address) = server.ipv6() {
            options = options.host(&address.to_string());
        } else if !server.is_host_given && server.url.port().is_none() {
            // The driver's default is the socket, if one exists in a usual folder.
            options = options.host(PgConnectOptions::new_without_pgpass().get_host());
        }
    }
    // The driver's mode is that of PGSSLMODE, or its default.
    let default = match options.get_ssl_mode() {
        PgSslMode::Disable | PgSslMode::Allow => Tls::Disabled,
        PgSslMode::Prefer => Tls::Preferred,
        PgSslMode::Require => Tls::Required,
        PgSslMode::VerifyCa => Tls::VerifyAuthority,
        PgSslMode::VerifyFull => Tls::VerifyHost,
    };
    // The variables have the same meaning as the parameters.
    if server.parameters.tls.is_none() && is_set(MODE_VARIABLE) {
        server.parameters.tls = Some(default);
    }
    if server.parameters.authority.is_none() && is_set(AUTHORITY_VARIABLE) {
        server.parameters.authority = Some(Authority::File);
    }
    let tls = server.parameters.tls(default)?;
    let socket = options.get_socket().map(|folder| folder.display().to_string());
    options = options.ssl_mode(match tls {
        // As in libpq: a PostgreSQL server has no TLS on a socket.
        _ if socket.is_some() => PgSslMode::Disable,
        Tls::Disabled => PgSslMode::Disable,
        Tls::Preferred => PgSslMode::Prefer,
        Tls::Required => PgSslMode::Require,
        Tls::VerifyAuthority => PgSslMode::VerifyCa,
        Tls::VerifyHost => PgSslMode::VerifyFull,
    });
    let (host, port) = (options.get_host().to_owned(), options.get_port());
    Ok(server.finish(DriverOptions::Postgres(options), socket, &host, port, tls))
}

fn no_database(scheme: &str) -> String {
    format!("the URL names no database; end its path with one, as in {scheme}://host/roster")
}

/// The validated URL of a database server.
struct Server {
    url: Url,
    parameters: Parameters,
    is_host_given: bool,
}

impl Server {
    fn parse(scheme: &str, rest: &str, table: &'static [Row]) -> Result<Self, String> {
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
        let is_host_given = !host.is_empty() && !host.starts_with(':');
        let (login, at) = login.map_or(("", ""), |login| (login, "@"));
        let assumed = if is_host_given { "" } else { "localhost" };
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
            return Err(no_database(scheme));
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
        Ok(Self { parameters: parameters.checked()?, url, is_host_given })
    }

    /// The options that the driver reads from the URL, which has only supported parameters.
    fn driver_options<O: ConnectOptions>(&self) -> Result<O, String> {
        let mut url = self.url.clone();
        url.set_query(None);
        if !self.parameters.driver.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.parameters.driver);
        }
        let options = O::from_url(&url).map_err(|_| "a part of it is not UTF-8 once it is percent-decoded")?;
        Ok(options.disable_statement_logging())
    }

    /// The address in brackets. The drivers would treat it as a name.
    fn ipv6(&self) -> Option<Ipv6Addr> {
        self.url.host_str()?.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
    }

    fn finish(self, options: DriverOptions, socket: Option<String>, host: &str, port: u16, tls: Tls) -> DatabaseUrl {
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
            None => Transport::Network { tls, is_local: is_this_machine(host) },
        };
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let address = socket.unwrap_or_else(|| format!("{host}:{port}"));
        let transaction_pooling = self.parameters.is_pooler && matches!(options, DriverOptions::Postgres(_));
        DatabaseUrl { options, transaction_pooling, transport, address, redacted: shown.to_string() }
    }
}

fn is_this_machine(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// The parameters of a URL.
#[derive(Default)]
struct Parameters {
    /// Parameters for the driver, by the driver's names.
    driver: Vec<(String, String)>,
    tls: Option<Tls>,
    authority: Option<Authority>,
    socket: Option<String>,
    host: Option<String>,
    is_pooler: bool,
    /// Canonical names of the parameters, and of the parts that the URL has before its parameters.
    seen: BTreeSet<String>,
    problems: Vec<String>,
}

/// The certificate authority that must have issued the server's certificate.
#[derive(Clone, Copy)]
enum Authority {
    File,
    /// The public authorities, which are built in.
    System,
}

impl Parameters {
    fn read<'a>(&mut self, table: &'static [Row], pairs: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>) {
        let mut has_password = false;
        for (name, value) in pairs {
            let is_behind_password = has_password;
            has_password |= canonical(&name).contains("pass");
            let is_setting =
                name.starts_with("options[") && name.ends_with(']') && parameters::find(table, "options").is_some();
            let (own, parameter) = match parameters::find(table, &name) {
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
                    self.problems.push(format!("unknown parameter {shown}; {}", {
                        suggestion(&name, parameters::names(table))
                    }));
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
                check_pem(value, parameters::CERTIFICATE)?;
                pass(value);
                self.authority = Some(Authority::File);
            }
            Parameter::Host => {
                let host = value.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(value);
                if host.is_empty() || host.contains(',') {
                    return Err("expected one host, or the folder of a Unix socket".into());
                }
                pass(host);
                self.host = Some(host.to_owned());
            }
            Parameter::Address => {
                value.parse::<IpAddr>().map_err(|_| "expected an IP address")?;
                pass(value);
                self.host = Some(value.to_owned());
            }
            Parameter::Socket if value.starts_with('/') => {
                pass(value);
                self.socket = Some(value.to_owned());
            }
            Parameter::Socket => return Err("expected the path of a Unix socket, which begins with /".into()),
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
            Parameter::Only(values, _) if values.iter().any(|known| known.eq_ignore_ascii_case(value)) => {}
            Parameter::Only(_, advice) | Parameter::Refused(advice) => return Err(advice.into()),
        }
        Ok(())
    }

    fn checked(mut self) -> Result<Self, String> {
        for (one, other) in [("sslcert", "sslkey"), ("sslkey", "sslcert")] {
            if self.seen.contains(one) && !self.seen.contains(other) && self.problems.is_empty() {
                self.problems.push(format!("{one} needs {other}; add it"));
            }
        }
        if self.seen.contains("host") && self.seen.contains("hostaddr") {
            self.problems.push("keep one of host and hostaddr".into());
        }
        if self.problems.is_empty() { Ok(self) } else { Err(self.problems.join("; ")) }
    }

    /// How much TLS protects, by the rules of libpq and of MySQL's own client.
    fn tls(&self, default: Tls) -> Result<Tls, String> {
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
}

impl Tls {
    /// The names of PostgreSQL and of MySQL. Both are accepted in the URL of either server.
    const NAMES: [(&str, &str, Self); 5] = [
        ("disable", "DISABLED", Self::Disabled),
        ("prefer", "PREFERRED", Self::Preferred),
        ("require", "REQUIRED", Self::Required),
        ("verify-ca", "VERIFY_CA", Self::VerifyAuthority),
        ("verify-full", "VERIFY_IDENTITY", Self::VerifyHost),
    ];

    /// Reads the value of a parameter. Its name decides whether an error has the names of PostgreSQL or of MySQL.
    fn parse(value: &str, parameter: &str) -> Result<Self, String> {
        let name = canonical(value);
        if name == "allow" {
            return Err("allow is not supported; use prefer, or a stronger mode".into());
        }
        let found =
            Self::NAMES.into_iter().find(|(one, other, _)| [one, other].map(|known| canonical(known)).contains(&name));
        found.map(|(.., tls)| tls).ok_or_else(|| {
            let names = Self::NAMES.map(|(postgres, mysql, _)| if parameter == "ssl-mode" { mysql } else { postgres });
            format!("unknown value; {}", suggestion(value, names))
        })
    }
}

/// The variables of libpq for `sslmode` and `sslrootcert`.
const MODE_VARIABLE: &str = "PGSSLMODE";
const AUTHORITY_VARIABLE: &str = "PGSSLROOTCERT";

fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty())
}

/// The problems of the variables of libpq for TLS. The driver applies them to a URL without these parameters. It ignores
/// an unknown mode, and reads the files only when it connects.
pub(super) fn environment_problems(vars: &BTreeMap<String, String>) -> Vec<String> {
    let mode = |value: &str| match Tls::parse(value, "sslmode") {
        // A name of MySQL is valid in a URL, but not here.
        Ok(_) if value.parse::<PgSslMode>().is_err() => Err("use a name of libpq, such as verify-full".to_owned()),
        parsed => parsed.map(drop),
    };
    let check = |name: &str, value: &str| match name {
        MODE_VARIABLE => mode(value),
        AUTHORITY_VARIABLE if value == "system" => {
            Err("system is supported in DATABASE_URL only; add sslrootcert=system to it".to_owned())
        }
        AUTHORITY_VARIABLE | "PGSSLCERT" => check_pem(value, parameters::CERTIFICATE),
        "PGSSLKEY" => check_pem(value, parameters::PRIVATE_KEY),
        _ => Ok(()),
    };
    vars.iter().filter_map(|(name, value)| Some(format!("{name}: {}", check(name, value).err()?))).collect()
}

/// Checks that a file can be read and contains PEM with this label. The driver would fail only when it connects, with
/// an error that does not name the parameter.
fn check_pem(path: &str, label: &str) -> Result<(), String> {
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

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted)
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted)
    }
}

impl Serialize for DatabaseUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
