//! `RUST_LOG`: a filter in which every level and target has an effect.
//!
//! tracing-subscriber treats a word that is not a level as a target, so `RUST_LOG=warning` would suppress every line.

use serde::de::Error as _;
use serde::{Deserialize as _, Deserializer};

use super::names::nearest;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The crates that can write log lines.
const CRATES: [&str; 23] = [
    env!("CARGO_PKG_NAME"),
    "actix_http",
    "actix_rt",
    "actix_server",
    "actix_web",
    "deadpool",
    "mio",
    "opentelemetry",
    "opentelemetry-http",
    "opentelemetry-otlp",
    "opentelemetry_http",
    "opentelemetry_otlp",
    "opentelemetry_sdk",
    "rustls",
    "sqlx",
    "sqlx_core",
    "sqlx_mysql",
    "sqlx_postgres",
    "sqlx_sqlite",
    "tokio",
    "tokio_util",
    "tracing_opentelemetry",
    "ureq",
];

/// Checks each directive of a filter, and removes the white space around it.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.contains("://") {
        return Err(D::Error::custom("expected a level or target=level, got a URL"));
    }
    let directives = text.split(',').map(str::trim).filter(|directive| !directive.is_empty());
    let checked: Result<Vec<_>, _> = directives.map(|directive| check(directive).map(|()| directive)).collect();
    match checked.map_err(D::Error::custom)?.join(",") {
        none if none.is_empty() => Err(D::Error::custom(format!("expected a level or target=level, got {text:?}"))),
        filter => Ok(filter),
    }
}

fn check(directive: &str) -> Result<(), String> {
    let expected = format!("expected one of {}", LEVELS.join(", "));
    let (target, level) = directive.split_once('=').map_or((None, directive), |(target, level)| (Some(target), level));
    let Some(target) = target else {
        if is_level(level) || (is_target(level) && CRATES.contains(&root(level))) {
            return Ok(());
        }
        return Err(match likely_level(level) {
            Some(likely) => format!("{level:?} is not a level; did you mean {likely}?"),
            None => format!("{level:?} is not a level; {expected}, or target=level"),
        });
    };
    if !is_target(target) {
        return Err(format!("{target:?} is not a target; expected the path of a module, such as roster::http"));
    }
    if !is_level(level) {
        return Err(match likely_level(level) {
            Some(likely) => format!("{level:?} is not a level; did you mean {target}={likely}?"),
            None => format!("{level:?} is not a level; {expected}"),
        });
    }
    match nearest(root(target), CRATES).filter(|_| !exists(target)) {
        Some(likely) => Err(format!("no log line has the target {target:?}; did you mean {likely}?")),
        None => Ok(()),
    }
}

/// The targets of a checked filter that no log line has. A shared filter may have targets of another program.
pub(super) fn unknown_targets(filter: &str) -> impl Iterator<Item = &str> {
    let targets = filter.split(',').filter_map(|directive| directive.split_once('=')).map(|(target, _)| target);
    targets.filter(|target| !exists(target))
}

fn is_level(level: &str) -> bool {
    LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level)) || matches!(level, "0" | "1" | "2" | "3" | "4" | "5")
}

fn is_target(target: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ':');
    target.starts_with(|c: char| c.is_ascii_alphabetic()) && target.chars().all(is_part)
}

/// A target matches every target that begins with it.
fn exists(target: &str) -> bool {
    match target.split_once("::") {
        Some((root, _)) => CRATES.contains(&root),
        None => CRATES.iter().any(|known| known.starts_with(target)),
    }
}

fn root(target: &str) -> &str {
    target.split("::").next().unwrap_or(target)
}

fn likely_level(word: &str) -> Option<&'static str> {
    let word = word.to_ascii_lowercase();
    let is_longer = |level: &&&str| word.starts_with(**level) || (word.len() >= 3 && level.starts_with(&word));
    LEVELS.iter().find(is_longer).copied().or_else(|| nearest(&word, LEVELS))
}
