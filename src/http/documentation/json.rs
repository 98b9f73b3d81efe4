//! JSON whose members have the order of the text.

use std::fmt;
use std::ops::Index;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A JSON value. `serde_json` has a type that sorts the members, or a feature that changes this for the whole program.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(untagged)]
pub(super) enum Json {
    Object(IndexMap<String, Json>),
    Array(Vec<Json>),
    Text(String),
    /// A number, `true`, `false` or `null`.
    Other(Value),
}

/// What an object has instead of a member that is missing.
static NULL: Json = Json::Other(Value::Null);

impl Json {
    pub(super) fn is_null(&self) -> bool {
        *self == NULL
    }

    pub(super) fn is_true(&self) -> bool {
        *self == Self::Other(Value::Bool(true))
    }

    /// The text of a string.
    pub(super) fn as_str(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The members of an object; none of anything else.
    pub(super) fn members(&self) -> impl Iterator<Item = (&String, &Self)> {
        if let Self::Object(members) = self { Some(members) } else { None }.into_iter().flatten()
    }

    /// The items of an array; none of anything else.
    pub(super) fn items(&self) -> impl Iterator<Item = &Self> {
        if let Self::Array(items) = self { Some(items) } else { None }.into_iter().flatten()
    }
}

/// The member with this name, or null.
impl Index<&str> for Json {
    type Output = Self;

    fn index(&self, name: &str) -> &Self {
        if let Self::Object(members) = self { members.get(name) } else { None }.unwrap_or(&NULL)
    }
}

/// As a text without white space.
impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}
