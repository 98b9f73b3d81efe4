//! The configuration, read once from the environment (factor III).
//!
//! [`Config`] is the reference for operators: one field for each variable, whose name is that of the field in upper case.
//! Nothing else in this crate reads the environment. Its dependencies read some variables of their standards: the driver
//! of PostgreSQL those of libpq, the exporter of traces those of OpenTelemetry, `tempfile` `TMPDIR`, and `indicatif`
//! `TERM`. No variable names an environment ("production", "staging").

mod api_tokens;
mod database_url;
mod host;
mod log_filter;
mod names;
mod schedule;
mod smtp_url;
mod traces;
mod trusted_proxies;
mod values;
mod variables;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::net::{IpAddr, Ipv6Addr, TcpListener};
use std::num::{NonZeroU16, NonZeroU64};
use std::time::Duration;

use listenfd::ListenFd;
use serde::{Deserialize, Serialize};

pub use api_tokens::{ApiTokens, TokensRequired};
pub use database_url::DatabaseUrl;
#[cfg(any(test, fuzzing))]
pub(crate) use database_url::UNUSED as UNUSED_URLS;
pub(crate) use database_url::{DriverOptions, EXAMPLES as EXAMPLE_URLS};
pub use host::Host;
pub use schedule::Schedule;
pub(crate) use smtp_url::Encryption;
pub use smtp_url::{MailFrom, SmtpUrl};
pub use traces::{Endpoint, TracesExporter};
pub use trusted_proxies::{ClientAddressHeader, TrustedProxies};
pub use values::LogFormat;
use values::{DAY, boolean, integer};
pub use variables::Variable;

/// Everything that may differ between two deploys. A variable that is set but empty counts as unset.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Config {
    /// The attached database: `sqlite:`, `mysql://`, `mariadb://`, `postgres://` or `postgresql://`.
    /// Required, unless `DATABASE_URL_FILE` names a file that holds it (a mounted secret); both at
    /// once are an error.
    pub database_url: DatabaseUrl,
    /// The size of this process's connection pool; 4 by default. Readiness checks use one more connection.
    #[serde(default = "size::<4>", deserialize_with = "integer::<_, _, 1, 65535>")]
    pub database_max_connections: NonZeroU16,
    /// The longest wait for a connection, in milliseconds, before a request is answered 503; 1000 by default.
    #[serde(default = "milliseconds::<1000>", deserialize_with = "integer::<_, _, 1, DAY>")]
    pub database_acquire_timeout_ms: NonZeroU64,
    /// The longest query, in milliseconds, before its request is answered 503; 2000 by default.
    #[serde(default = "milliseconds::<2000>", deserialize_with = "integer::<_, _, 1, DAY>")]
    pub database_query_timeout_ms: NonZeroU64,
    /// The port to serve; 5000 by default, and 0 picks a free one, which the log names.
    #[serde(default = "default_port", deserialize_with = "integer::<_, _, 0, 65535>")]
    pub port: u16,
    /// The address to bind, or a name, of which each address is bound; `::` by default, which is every IPv6 and IPv4
    /// address (`0.0.0.0` on a machine without IPv6).
    #[serde(default = "default_host")]
    pub host: Host,
    /// The number of HTTP worker threads, at most 512; by default the processors this process may use.
    #[serde(default = "processors", deserialize_with = "integer::<_, _, 1, WORKERS_MAX>")]
    pub web_concurrency: NonZeroU16,
    /// The limit of concurrent requests, streams included. Further requests get a 503, except health checks and metrics;
    /// 1024 by default.
    #[serde(default = "size::<1024>", deserialize_with = "integer::<_, _, 1, 65535>")]
    pub max_in_flight: NonZeroU16,
    /// The longest time for a whole request, its body included, in milliseconds; for a stream, the
    /// longest time without progress by its client; 10000 by default.
    #[serde(default = "milliseconds::<10_000>", deserialize_with = "integer::<_, _, 1, DAY>")]
    pub request_timeout_ms: NonZeroU64,
    /// How long a connection may be idle before it is closed, in milliseconds; 75000 by default. It must be longer than
    /// the idle timeout of the load balancer, or a request can arrive while its connection is being closed.
    #[serde(default = "milliseconds::<75_000>", deserialize_with = "integer::<_, _, 1, DAY>")]
    pub keep_alive_ms: NonZeroU64,
    /// Whether several processes may share the port (`SO_REUSEPORT`), so that the next one can start
    /// beside this one; false by default.
    #[serde(default, deserialize_with = "boolean")]
    pub reuse_port: bool,
    /// The time between SIGTERM and refusing new connections, in milliseconds, for load balancers that poll `/readyz`;
    /// 0 by default.
    #[serde(default, deserialize_with = "integer::<_, _, 0, DAY>")]
    pub drain_delay_ms: u64,
    /// The longest wait for requests in flight or running jobs after SIGTERM, in milliseconds; 20000 by default.
    #[serde(default = "milliseconds::<20000>", deserialize_with = "integer::<_, _, 1, DAY>")]
    pub shutdown_timeout_ms: NonZeroU64,
    /// How a log line is written; `json` by default.
    #[serde(default, deserialize_with = "values::log_format")]
    pub log_format: LogFormat,
    /// The tracing filter: a level, and others for targets, as in `info,roster=debug`; `info` by default.
    #[serde(default = "default_filter", deserialize_with = "log_filter::deserialize")]
    pub rust_log: String,
    /// The proxies that name the client of a request: addresses and networks, separated by commas or white space. If set,
    /// the line of each request in the log has the address of its client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trusted_proxies: Option<TrustedProxies>,
    /// The header in which they name it: `x-forwarded-for`, or `forwarded` (RFC 7239); `x-forwarded-for` by default.
    #[serde(default)]
    pub client_address_header: ClientAddressHeader,
    /// If it has any value, the format `text` has no colours on a terminal (<https://no-color.org>).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_color: Option<String>,
    /// Clients that may write, as `name:sha256` pairs, separated by commas or white space. `web token NAME` generates a pair.
    /// If unset, every write gets a 403. `API_TOKENS_FILE` names a file that holds them instead; both at once are an error.
    #[serde(default)]
    pub api_tokens: ApiTokens,
    /// Which requests need a token: `writes`, or `all` except `OPTIONS`, health checks, styles and the icon; `writes` by
    /// default.
    #[serde(default, deserialize_with = "api_tokens::tokens_required")]
    pub api_tokens_required: TokensRequired,
    /// The mail server: `smtp://` with STARTTLS, or `smtps://`. If unset, no mail is enqueued. `?tls=none` disables TLS, for
    /// a server on this machine, and `?tls-ca=` names the file of a certificate authority. `SMTP_URL_FILE` names a file that
    /// holds the URL instead; both at once are an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smtp_url: Option<SmtpUrl>,
    /// The sender of mail, as `roster@example.com` or `Roster <roster@example.com>`. Required with `SMTP_URL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mail_from: Option<MailFrom>,
    /// The most jobs that a `worker` runs at the same time; 4 by default.
    #[serde(default = "size::<4>", deserialize_with = "integer::<_, _, 1, 1000>")]
    pub worker_concurrency: NonZeroU16,
    /// When `clock` enqueues the removal of old jobs and idempotency keys: a cron expression in UTC; `17 * * * *`, each
    /// hour, by default.
    #[serde(default = "default_cleanup")]
    pub cleanup_schedule: Schedule,
    /// Whether `web` applies pending migrations before it serves (development, deploys of a single
    /// process); false by default.
    #[serde(default, deserialize_with = "boolean")]
    pub auto_migrate: bool,
    /// The number of samples that `web` inserts if there are none (development); 0 by default.
    #[serde(default, deserialize_with = "integer::<_, _, 0, 100_000_000>")]
    pub auto_seed: u32,
    /// The release that this process runs, shown in logs and by `/version`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "values::release_id")]
    pub release_id: Option<String>,
    /// Where to send traces, by OTLP over HTTP, such as `http://collector:4318`, to which `/v1/traces` is appended;
    /// unset, none are sent. `traces.rs` has the other `OTEL_` variables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otel_exporter_otlp_endpoint: Option<Endpoint>,
    /// The complete URL to send traces to, such as `http://collector:4318/v1/traces`; it takes precedence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otel_exporter_otlp_traces_endpoint: Option<Endpoint>,
    /// The longest export of traces, in milliseconds; 10000 by default.
    #[serde(default = "milliseconds::<10_000>", deserialize_with = "integer::<_, _, 1, DAY>")]
    pub otel_exporter_otlp_timeout: NonZeroU64,
    /// The same, for traces; it takes precedence.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "values::some_integer::<_, _, 1, DAY>"
    )]
    pub otel_exporter_otlp_traces_timeout: Option<NonZeroU64>,
    /// Whether tracing is disabled, regardless of the other variables; false by default.
    #[serde(default, deserialize_with = "boolean")]
    pub otel_sdk_disabled: bool,
    /// `otlp`, or `none` to send no traces; by default `otlp` when there is an endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otel_traces_exporter: Option<TracesExporter>,
    /// Probable mistakes that are not errors. They are written to the log when it starts.
    #[serde(skip)]
    pub warnings: Vec<String>,
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

const fn default_host() -> Host {
    Host::Address(IpAddr::V6(Ipv6Addr::UNSPECIFIED))
}

/// The maximum number of workers of actix-server.
const WORKERS_MAX: u64 = 512;

fn processors() -> NonZeroU16 {
    let processors = std::thread::available_parallelism().map_or(1, |processors| processors.get() as u64);
    u16::try_from(processors.min(WORKERS_MAX)).ok().and_then(NonZeroU16::new).unwrap_or(NonZeroU16::MIN)
}

fn default_cleanup() -> Schedule {
    Schedule::of("17 * * * *")
}

fn default_filter() -> String {
    "info".to_owned()
}

const URL: &str = "DATABASE_URL";
const URL_FILE: &str = "DATABASE_URL_FILE";
const TOKENS: &str = "API_TOKENS";
const TOKENS_FILE: &str = "API_TOKENS_FILE";
const SMTP: &str = "SMTP_URL";
const SMTP_FILE: &str = "SMTP_URL_FILE";

/// The listener that the process was started with, by systemd's protocol of socket activation (`LISTEN_FDS`).
///
/// # Errors
/// When descriptor 3 is not a TCP listener, or when there is more than one.
pub fn inherited_listener() -> io::Result<Option<TcpListener>> {
    let mut listeners = ListenFd::from_env();
    if listeners.len() > 1 {
        return Err(io::Error::other(format!("{} listeners were passed, and one is used", listeners.len())));
    }
    listeners.take_tcp_listener(0)
}

impl Config {
    /// The variables that are read, besides those that OpenTelemetry's SDK reads itself.
    pub const VARIABLES: &[Variable] = variables::VARIABLES;

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
        // envy ignores case, and would take the `port` of some shell for PORT.
        let (lower, mut vars): (BTreeMap<_, _>, BTreeMap<_, _>) = vars
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .partition(|(name, _)| name.contains(|c: char| c.is_ascii_lowercase()));
        let mut problems = Vec::new();
        let names: BTreeSet<_> = vars.keys().chain(lower.keys()).cloned().collect();
        let unread = unread(&names);

        // The name under which a variable was set.
        let mut set_by = BTreeMap::new();
        for (name, file) in [(URL, URL_FILE), (TOKENS, TOKENS_FILE), (SMTP, SMTP_FILE)] {
            let Some(path) = vars.remove(file) else { continue };
            if vars.contains_key(name) {
                problems.push(format!("{file}: {name} is set as well; keep one of the two"));
                continue;
            }
            match read_secret(name, &path) {
                Ok(value) => {
                    set_by.insert(name, file);
                    vars.insert(name.to_owned(), value);
                }
                Err(problem) => problems.push(format!("{file}: {problem}")),
            }
        }
        if !vars.contains_key(URL) && !names.contains(URL_FILE) {
            let similar = unread.iter().find(|(_, likely)| *likely == URL || *likely == URL_FILE);
            let similar = similar.map(|(name, likely)| format!("{name} is set: rename it to {likely}, or "));
            problems.push(format!(
                "{URL}: required; {}set it to a URL such as {}",
                similar.unwrap_or_default(),
                names::list(&EXAMPLE_URLS)
            ));
        }
        problems.extend(database_url::postgres_problems(&vars));
        problems.extend(traces::problems(&vars));
        if vars.contains_key(SMTP) && !vars.contains_key("MAIL_FROM") {
            problems.push(format!("MAIL_FROM: required with {SMTP}; set it to the sender, such as roster@example.com"));
        }

        // envy stops at the first problem, so each variable is tried by itself beside a stand-in for
        // the one that is required.
        let stand_in = (URL.to_owned(), EXAMPLE_URLS[0].to_owned());
        for (name, value) in &vars {
            let from = set_by.get(name.as_str()).copied().unwrap_or(name);
            let stand_in = (name != URL).then(|| stand_in.clone());
            let alone = stand_in.into_iter().chain([(name.clone(), value.clone())]);
            if let Err(error) = envy::from_iter::<_, Self>(alone) {
                problems.push(format!("{from}: {error}"));
            }
        }
        let similar = unread.iter().map(|(name, likely)| format!("{name} is not read; did you mean {likely}?"));
        if !problems.is_empty() {
            return Err(Problems(problems.into_iter().chain(similar).collect()));
        }
        let mut config: Self = envy::from_iter(vars).map_err(|error| Problems(vec![error.to_string()]))?;
        let unused = names.iter().filter(|name| traces::is_unused(name));
        let unused = unused.map(|name| format!("{name} has no effect: only traces are sent"));
        let targets = log_filter::unknown_targets(&config.rust_log);
        let targets = targets.map(|target| format!("RUST_LOG: no log line has the target {target}"));
        let warnings = similar.chain(unused).chain(targets);
        // [only servers]
        let warnings = warnings.chain(config.database_url.warning());
        // [end]
        config.warnings = warnings.chain(config.smtp_url.as_ref().and_then(SmtpUrl::warning)).collect();
        Ok(config)
    }

    /// Checks what only a server needs. The configuration is that of the admin tasks, too, which need no tokens.
    ///
    /// # Errors
    /// When all requests need a token, and there is none.
    pub fn check_server(&self) -> Result<(), Problems> {
        if self.api_tokens_required == TokensRequired::All && self.api_tokens.is_empty() {
            let problem = format!("API_TOKENS_REQUIRED: all requests need a token, and there is none; set {TOKENS}");
            return Err(Problems(vec![problem]));
        }
        Ok(())
    }

    /// The configuration of a process that serves HTTP only for its operators: one thread is enough.
    #[must_use]
    pub fn single_threaded(self) -> Self {
        Self { web_concurrency: NonZeroU16::MIN, ..self }
    }

    /// The longest export of traces.
    #[must_use]
    pub fn traces_timeout(&self) -> Duration {
        Duration::from_millis(self.otel_exporter_otlp_traces_timeout.unwrap_or(self.otel_exporter_otlp_timeout).get())
    }

    /// The URL to send traces to, if they are sent.
    #[must_use]
    pub fn traces_endpoint(&self) -> Option<String> {
        if self.otel_sdk_disabled || self.otel_traces_exporter == Some(TracesExporter::None) {
            return None;
        }
        // The default of the standard.
        let local = || self.otel_traces_exporter.map(|_| "http://localhost:4318/v1/traces".to_owned());
        let own = self.otel_exporter_otlp_traces_endpoint.as_ref().map(|endpoint| endpoint.as_str().to_owned());
        own.or_else(|| self.otel_exporter_otlp_endpoint.as_ref().map(Endpoint::for_traces)).or_else(local)
    }
}

/// Variables with a name that is similar to a known one, each with the known name. Platforms set many variables, so the
/// result has no less similar names, and no name whose known variable is set as well.
fn unread(names: &BTreeSet<String>) -> Vec<(String, &'static str)> {
    /// Short names are similar to many others.
    const LENGTH: usize = 6;
    let known = Config::VARIABLES.iter().map(|variable| variable.name).chain(traces::names());
    let is_known = |name: &str| known.clone().any(|known| known == name);
    let candidates = names.iter().filter(|name| name.len() >= LENGTH && !is_known(name) && !traces::is_unused(name));
    let likely = candidates.filter_map(|name| {
        let known = known.clone().filter(|known| known.len() >= LENGTH);
        let likely = names::nearest(name, known.clone());
        // The known name without its unit.
        let likely = likely.or_else(|| known.clone().find(|known| known.strip_suffix("_MS") == Some(name)));
        Some((name.clone(), likely?))
    });
    likely.filter(|(_, likely)| !names.contains(*likely)).collect()
}

/// Reads the value of a variable from the file that another variable names. An error contains the path only if it cannot be
/// the value itself.
fn read_secret(name: &str, path: &str) -> Result<String, String> {
    const SIZE_MAX: u64 = 16 * 1024;
    let shown = if path.starts_with('/') && !path.contains("://") && !path.contains('@') { path } else { "the file" };
    if path.contains("://") {
        return Err(format!("expected the path of a file, got a URL; set {name} to the URL instead"));
    }
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(SIZE_MAX + 1).read_to_string(&mut text));
    read.map_err(|error: io::Error| match error.kind() {
        ErrorKind::InvalidData => format!("{shown} is not UTF-8; save it as UTF-8"),
        _ => format!("cannot read {shown}: {error}"),
    })?;
    // Editors add a byte order mark and line breaks.
    let value = text.strip_prefix('\u{feff}').unwrap_or(&text).trim();
    if text.len() as u64 > SIZE_MAX {
        Err(format!("{shown} is longer than {SIZE_MAX} bytes"))
    } else if value.is_empty() {
        Err(format!("{shown} is empty; write the value of {name} into it"))
    } else {
        Ok(value.to_owned())
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
            let name = name.to_ascii_uppercase();
            write!(f, "{name}={value}")?;
            // [only servers]
            if name == URL
                && let Some(protection) = self.database_url.protection()
            {
                write!(f, " ({protection})")?;
            }
            // [end]
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Everything that is wrong with the environment, a line each.
#[derive(Debug, thiserror::Error)]
#[error("the configuration is not valid:\n  {}", .0.join("\n  "))]
pub struct Problems(Vec<String>);
