//! A column of a table, and the values that it accepts.

use serde_json::Value as Json;

use crate::db::{Timestamp, Value};

/// The highest id: the largest whole number that every reader of JSON supports (RFC 8259, section 6). It leaves room for
/// the ids that the database chooses after it.
pub(super) const ID_MAX: i64 = (1 << 53) - 1;

/// A column of a table, as the API, files and SQL name it.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its name in the API, in files, and in the database.
    pub name: &'static str,
    /// The expression that selects it.
    pub sql: &'static str,
    /// The indexed expression that orders a listing by it. None if no index does.
    pub key: Option<&'static str>,
    /// Which values it accepts.
    pub kind: Kind,
    /// Whether the database chooses the value if a new row has none.
    pub has_default: bool,
    /// Whether no two rows of a listing have the same key. Otherwise the listing is ordered by the first column, too.
    pub is_unique: bool,
}

/// Which values a column accepts.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A whole number from 1 to 2^53 - 1. The database chooses it if a new row has none.
    Id,
    /// A whole number from 1 to 2^53 - 1: the id of a row of another table.
    Reference,
    /// Text of 1 to this many characters, without the white space around it, that meets a condition. Its key has the ASCII
    /// letters in lower case and is ordered by code point.
    Text(usize, fn(&str) -> Result<(), String>),
    /// A moment in UTC.
    Time,
}

impl Column {
    const fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, sql: name, key: None, kind, has_default: false, is_unique: false }
    }

    /// The column of the primary key.
    #[must_use]
    pub const fn id(name: &'static str) -> Self {
        Self { key: Some(name), has_default: true, is_unique: true, ..Self::new(name, Kind::Id) }
    }

    /// A column of ids of another table.
    #[must_use]
    pub const fn reference(name: &'static str) -> Self {
        Self::new(name, Kind::Reference)
    }

    /// A column of text, of this many characters at most.
    #[must_use]
    pub const fn text(name: &'static str, longest: usize) -> Self {
        Self::new(name, Kind::Text(longest, |_| Ok(())))
    }

    /// A column of moments.
    #[must_use]
    pub const fn time(name: &'static str) -> Self {
        Self::new(name, Kind::Time)
    }

    /// Selected by this expression, such as the column of a joined table.
    #[must_use]
    pub const fn selected_as(self, sql: &'static str) -> Self {
        Self { sql, ..self }
    }

    /// Ordered by this indexed expression. For text, it must be the text with A–Z in lower case, ordered by code point.
    #[must_use]
    pub const fn ordered_by(self, key: &'static str) -> Self {
        Self { key: Some(key), ..self }
    }

    /// No two rows have the same key.
    #[must_use]
    pub const fn unique(self) -> Self {
        Self { is_unique: true, ..self }
    }

    /// The database chooses the value if a new row has none.
    #[must_use]
    pub const fn defaulted(self) -> Self {
        Self { has_default: true, ..self }
    }

    /// Accepts text that meets this condition, which returns the reason otherwise.
    ///
    /// # Panics
    /// If this is not a column of text.
    #[must_use]
    pub const fn checked(self, check: fn(&str) -> Result<(), String>) -> Self {
        match self.kind {
            Kind::Text(longest, _) => Self { kind: Kind::Text(longest, check), ..self },
            _ => panic!("only text is checked"),
        }
    }

    /// Reads a value from text, such as that of a file. None if it is absent.
    pub(super) fn parse(&self, text: &str) -> Result<Option<Value<'static>>, String> {
        match self.kind {
            Kind::Id | Kind::Reference if text.is_empty() && self.has_default => Ok(None),
            Kind::Text(..) | Kind::Time if text.trim().is_empty() && self.has_default => Ok(None),
            Kind::Id | Kind::Reference => {
                if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err("does not consist of the digits 0 to 9".to_owned());
                }
                // A number above i64 is above the highest id.
                self.check(text.parse().unwrap_or(i64::MAX).into()).map(Some)
            }
            Kind::Text(..) => self.check(text.into()).map(Some),
            Kind::Time => Ok(Some(Timestamp::parse(text.trim())?.into())),
        }
    }

    /// Reads a value from JSON. None if it is absent.
    pub(super) fn parse_json(&self, json: Option<&Json>) -> Result<Option<Value<'static>>, String> {
        let kind = |json: &Json| match json {
            Json::Null => "null",
            Json::Bool(_) => "a boolean",
            Json::Number(_) => "a number",
            Json::String(_) => "a string",
            Json::Array(_) => "an array",
            Json::Object(_) => "an object",
        };
        match (self.kind, json) {
            (_, None | Some(Json::Null)) if !self.has_default => Err("is missing".to_owned()),
            (_, None | Some(Json::Null)) => Ok(None),
            (Kind::Id | Kind::Reference, Some(Json::Number(number))) => match number.as_i64() {
                // A number above i64 is above the highest id.
                None if number.is_u64() => self.check(i64::MAX.into()).map(Some),
                None => Err("is not a whole number".to_owned()),
                Some(number) => self.check(number.into()).map(Some),
            },
            (Kind::Id | Kind::Reference, Some(other)) => Err(format!("is {}, and must be a whole number", kind(other))),
            (Kind::Text(..) | Kind::Time, Some(Json::String(text))) => self.parse(text),
            (Kind::Text(..) | Kind::Time, Some(other)) => Err(format!("is {}, and must be a string", kind(other))),
        }
    }

    /// The value as it is stored, if the column accepts it.
    pub(super) fn check(&self, value: Value<'_>) -> Result<Value<'static>, String> {
        match (self.kind, value) {
            (Kind::Id | Kind::Reference, Value::Integer(..1)) => Err("is below 1".to_owned()),
            (Kind::Id | Kind::Reference, Value::Integer(id)) if id > ID_MAX => Err(format!("is above {ID_MAX}")),
            (Kind::Id | Kind::Reference, Value::Integer(id)) => Ok(id.into()),
            (Kind::Text(longest, check), Value::Text(text)) => {
                let text = visible(&text, longest)?;
                check(text)?;
                Ok(Value::Text(text.to_owned().into()))
            }
            (Kind::Time, Value::Time(time)) => Ok(time.into()),
            (Kind::Id | Kind::Reference | Kind::Text(..) | Kind::Time, _) => Err("is of another type".to_owned()),
        }
    }
}

/// A text without the white space around it, if each of its characters is visible and distinguishable.
fn visible(value: &str, longest: usize) -> Result<&str, String> {
    let value = value.trim_matches(is_blank);
    let mut before = None;
    for character in value.chars() {
        let kind = match character {
            character if character.is_control() => "a control character",
            '\u{2028}' | '\u{2029}' => "a line separator",
            '\u{fffd}' => "the replacement character of an encoding error",
            character if is_invisible(character, before) => "an invisible character",
            ' ' if before == Some(' ') => return Err("has two blanks in a row".to_owned()),
            ' ' => "",
            character if character.is_whitespace() => "white space other than a blank",
            _ => "",
        };
        if !kind.is_empty() {
            return Err(format!("has {kind} (U+{:04X})", u32::from(character)));
        }
        before = Some(character);
    }
    match value.chars().count() {
        0 => Err("is empty".to_owned()),
        length if length > longest => Err(format!("has {length} characters, {longest} at most")),
        _ => Ok(value),
    }
}

/// White space within a line.
fn is_blank(character: char) -> bool {
    character.is_whitespace() && !character.is_control() && !matches!(character, '\u{2028}' | '\u{2029}')
}

/// Whether a character is invisible after the one before it: Unicode's Default_Ignorable_Code_Point, which includes the
/// controls of direction; the interlinear controls; the tags; and the empty pattern of Braille.
fn is_invisible(character: char, before: Option<char>) -> bool {
    // Variants of ideographs and emoji.
    if matches!(character, '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}') {
        return before.is_none_or(|before| before.is_ascii());
    }
    matches!(character,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::{Column, ID_MAX};

    /// The stored value of a text, or the reason why it is refused.
    fn stored(column: Column, text: &str) -> Result<Option<String>, String> {
        column.parse(text).map(|value| value.map(|value| value.to_string()))
    }

    fn name(text: &str) -> Result<Option<String>, String> {
        stored(Column::text("name", 80), text)
    }

    #[test]
    fn the_white_space_around_a_value_is_no_part_of_it() {
        for blank in [" ", "  ", "\u{a0}", "\u{3000}", "\u{2009} ", "\u{202f}"] {
            assert_eq!(name(&format!("{blank}al ice{blank}")), Ok(Some("al ice".to_owned())));
        }
    }

    #[test]
    fn a_text_is_what_people_can_see() {
        for text in [
            "a",
            "日本 é",
            "O'Neil-Smith 3rd",
            "=1+1",
            "a@b",
            "ナンバー",
            "हिन्दी",
            "א",
            "😀",
            "❤\u{fe0f}",
            "葛\u{e0100}城",
        ] {
            assert!(name(text).is_ok(), "{text:?}");
        }
        for (text, reason) in [
            ("", "is empty"),
            (" \u{a0}", "is empty"),
            ("a\u{a0}b", "has white space other than a blank (U+00A0)"),
            ("a\u{3000}b", "has white space other than a blank (U+3000)"),
            ("a  b", "has two blanks in a row"),
            ("a\u{7}", "has a control character (U+0007)"),
            ("a\n", "has a control character (U+000A)"),
            ("\ta", "has a control character (U+0009)"),
            ("a\u{85}", "has a control character (U+0085)"),
            ("a\u{2028}", "has a line separator (U+2028)"),
            ("a\u{2029}b", "has a line separator (U+2029)"),
            ("\u{feff}a", "has an invisible character (U+FEFF)"),
            ("a\u{fffd}", "has the replacement character of an encoding error (U+FFFD)"),
            ("a\u{200b}", "has an invisible character (U+200B)"),
            ("a\u{200d}b", "has an invisible character (U+200D)"),
            ("\u{202e}a", "has an invisible character (U+202E)"),
            ("a\u{2066}", "has an invisible character (U+2066)"),
            ("a\u{ad}b", "has an invisible character (U+00AD)"),
            ("\u{3164}", "has an invisible character (U+3164)"),
            ("\u{2800}", "has an invisible character (U+2800)"),
            ("a\u{e0061}", "has an invisible character (U+E0061)"),
            ("a\u{fe0f}", "has an invisible character (U+FE0F)"),
        ] {
            assert_eq!(name(text), Err(reason.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn an_id_is_decimal_digits() {
        for (text, id) in [("", None), ("1", Some(1)), ("0016", Some(16)), ("9007199254740991", Some(ID_MAX))] {
            assert_eq!(Column::id("id").parse(text), Ok(id.map(Into::into)), "{text:?}");
        }
        for text in [
            "0x10",
            " 16",
            "16 ",
            "+16",
            "-1",
            "1e3",
            "1.0",
            "1_000",
            "1,000",
            "\u{661}\u{666}",
            "\u{ff11}\u{ff16}",
            " ",
            "\u{a0}",
            "zero",
        ] {
            let reason = "does not consist of the digits 0 to 9".to_owned();
            assert_eq!(stored(Column::id("id"), text), Err(reason), "{text:?}");
        }
        for (text, reason) in [
            ("0", "is below 1"),
            ("9007199254740992", "is above 9007199254740991"),
            ("99999999999999999999999", "is above 9007199254740991"),
        ] {
            assert_eq!(stored(Column::id("id"), text), Err(reason.to_owned()));
        }
        let reason = "does not consist of the digits 0 to 9".to_owned();
        assert_eq!(stored(Column::reference("other_id"), ""), Err(reason));
    }
}
