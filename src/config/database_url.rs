//! `DATABASE_URL`: checked as a whole before a driver sees it.
//!
//! The drivers of PostgreSQL and MySQL ignore parameters that they do not know, so `?sslmod=verify-full` would connect
//! in plain text. Here every parameter is applied, or rejected by its name. The driver then reads a URL with supported
//! parameters only.
//!
//! The URL contains a password. A special character that is not percent-encoded can move a part of the password into
//! any other part of the URL. So an error message contains no part of the URL except the names of parameters.

mod location;
mod mysql;
mod parameters;
mod postgres;
mod protection;
mod server;
mod sqlite;
mod tls;

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};
use sqlx::mysql::MySqlConnectOptions;
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;

use super::names::{list, nearest};
use location::Location;

pub(super) use postgres::postgres_problems;

/// Where the database is and how to log in. Shown, it hides the password.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct DatabaseUrl {
    /// The options of the driver. The drivers print passwords in their `Debug`, so it stays in this crate.
    pub(crate) options: DriverOptions,
    /// Whether a pooler such as PgBouncer assigns a server connection for each transaction. In a PostgreSQL URL,
    /// `statement-cache-capacity=0` declares it, because then no statement stays prepared; so does `pgbouncer=true`.
    pub(crate) transaction_pooling: bool,
    location: Location,
}

/// The parsed URL as each driver wants it.
#[derive(Clone)]
pub(crate) enum DriverOptions {
    Sqlite(SqliteConnectOptions),
    MySql(MySqlConnectOptions),
    Postgres(PgConnectOptions),
}

const SCHEMES: [&str; 5] = ["sqlite", "mysql", "mariadb", "postgres", "postgresql"];
/// How each of them begins.
const BEGINNINGS: [&str; 5] = ["sqlite:", "mysql://", "mariadb://", "postgres://", "postgresql://"];
/// A URL of each engine.
pub(crate) const EXAMPLES: [&str; 3] =
    ["sqlite:roster.db?mode=rwc", "mysql://user:password@host/database", "postgres://user:password@host/database"];
/// A URL of each engine whose database does not exist.
#[cfg(any(test, fuzzing))]
pub(crate) const UNUSED: [&str; 3] =
    ["sqlite:none.db?mode=ro", "mysql://user:password@127.0.0.1:1/none", "postgres://user:password@127.0.0.1:1/none"];

impl DatabaseUrl {
    /// The host and port, the socket, or the file: what an operator needs to find the database, and
    /// nothing that gives access to it.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.location.address
    }
}

impl TryFrom<String> for DatabaseUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        check_text(&text)?;
        let (scheme, rest) = text.split_once(':').unwrap_or_default();
        let scheme = scheme.to_ascii_lowercase();
        let (options, transaction_pooling, location) = match scheme.as_str() {
            "sqlite" => {
                let (options, location) = sqlite::parse(rest)?;
                (DriverOptions::Sqlite(options), false, location)
            }
            "mysql" | "mariadb" => {
                let (options, location) = mysql::parse(&scheme, rest)?;
                (DriverOptions::MySql(options), false, location)
            }
            "postgres" | "postgresql" => {
                let (options, transaction_pooling, location) = postgres::parse(&scheme, rest)?;
                (DriverOptions::Postgres(options), transaction_pooling, location)
            }
            _ => return Err(unknown_scheme(&scheme, rest)),
        };
        Ok(Self { options, transaction_pooling, location })
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
    let all = format!("use {}", list(&BEGINNINGS));
    let engine = scheme.split('+').next().unwrap_or_default();
    if scheme == "jdbc" {
        return format!("unknown scheme; remove jdbc: and write it as {}; {all}", EXAMPLES[EXAMPLES.len() - 1]);
    }
    if scheme.contains('+') && SCHEMES.contains(&engine) {
        return format!("unknown scheme; remove the driver's name, from the + to the colon; {all}");
    }
    match nearest(scheme, SCHEMES).filter(|_| rest.starts_with("//")) {
        Some(likely) => format!("unknown scheme; did you mean {likely}://? {all}"),
        None => format!("unknown scheme; {all}"),
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.location.redacted)
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.location.redacted)
    }
}

impl Serialize for DatabaseUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
