//! The variables with their defaults and meanings, as `--help` lists them. A test compares them with the table in the
//! README.

/// A variable of the environment. Its texts are in Markdown, without links.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// Its default: `–` if there is none, or `required`.
    pub default: &'static str,
    /// What it sets.
    pub meaning: &'static str,
}

const fn variable(name: &'static str, default: &'static str, meaning: &'static str) -> Variable {
    Variable { name, default, meaning }
}

pub(super) const VARIABLES: &[Variable] = &[
    variable(
        "DATABASE_URL",
        "required",
        concat![
            "`sqlite:file?mode=rwc`, ",
            "`mysql://user:password@host/database` (or `mariadb://`), ",
            "`postgres://user:password@host/database` (or `postgresql://`), ",
            "with optional parameters"
        ],
    ),
    variable(
        "DATABASE_URL_FILE",
        "–",
        "a file that holds the URL instead, such as a mounted secret; both set is an error",
    ),
    variable("DATABASE_MAX_CONNECTIONS", "4", "pool size of one process; readiness checks use one more connection"),
    variable("DATABASE_ACQUIRE_TIMEOUT_MS", "1000", "longest wait for a connection before a 503"),
    variable("DATABASE_QUERY_TIMEOUT_MS", "2000", "longest query before a 503"),
    variable("PORT", "5000", "0 picks a free port, which the log names; `web healthcheck` then needs that port"),
    variable(
        "HOST",
        "::",
        "IP address to bind, or a name such as `localhost`, of which each address is bound; `::` binds every IPv6 \
         and IPv4 address, or `0.0.0.0` on a machine without IPv6",
    ),
    variable("WEB_CONCURRENCY", "processors", "HTTP worker threads, at most 512"),
    variable(
        "MAX_IN_FLIGHT",
        "1024",
        "limit of concurrent requests, streams included; further requests get a 503, except health checks and \
         metrics",
    ),
    variable(
        "REQUEST_TIMEOUT_MS",
        "10000",
        "longest time for a whole request, its body included; for a stream, the longest time without progress by \
         its client",
    ),
    variable(
        "KEEP_ALIVE_MS",
        "75000",
        "how long a connection may be idle before it is closed; set it above the idle timeout of the load balancer",
    ),
    variable(
        "REUSE_PORT",
        "false",
        "several processes may share the port (`SO_REUSEPORT`), so that the next process can start before this one \
         ends",
    ),
    variable(
        "DRAIN_DELAY_MS",
        "0",
        "time between SIGTERM and refusing new connections, for load balancers that poll `/readyz`",
    ),
    variable(
        "SHUTDOWN_TIMEOUT_MS",
        "20000",
        "longest wait for requests in flight after that, or for running jobs; remaining requests are aborted, \
         remaining jobs return to the queue, and the exit code is 1",
    ),
    variable("LOG_FORMAT", "json", "`json` or `text`"),
    variable(
        "RUST_LOG",
        "info",
        "filter of the log, such as `info,roster=debug`; the levels are `off`, `error`, `warn`, `info`, `debug` \
         and `trace`",
    ),
    variable("NO_COLOR", "–", "any value: no colours; without it, the format `text` has colours on a terminal"),
    variable(
        "TRUSTED_PROXIES",
        "–",
        "addresses and networks of the proxies before this process, separated by commas or white space, such as \
         `10.0.0.0/8,fd00::/8`; if set, the log has the address of each client",
    ),
    variable(
        "CLIENT_ADDRESS_HEADER",
        "x-forwarded-for",
        "the header in which these proxies name their client: `x-forwarded-for`, or `forwarded` (RFC 7239)",
    ),
    variable(
        "API_TOKENS",
        "–",
        "`name:sha256` pairs of the clients that may write, separated by commas or white space; `web token NAME` \
         prints one; without it, every write gets a 403",
    ),
    variable(
        "API_TOKENS_FILE",
        "–",
        "a file that holds the pairs instead, such as a mounted secret; both set is an error",
    ),
    variable(
        "API_TOKENS_REQUIRED",
        "writes",
        "`writes`, or `all`: reading needs a token too, except `/livez`, `/readyz`, styles and the icon",
    ),
    variable(
        "SMTP_URL",
        "–",
        "the mail server: `smtp://user:password@host:587` (STARTTLS) or `smtps://user:password@host:465`; set it \
         for `web` and `worker` alike; without it, no mail is enqueued",
    ),
    variable("SMTP_URL_FILE", "–", "a file that holds the URL instead, such as a mounted secret; both set is an error"),
    variable("MAIL_FROM", "–", "the sender, such as `Roster <roster@example.com>`; required with `SMTP_URL`"),
    variable("WORKER_CONCURRENCY", "4", "jobs that one `worker` runs at the same time, at most 1000"),
    variable(
        "CLEANUP_SCHEDULE",
        "`17 * * * *`",
        "when `clock` enqueues the removal of old rows: a cron expression in UTC, each hour by default",
    ),
    variable(
        "AUTO_MIGRATE",
        "false",
        "`web` applies pending migrations before it serves (development, single-process deploys); it waits at most \
         600 s for the locks of other sessions, and exits with 1 if the database is unreachable",
    ),
    variable("AUTO_SEED", "0", "number of samples that `web` inserts if there are none (development)"),
    variable(
        "RELEASE_ID",
        "–",
        "the release that this process runs; shown in logs, metrics and traces, and by `/version`",
    ),
    variable(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "–",
        "base URL to which traces are sent, by OTLP over HTTP, such as `http://collector:4318`; `/v1/traces` is \
         appended",
    ),
    variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "–", "complete URL to which traces are sent; it takes precedence"),
    variable("OTEL_EXPORTER_OTLP_TIMEOUT", "10000", "longest export of traces, in milliseconds"),
    variable("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "–", "the same; it takes precedence"),
    variable("OTEL_SDK_DISABLED", "false", "`true` sends no traces, regardless of the other variables"),
    variable(
        "OTEL_TRACES_EXPORTER",
        "–",
        "`otlp`, or `none` to send no traces; by default `otlp` when there is an endpoint",
    ),
];
