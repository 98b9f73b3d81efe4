//! The URL of an SQLite database.

use sqlx::ConnectOptions as _;
use sqlx::sqlite::SqliteConnectOptions;
use url::form_urlencoded;

use super::location::Location;
use super::parameters::Parameter::{OneOf, Refused, Text};
use super::parameters::{POOL_SIZE, POOL_SIZES, Parameters, QUERY_TIMEOUT, Row, STATEMENTS};

const IN_MEMORY: &str = "an in-memory SQLite database ends with its last connection; name a file";

const PARAMETERS: &[Row] = &[
    ("mode", &[], OneOf(&["ro", "rw", "rwc"])),
    ("cache", &[], OneOf(&["private", "shared"])),
    ("immutable", &[], OneOf(&["true", "false", "1", "0"])),
    ("vfs", &[], Text),
    ("timeout", &["busy_timeout", "connection_timeout"], Refused(QUERY_TIMEOUT)),
    ("connection_limit", POOL_SIZES, Refused(POOL_SIZE)),
    ("journal_mode", &["_journal_mode", "journal"], Refused("the migrations set the journal's mode: remove it")),
    ("foreign_keys", &["_foreign_keys", "_fk"], Refused("foreign keys are always enforced: remove it")),
];

/// Reads what follows `sqlite:`.
pub(super) fn parse(rest: &str) -> Result<(SqliteConnectOptions, Location), String> {
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
    parameters.read(PARAMETERS, form_urlencoded::parse(query.as_bytes()));
    let parameters = parameters.checked()?;
    // The driver decodes the path.
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(&parameters.driver).finish();
    let redacted = format!("sqlite:{path}{}{query}", if query.is_empty() { "" } else { "?" });
    let options: SqliteConnectOptions = redacted.parse().map_err(|_| "its path is not UTF-8 once it is decoded")?;
    let file = options.get_filename().display().to_string();
    if file.is_empty() || file.ends_with('/') {
        return Err("the SQLite URL names no file; write it as sqlite:roster.db?mode=rwc".into());
    }
    let location = Location {
        // [only servers]
        transport: None,
        // [end]
        address: file,
        redacted,
    };
    Ok((options.statement_cache_capacity(STATEMENTS).disable_statement_logging(), location))
}
