//! The configuration, read once from the environment (factor III).
//!
//! [`Config`] is the reference for operators: one field a variable, in its upper case. Nothing else
//! in the crate reads the environment, and no variable names one ("production", "staging").

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU64};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sqlx::ConnectOptions as _;
use sqlx::mysql::MySqlConnectOptions;
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use tracing_subscriber::filter::Targets;
use url::Url;

/// Everything that may differ between two deploys. A variable that is set but empty counts as unset.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Config {
    /// The attached database: `sqlite:`, `mysql://`, `mariadb://`, `postgres://` or `postgresql://`.
    /// Required, unless `DATABASE_URL_FILE` names a file that holds it (a mounted secret); both at
    /// once are an error.
    pub database_url: DatabaseUrl,
    /// The size of this process's connection pool; 10 by default.
    #[serde(default = "size::<10>")]
    pub database_max_connections: NonZeroU16,
    /// The longest wait for a connection, in milliseconds, before a request is answered 503; 1000 by default.
    #[serde(default = "milliseconds::<1000>")]
    pub database_acquire_timeout_ms: NonZeroU64,
    /// The longest query, in milliseconds, before its request is answered 503 and its connection
    /// thrown away; 2000 by default.
    #[serde(default = "milliseconds::<2000>")]
    pub database_query_timeout_ms: NonZeroU64,
    /// The port to serve; 5000 by default, and 0 picks a free one, which the log names.
    #[serde(default = "default_port")]
    pub port: u16,
    /// The address to bind; 0.0.0.0 by default.
    #[serde(default = "default_host")]
    pub host: IpAddr,
    /// The number of HTTP worker threads; by default the processors this process may use.
    #[serde(default = "processors")]
    pub web_concurrency: NonZeroU16,
    /// The most requests at work at once; the next one is answered 503, health checks and metrics excepted;
    /// 1024 by default.
    #[serde(default = "size::<1024>")]
    pub max_in_flight: NonZeroU16,
    /// The longest time for a whole request, its body included, in milliseconds; for a stream, the
    /// longest that its client may take no more of it; 10000 by default.
    #[serde(default = "milliseconds::<10_000>")]
    pub request_timeout_ms: NonZeroU64,
    /// Whether several processes may share the port (`SO_REUSEPORT`), so that the next one can start
    /// beside this one; false by default.
    #[serde(default)]
    pub reuse_port: bool,
    /// The time between SIGTERM and closing the door, in milliseconds, for balancers that notice
    /// `/readyz` late; 0 by default.
    #[serde(default)]
    pub drain_delay_ms: u64,
    /// The longest that SIGTERM waits for requests in flight, in milliseconds; 20000 by default.
    #[serde(default = "milliseconds::<20000>")]
    pub shutdown_timeout_ms: NonZeroU64,
    /// How a log line is written; `json` by default.
    #[serde(default)]
    pub log_format: LogFormat,
    /// The tracing filter: a level, and others for targets, as in `info,roster=debug`; `info` by default.
    #[serde(default = "default_filter", deserialize_with = "filter")]
    pub rust_log: String,
    /// Whether `web` applies pending migrations before it serves (development, deploys of a single
    /// process); false by default.
    #[serde(default)]
    pub auto_migrate: bool,
    /// How many sample users `web` inserts when the table of users is empty (development); 0 by default.
    #[serde(default)]
    pub auto_seed: u32,
    /// The release that this process runs, shown in logs and by `/version`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_id: Option<String>,
    /// Where to send traces, by OTLP over HTTP, such as `http://collector:4318`; unset, none are recorded.
    /// The exporter reads the other `OTEL_` variables of its standard by itself.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "collector")]
    pub otel_exporter_otlp_endpoint: Option<String>,
}

const fn size<const N: u16>() -> NonZeroU16 {
    const { NonZeroU16::new(N).expect("a default is above zero") }
}

const fn milliseconds<const N: u64>() -> NonZeroU64 {
    const { NonZeroU64::new(N).expect("a default is above zero") }
}

const fn default_port() -> u16 {
    5000
}

const fn default_host() -> IpAddr {
    IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)
}

fn processors() -> NonZeroU16 {
    let processors = std::thread::available_parallelism().ok();
    processors.and_then(|processors| processors.try_into().ok()).unwrap_or(NonZeroU16::MIN)
}

fn default_filter() -> String {
    "info".to_owned()
}

/// A filter that tracing-subscriber accepts.
fn filter<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let directives = String::deserialize(deserializer)?;
    directives.parse::<Targets>().map_err(serde::de::Error::custom)?;
    Ok(directives)
}

/// A URL by which OTLP can be sent. It is shown by `web check`, so it holds no password.
fn collector<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let reason = match Url::parse(&text) {
        Ok(url) if url.password().is_some() || !url.username().is_empty() => {
            "it holds a user or a password, which belong into OTEL_EXPORTER_OTLP_HEADERS"
        }
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => return Ok(Some(text)),
        _ => "write it as http://host:4318 or https://host:4318",
    };
    Err(serde::de::Error::custom(reason))
}

/// The layout of a log line.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line, for a log collector.
    #[default]
    Json,
    /// A line for a human reader.
    Text,
}

impl Config {
    /// Reads the environment of this process.
    ///
    /// # Errors
    /// Every problem that it holds, each naming its variable.
    pub fn from_env() -> Result<Self, Problems> {
        // Text that is not UTF-8 keeps a replacement character, so that it fails under its own name below.
        let text = |s: std::ffi::OsString| s.to_string_lossy().into_owned();
        Self::from_vars(std::env::vars_os().map(|(name, value)| (text(name), text(value))))
    }

    /// Reads variables from wherever the caller has them; tests have their own.
    ///
    /// # Errors
    /// Every problem that they hold, each naming its variable.
    pub fn from_vars(vars: impl IntoIterator<Item = (String, String)>) -> Result<Self, Problems> {
        const URL: &str = "DATABASE_URL";
        const URL_FILE: &str = "DATABASE_URL_FILE";

        let mut vars: BTreeMap<_, _> = vars
            .into_iter()
            // envy ignores case, and would take the `port` of some shell for PORT.
            .filter(|(name, value)| !value.is_empty() && !name.contains(|c: char| c.is_ascii_lowercase()))
            .collect();
        let mut problems = Vec::new();

        let mut url_from = URL;
        if let Some(path) = vars.remove(URL_FILE) {
            if vars.contains_key(URL) {
                problems.push(format!("{URL_FILE}: {URL} is set as well; keep one of the two"));
            } else {
                match std::fs::read_to_string(&path) {
                    Ok(url) => {
                        url_from = URL_FILE;
                        vars.insert(URL.to_owned(), url.trim().to_owned());
                    }
                    Err(error) => problems.push(format!("{URL_FILE}: cannot read {path}: {error}")),
                }
            }
        } else if !vars.contains_key(URL) {
            problems.push(format!(
                "{URL}: required; set it to a URL such as sqlite:roster.db?mode=rwc, \
                 mysql://user:password@host/database or postgres://user:password@host/database"
            ));
        }

        // envy stops at the first problem, so each variable is tried by itself beside a stand-in for
        // the one that is required.
        let stand_in = (URL.to_owned(), "sqlite:stand-in".to_owned());
        for (name, value) in &vars {
            let (stand_in, from) = if name == URL { (None, url_from) } else { (Some(stand_in.clone()), name.as_str()) };
            let alone = stand_in.into_iter().chain([(name.clone(), value.clone())]);
            if let Err(error) = envy::from_iter::<_, Self>(alone) {
                problems.push(format!("{from}: {}", explain(&error)));
            }
        }
        if problems.is_empty() {
            envy::from_iter(vars).map_err(|error| Problems(vec![explain(&error)]))
        } else {
            Err(Problems(problems))
        }
    }
}

/// envy's message without its own naming of the variable, which ours leads with.
fn explain(error: &envy::Error) -> String {
    let message = error.to_string();
    match message.split_once(" while parsing value ") {
        Some((reason, value)) => {
            let value = value.rsplit_once(" provided by ").map_or(value, |(value, _)| value);
            format!("{value} is not valid: {reason}")
        }
        None => message,
    }
}

/// One `NAME=value` a line, secrets hidden.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(self) else {
            return Err(fmt::Error);
        };
        for (name, value) in fields {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            writeln!(f, "{}={value}", name.to_ascii_uppercase())?;
        }
        Ok(())
    }
}

/// Everything that is wrong with the environment, a line each.
#[derive(Debug, thiserror::Error)]
#[error("the configuration is not valid:\n  {}", .0.join("\n  "))]
pub struct Problems(Vec<String>);

/// Where the database is and how to log in. Shown, it hides the password.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct DatabaseUrl {
    /// What the driver takes. The drivers print passwords in their `Debug`, so it stays in this crate.
    pub(crate) options: DriverOptions,
    /// Whether a pooler stands between, such as PgBouncer, that lends the server's connections for a transaction
    /// each; `statement-cache-capacity=0` in a PostgreSQL URL tells so, because no statement stays prepared then.
    pub(crate) is_lent_by_transaction: bool,
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

impl DatabaseUrl {
    /// The host and port, the socket, or the file: what an operator needs to find the database, and
    /// nothing that lets anyone in.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl TryFrom<String> for DatabaseUrl {
    type Error = String;

    fn try_from(url: String) -> Result<Self, String> {
        /// A driver's own words on a URL, which may quote a part of it, but never its password.
        fn parsed<T: FromStr<Err = sqlx::Error>>(url: &str) -> Result<T, String> {
            url.parse().map_err(|error| match error {
                sqlx::Error::Configuration(reason) => reason.to_string(),
                other => other.to_string(),
            })
        }

        let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
        match scheme {
            "sqlite" => {
                let options: SqliteConnectOptions = parsed(&url)?;
                let file = options.get_filename().display().to_string();
                if url.contains(":memory:") || url.contains("mode=memory") {
                    return Err("an in-memory SQLite database dies with its last connection; name a file".into());
                }
                if file.is_empty() {
                    return Err("the SQLite URL names no file; write sqlite:roster.db?mode=rwc".into());
                }
                let options = DriverOptions::Sqlite(options.disable_statement_logging());
                Ok(Self { options, is_lent_by_transaction: false, address: file, redacted: url })
            }
            "mysql" | "mariadb" => {
                let (address, redacted) = server(&url, 3306)?;
                let options: MySqlConnectOptions = parsed(&url)?;
                if options.get_database().is_none() {
                    return Err("the URL names no database; end its path with one, as in mysql://host/roster".into());
                }
                let options = DriverOptions::MySql(options.disable_statement_logging());
                Ok(Self { options, is_lent_by_transaction: false, address, redacted })
            }
            "postgres" | "postgresql" => {
                let (address, redacted) = server(&url, 5432)?;
                let options: PgConnectOptions = parsed(&url)?;
                if options.get_database().is_none() {
                    return Err("the URL names no database; end its path with one, as in postgres://host/roster".into());
                }
                let options = match options.get_application_name() {
                    Some(_) => options,
                    None => options.application_name(env!("CARGO_PKG_NAME")),
                };
                let options = DriverOptions::Postgres(options.disable_statement_logging());
                // The driver's options do not tell it.
                let is_lent_by_transaction = Url::parse(&url).is_ok_and(|url| {
                    url.query_pairs().any(|(name, value)| name == "statement-cache-capacity" && value == "0")
                });
                Ok(Self { options, is_lent_by_transaction, address, redacted })
            }
            // A URL pasted without its scheme may begin with a password, so it is not repeated.
            _ => Err("unknown scheme; use sqlite:, mysql://, mariadb://, postgres:// or postgresql://".into()),
        }
    }
}

/// The address of a database server, and its URL without the password and the parameters.
fn server(url: &str, default_port: u16) -> Result<(String, String), String> {
    let mut url = Url::parse(url)
        .map_err(|error| format!("not a URL: {error}; a password's special characters must be percent-encoded"))?;
    if url.cannot_be_a_base() {
        return Err(format!("write it as {}://user:password@host/database", url.scheme()));
    }
    // The drivers would say that a file is missing when they connect, but not which.
    for (name, value) in url.query_pairs() {
        let is_file = matches!(&*name.replace('-', ""), "sslrootcert" | "sslca" | "sslcert" | "sslkey");
        if is_file && !value.contains("-----BEGIN ") {
            std::fs::File::open(&*value)
                .map_err(|error| format!("{name}: the file that it names cannot be read: {error}"))?;
        }
    }
    let socket = url
        .query_pairs()
        .find(|(name, value)| name == "socket" || (name == "host" && value.starts_with('/')))
        .map(|(_, path)| path.into_owned());
    let address = socket.unwrap_or_else(|| {
        let host = url.host_str().filter(|host| !host.is_empty()).unwrap_or("localhost");
        format!("{}:{}", host, url.port().unwrap_or(default_port))
    });
    if url.password().is_some() {
        url.set_password(Some("***")).map_err(|()| "the URL has a password but no host".to_owned())?;
    }
    // A parameter may be a password too.
    url.set_query(None);
    Ok((address, url.to_string()))
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
