//! The URL of a PostgreSQL server, and the variables of libpq for TLS.

use std::collections::BTreeMap;

use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::location::Location;
use super::parameters::Parameter::{
    HostOrFolder, IpAddress, Number, Only, Pem, Pooler, Refused, RootCertificate, SslMode, Text,
};
use super::parameters::{
    ACQUIRE_TIMEOUT, ALWAYS_UTC, Authority, CONNECT_TIMEOUTS, NOT_SUPPORTED, POOL_SIZE, POOL_SIZES, QUERY_TIMEOUT,
    QUERY_TIMEOUTS, Row, STATEMENTS,
};
use super::server::Server;
use super::tls::{CERTIFICATE, PRIVATE_KEY, Tls, check_pem};

const POSTGRES_TLS: &str = "use sslmode=verify-full, sslmode=require or sslmode=disable";
const SCHEMA: &str = "set the search path by options[search_path]=NAME, or by ALTER ROLE ... SET search_path";
const CACHE: &str =
    "if the URL is that of a pooler in transaction mode, use statement-cache-capacity=0; else remove it";

/// The variables of libpq for `sslmode` and `sslrootcert`.
const MODE_VARIABLE: &str = "PGSSLMODE";
const AUTHORITY_VARIABLE: &str = "PGSSLROOTCERT";

const PARAMETERS: &[Row] = &[
    ("sslmode", &[], SslMode),
    ("sslrootcert", &["ssl-root-cert", "ssl-ca"], RootCertificate),
    ("sslcert", &[], Pem(CERTIFICATE)),
    ("sslkey", &[], Pem(PRIVATE_KEY)),
    ("statement-cache-capacity", &[], Number(0, 10_000)),
    ("host", &[], HostOrFolder),
    ("hostaddr", &[], IpAddress),
    ("port", &[], Number(1, 65_535)),
    ("dbname", &[], Text),
    ("user", &[], Text),
    ("password", &[], Text),
    ("application_name", &[], Text),
    ("options", &[], Text),
    ("pgbouncer", &[], Pooler),
    ("fallback_application_name", &[], Refused("use application_name")),
    (
        "channel_binding",
        &[],
        Only(
            &["prefer", "disable"],
            "channel binding is not supported: remove it, and use sslmode=verify-full, which \
                                      also excludes a server in the middle",
        ),
    ),
    (
        "target_session_attrs",
        &["targetServerType"],
        Only(&["any"], "one server is used: name the primary as the host, and remove it"),
    ),
    ("load_balance_hosts", &[], Only(&["disable"], "one server is used: remove it")),
    ("sslnegotiation", &[], Only(&["postgres"], NOT_SUPPORTED)),
    ("gssencmode", &[], Only(&["disable", "prefer"], "GSSAPI is not supported: use sslmode=verify-full")),
    ("client_encoding", &["charset", "encoding"], Only(&["utf8", "utf-8"], "the encoding is always UTF-8: remove it")),
    ("sslcompression", &[], Only(&["0"], NOT_SUPPORTED)),
    ("sslsni", &[], Only(&["1"], NOT_SUPPORTED)),
    ("schema", &["search_path", "current_schema"], Only(&["public"], SCHEMA)),
    ("sslaccept", &["ssl", "tls", "usessl", "requiressl", "sslidentity", "sslfactory"], Refused(POSTGRES_TLS)),
    ("sslpassword", &[], Refused("an encrypted key is not supported: remove its password by `openssl pkey`")),
    ("sslcrl", &["sslcrldir", "ssl_min_protocol_version", "ssl_max_protocol_version"], Refused(NOT_SUPPORTED)),
    ("connection_limit", POOL_SIZES, Refused(POOL_SIZE)),
    ("connect_timeout", CONNECT_TIMEOUTS, Refused(ACQUIRE_TIMEOUT)),
    ("statement_timeout", QUERY_TIMEOUTS, Refused(QUERY_TIMEOUT)),
    (
        "statement_cache_size",
        &[
            "prepare_threshold",
            "prepared_statements",
            "prepared_statement_cache_queries",
            "default_query_exec_mode",
            "binary_parameters",
            "simple_protocol",
            "prefer_simple_protocol",
            "statement_cache_mode",
        ],
        Refused(CACHE),
    ),
    ("timezone", &[], Only(&["utc", "+00:00", " 00:00"], ALWAYS_UTC)),
    ("socket", &["unix_socket"], Refused("use host=/FOLDER, the folder that has the socket .s.PGSQL.5432")),
    (
        "service",
        &["passfile", "require_auth", "krbsrvname", "replication", "supa", "workaround"],
        Refused(NOT_SUPPORTED),
    ),
    (
        "keepalives",
        &["keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout", "tcp_keep_alive"],
        Refused(NOT_SUPPORTED),
    ),
];

/// Reads what follows the colon. The second value is whether a pooler assigns a session for each transaction.
pub(super) fn parse(scheme: &str, rest: &str) -> Result<(PgConnectOptions, bool, Location), String> {
    let mut server = Server::parse(scheme, rest, PARAMETERS)?;
    let mut options: PgConnectOptions = server.driver_options()?;
    if options.get_application_name().is_none() {
        options = options.application_name(env!("CARGO_PKG_NAME"));
    }
    if server.parameters.is_pooler {
        options = options.statement_cache_capacity(0);
    } else if !server.parameters.has("statement-cache-capacity") {
        options = options.statement_cache_capacity(STATEMENTS);
    }
    if server.parameters.host_or_folder.is_none() {
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
    let transaction_pooling = server.parameters.is_pooler;
    Ok((options, transaction_pooling, server.location(socket, &host, port, tls)))
}

fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty())
}

/// The problems of the variables of libpq for TLS. The driver applies them to a URL without these parameters. It ignores
/// an unknown mode, and reads the files only when it connects.
pub(in crate::config) fn postgres_problems(vars: &BTreeMap<String, String>) -> Vec<String> {
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
        AUTHORITY_VARIABLE | "PGSSLCERT" => check_pem(value, CERTIFICATE),
        "PGSSLKEY" => check_pem(value, PRIVATE_KEY),
        _ => Ok(()),
    };
    vars.iter().filter_map(|(name, value)| Some(format!("{name}: {}", check(name, value).err()?))).collect()
}
