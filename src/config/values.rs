//! Conversion of a variable's text to its value. An error contains the accepted values and the text. None of these
//! variables is a secret, but a connection URL in the wrong variable may contain one.

use std::net::IpAddr;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize as _, Deserializer, Serialize};

/// A day in milliseconds, the maximum of every time limit. Every component supports it. SQLite, and the limits of the
/// servers, do not support 25 days.
pub(super) const DAY: u64 = 86_400_000;

/// The layout of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line, for a log collector.
    #[default]
    Json,
    /// A line for a human reader.
    Text,
}

pub(super) fn integer<'de, D, T, const LEAST: u64, const MOST: u64>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr,
{
    parse_integer(&String::deserialize(deserializer)?, LEAST, MOST).map_err(D::Error::custom)
}

pub(super) fn some_integer<'de, D, T, const LEAST: u64, const MOST: u64>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr,
{
    integer::<D, T, LEAST, MOST>(deserializer).map(Some)
}

pub(super) fn parse_integer<T: FromStr>(text: &str, least: u64, most: u64) -> Result<T, String> {
    let is_in_range = text.parse().is_ok_and(|number: u64| (least..=most).contains(&number));
    let number = text.parse().ok().filter(|_| is_in_range);
    number.ok_or_else(|| format!("expected an integer from {least} to {most}, got {}", shown(text)))
}

pub(super) fn boolean<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    parse_boolean(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

pub(super) fn parse_boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("expected true or false, got {}", shown(text))),
    }
}

pub(super) fn ip_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(&text);
    let expected = "expected an IP address, such as :: or 0.0.0.0 for every address, or 127.0.0.1";
    bare.parse().map_err(|_| D::Error::custom(format!("{expected}, got {}", shown(&text))))
}

pub(super) fn log_format<'de, D: Deserializer<'de>>(deserializer: D) -> Result<LogFormat, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.to_ascii_lowercase().as_str() {
        "json" => Ok(LogFormat::Json),
        "text" => Ok(LogFormat::Text),
        _ => Err(D::Error::custom(format!("expected json or text, got {}", shown(&text)))),
    }
}

/// A release id, which is shown in logs, metrics and answers.
pub(super) fn release_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.contains("://") { Err(D::Error::custom("expected an id, got a URL")) } else { Ok(Some(text)) }
}

/// A value in an error.
pub(super) fn shown(text: &str) -> String {
    if text.contains("://") { "a URL".to_owned() } else { format!("{text:?}") }
}
