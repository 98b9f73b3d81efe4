//! Conversion of a variable's text to its value. An error contains the accepted values and the text. None of these
//! variables is a secret, but a connection URL in the wrong variable may contain one.

use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize as _, Deserializer, Serialize};

use super::names::nearest;

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
    one_of(text, &[("true", true), ("false", false)])
}

/// The value of this name, in any case.
pub(super) fn one_of<T: Copy>(text: &str, values: &[(&'static str, T)]) -> Result<T, String> {
    let found = values.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    found.map(|(_, value)| *value).ok_or_else(|| not_one_of(text, values.iter().map(|(name, _)| *name)))
}

/// The error for a text that is none of these names. It has the most similar one.
pub(super) fn not_one_of(text: &str, names: impl Iterator<Item = &'static str> + Clone) -> String {
    let likely = nearest(text.trim(), names.clone()).map(|likely| format!("; did you mean {likely}?"));
    let names: Vec<_> = names.collect();
    let expected = match &*names {
        [one, other] => format!("{one} or {other}"),
        _ => format!("one of {}", names.join(", ")),
    };
    format!("expected {expected}, got {}{}", shown(text), likely.unwrap_or_default())
}

pub(super) fn log_format<'de, D: Deserializer<'de>>(deserializer: D) -> Result<LogFormat, D::Error> {
    let values = [("json", LogFormat::Json), ("text", LogFormat::Text)];
    one_of(&String::deserialize(deserializer)?, &values).map_err(D::Error::custom)
}

/// A release id, which is shown in logs, metrics and answers.
pub(super) fn release_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.contains("://") || text.contains(char::is_control) || text.trim() != text {
        let expected = "expected an id without control characters, and without blanks around it";
        return Err(D::Error::custom(format!("{expected}, got {}", shown(&text))));
    }
    Ok(Some(text))
}

/// A value in an error.
pub(super) fn shown(text: &str) -> String {
    if text.contains("://") { "a URL".to_owned() } else { format!("{text:?}") }
}
