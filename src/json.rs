//! JSON without line breaks. JSON allows unescaped U+2028, U+2029 and U+0085 in a string. But JavaScript before ES2019
//! ends a line at the first two, and Python's `splitlines` at all three. So they are escaped.

use std::io;

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;

/// Line breaks that `serde_json` does not escape.
const LINE_BREAKS: [char; 3] = ['\u{85}', '\u{2028}', '\u{2029}'];

/// A serializer of compact JSON.
pub fn serializer<W: io::Write>(out: W) -> Serializer<W, OneLine> {
    Serializer::with_formatter(out, OneLine)
}

/// Writes a value as compact JSON.
///
/// # Errors
/// Those of the writer, and of a value that JSON cannot represent.
pub fn write(out: impl io::Write, value: &impl Serialize) -> serde_json::Result<()> {
    value.serialize(&mut serializer(out))
}

/// The format of `serde_json`'s default, with every line break escaped.
#[derive(Clone, Copy, Debug)]
pub struct OneLine;

impl Formatter for OneLine {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        // The fast path: most text contains no first byte of a line break.
        if fragment.is_ascii() || !fragment.bytes().fold(false, |found, byte| found | matches!(byte, 0xC2 | 0xE2)) {
            return out.write_all(fragment.as_bytes());
        }
        let mut written = 0;
        for (at, line_break) in fragment.match_indices(LINE_BREAKS) {
            out.write_all(&fragment.as_bytes()[written..at])?;
            for unit in line_break.encode_utf16() {
                write!(out, "\\u{unit:04x}")?;
            }
            written = at + line_break.len();
        }
        out.write_all(&fragment.as_bytes()[written..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_break_is_escaped_and_nothing_else_changes() {
        for (text, expected) in [
            ("ada", r#""ada""#),
            ("M\u{fc}ller \u{20ac} \u{1f600} \u{c285}", "\"M\u{fc}ller \u{20ac} \u{1f600} \u{c285}\""),
            ("\"\\\r\n\u{b}", r#""\"\\\r\n\u000b""#),
            ("\u{2028}", r#""\u2028""#),
            ("a\u{2028}\u{2029}\u{fc}\u{85}\n\u{2028}b", "\"a\\u2028\\u2029\u{fc}\\u0085\\n\\u2028b\""),
            ("\u{2027}\u{202a}\u{84}\u{86}", "\"\u{2027}\u{202a}\u{84}\u{86}\""),
        ] {
            let mut json = Vec::new();
            write(&mut json, &text).expect("text is JSON");
            assert_eq!(str::from_utf8(&json), Ok(expected));
            assert_eq!(serde_json::from_slice::<String>(&json).expect("it is JSON"), text);
        }
    }
}
