//! The parameters of a database URL: those that are applied, and those that are rejected with advice.
//!
//! Names are compared without case, `-` and `_`: `sslmode`, `ssl-mode` and `sslMode` are one parameter.

use super::names::canonical;

/// How a parameter is handled.
#[derive(Clone, Copy, Debug)]
pub(super) enum Parameter {
    /// Passed to the driver.
    Text,
    /// Passed to the driver if it is one of these.
    OneOf(&'static [&'static str]),
    /// An integer in this range, passed to the driver.
    Number(u64, u64),
    /// The path of a readable file that contains PEM with this label, passed to the driver.
    Pem(&'static str),
    /// The folder of a Unix socket, or a host.
    Host,
    /// An IP address.
    Address,
    /// The path of a Unix socket.
    Socket,
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
    /// Rejected with advice.
    Refused(&'static str),
}

use Parameter::{
    Address, Collation, Host, Number, OneOf, Only, Pem, Pooler, Refused, RootCertificate, Socket, SslMode, Text,
};

/// One parameter: the driver's name, other names, and how the parameter is handled.
pub(super) type Row = (&'static str, &'static [&'static str], Parameter);

/// The row of a parameter.
pub(super) fn find(table: &'static [Row], name: &str) -> Option<&'static Row> {
    let name = canonical(name);
    table.iter().find(|(own, others, _)| [own].into_iter().chain(*others).any(|known| canonical(known) == name))
}

/// The names of the parameters that are applied.
pub(super) fn names(table: &'static [Row]) -> impl Iterator<Item = &'static str> + Clone {
    table.iter().filter(|(.., parameter)| !matches!(parameter, Refused(_) | Only(..))).map(|(name, ..)| *name)
}

pub(super) const SQLITE: &[Row] = &[
    ("mode", &[], OneOf(&["ro", "rw", "rwc"])),
    ("cache", &[], OneOf(&["private", "shared"])),
    ("immutable", &[], OneOf(&["true", "false", "1", "0"])),
    ("vfs", &[], Text),
    ("timeout", &["busy_timeout", "connection_timeout"], Refused(QUERY_TIMEOUT)),
    ("connection_limit", POOL_SIZES, Refused(POOL_SIZE)),
    ("journal_mode", &["_journal_mode", "journal"], Refused("the migrations set the journal's mode: remove it")),
    ("foreign_keys", &["_foreign_keys", "_fk"], Refused("foreign keys are always enforced: remove it")),
];

pub(super) const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
pub(super) const PRIVATE_KEY: &str = "PRIVATE KEY-----";

const POSTGRES_TLS: &str = "use sslmode=verify-full, sslmode=require or sslmode=disable";
const MYSQL_TLS: &str = "use ssl-mode=VERIFY_IDENTITY, ssl-mode=REQUIRED or ssl-mode=DISABLED";
const POOL_SIZE: &str = "set DATABASE_MAX_CONNECTIONS in place of it";
const ACQUIRE_TIMEOUT: &str = "set DATABASE_ACQUIRE_TIMEOUT_MS in place of it";
const QUERY_TIMEOUT: &str = "set DATABASE_QUERY_TIMEOUT_MS in place of it";
const SCHEMA: &str = "set the search path by options[search_path]=NAME, or by ALTER ROLE ... SET search_path";
const CACHE: &str =
    "if the URL is that of a pooler in transaction mode, use statement-cache-capacity=0; else remove it";
const NOT_SUPPORTED: &str = "it is not supported: remove it";
const DATABASE_USER: &str = "write it into the URL, as in mysql://user:password@host/database";
const CHARSET: &str = "the character set is always utf8mb4: remove it";
const UTC: &str = "times are always UTC: remove it";

const POOL_SIZES: &[&str] = &[
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
const CONNECT_TIMEOUTS: &[&str] =
    &["connection_timeout", "login_timeout", "pool_timeout", "acquire_timeout", "timeout", "pool_checkout_timeout"];
const QUERY_TIMEOUTS: &[&str] =
    &["socket_timeout", "read_timeout", "write_timeout", "query_timeout", "lock_timeout", "max_execution_time"];

pub(super) const POSTGRES: &[Row] = &[
    ("sslmode", &[], SslMode),
    ("sslrootcert", &["ssl-root-cert", "ssl-ca"], RootCertificate),
    ("sslcert", &[], Pem(CERTIFICATE)),
    ("sslkey", &[], Pem(PRIVATE_KEY)),
    ("statement-cache-capacity", &[], Number(0, 10_000)),
    ("host", &[], Host),
    ("hostaddr", &[], Address),
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
    ("timezone", &[], Only(&["utc", "+00:00", " 00:00"], UTC)),
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

pub(super) const MYSQL: &[Row] = &[
    ("ssl-mode", &[], SslMode),
    ("ssl-ca", &["sslrootcert"], RootCertificate),
    ("ssl-cert", &[], Pem(CERTIFICATE)),
    ("ssl-key", &[], Pem(PRIVATE_KEY)),
    ("statement-cache-capacity", &[], Number(0, 10_000)),
    ("socket", &["unix_socket", "socket_path"], Socket),
    ("charset", &["character_encoding", "encoding"], Only(&["utf8mb4"], CHARSET)),
    ("collation", &["connection_collation"], Collation),
    ("timezone", &["server_timezone", "connection_timezone", "loc"], Only(&["utc", "+00:00", " 00:00"], UTC)),
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
