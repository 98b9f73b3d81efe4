//! The URL of a MySQL or MariaDB server.

use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};

use super::location::Location;
use super::parameters::Parameter::{Collation, Number, Only, Pem, Refused, RootCertificate, SocketPath, SslMode};
use super::parameters::{
    ACQUIRE_TIMEOUT, ALWAYS_UTC, CONNECT_TIMEOUTS, NOT_SUPPORTED, POOL_SIZE, POOL_SIZES, QUERY_TIMEOUT, QUERY_TIMEOUTS,
    Row, STATEMENTS,
};
use super::server::Server;
use super::tls::{CERTIFICATE, PRIVATE_KEY, Tls};

const MYSQL_TLS: &str = "use ssl-mode=VERIFY_IDENTITY, ssl-mode=REQUIRED or ssl-mode=DISABLED";
const DATABASE_USER: &str = "write it into the URL, as in mysql://user:password@host/database";
const CHARSET: &str = "the character set is always utf8mb4: remove it";

const PARAMETERS: &[Row] = &[
    ("ssl-mode", &[], SslMode),
    ("ssl-ca", &["sslrootcert"], RootCertificate),
    ("ssl-cert", &[], Pem(CERTIFICATE)),
    ("ssl-key", &[], Pem(PRIVATE_KEY)),
    ("statement-cache-capacity", &[], Number(0, 10_000)),
    ("socket", &["unix_socket", "socket_path"], SocketPath),
    ("charset", &["character_encoding", "encoding"], Only(&["utf8mb4"], CHARSET)),
    ("collation", &["connection_collation"], Collation),
    ("timezone", &["server_timezone", "connection_timezone", "loc"], Only(&["utc", "+00:00", " 00:00"], ALWAYS_UTC)),
    (
        "sslaccept",
        &["ssl", "tls", "usessl", "requiressl", "verify_server_certificate", "trust_server_certificate", "sslverify"],
        Refused(MYSQL_TLS),
    ),
    ("user", &["username"], Refused(DATABASE_USER)),
    ("password", &[], Refused(DATABASE_USER)),
    ("host", &["port", "dbname", "database"], Refused("write it into the URL; for a Unix socket, use socket=/PATH")),
    ("connection_limit", POOL_SIZES, Refused(POOL_SIZE)),
    ("connect_timeout", CONNECT_TIMEOUTS, Refused(ACQUIRE_TIMEOUT)),
    ("statement_timeout", QUERY_TIMEOUTS, Refused(QUERY_TIMEOUT)),
    ("statement_cache_size", &["cache_prep_stmts", "use_server_prep_stmts"], Refused("use statement-cache-capacity")),
    ("pgbouncer", &["channel_binding", "target_session_attrs"], Refused("it is a parameter of PostgreSQL: remove it")),
    (
        "parse_time",
        &[
            "multi_statements",
            "auto_reconnect",
            "reconnect",
            "use_unicode",
            "allow_public_key_retrieval",
            "schema",
            "interpolate_params",
            "allow_native_passwords",
            "allow_multi_queries",
            "rewrite_batched_statements",
            "default_auth",
            "allow_cleartext_passwords",
            "zero_date_time_behavior",
        ],
        Refused(NOT_SUPPORTED),
    ),
];

/// Reads what follows the colon.
pub(super) fn parse(scheme: &str, rest: &str) -> Result<(MySqlConnectOptions, Location), String> {
    let server = Server::parse(scheme, rest, PARAMETERS)?;
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
    if !server.parameters.has("statement-cache-capacity") {
        options = options.statement_cache_capacity(STATEMENTS);
    }
    if let Some(address) = server.ipv6() {
        options = options.host(&address.to_string());
    }
    let (host, port) = (options.get_host().to_owned(), options.get_port());
    let socket = server.parameters.socket_path.clone();
    Ok((options, server.location(socket, &host, port, tls)))
}
