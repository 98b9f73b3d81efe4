//! CSV (RFC 4180) that no spreadsheet interprets as a formula.

use std::fmt::Display;
use std::io::Write as _;

use super::table::Table;
use crate::db::Value;

/// The row of the column names.
pub(super) fn header(table: &Table) -> String {
    table.names().collect::<Vec<_>>().join(",") + "\r\n"
}

/// Writes a row.
pub(super) fn write<'r>(out: &mut Vec<u8>, values: impl Iterator<Item = Value<'r>>) {
    let number = |out: &mut Vec<u8>, value: &dyn Display| write!(out, "{value}").expect("memory can be written");
    for (position, value) in values.enumerate() {
        if position > 0 {
            out.push(b',');
        }
        match value {
            Value::Text(text) => cell(out, &text),
            Value::Integer(integer) => number(out, &integer),
            Value::Time(time) => number(out, &time),
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// A cell of RFC 4180 that no spreadsheet interprets as a formula: an apostrophe is written before each character that
/// could begin one.
fn cell(out: &mut Vec<u8>, text: &str) {
    if is_plain(text) {
        return out.extend_from_slice(text.as_bytes());
    }
    out.push(b'"');
    let mut before = None;
    for c in text.chars() {
        if begins_formula(before.replace(c), c) {
            out.push(b'\'');
        }
        if c == '"' {
            out.push(b'"');
        }
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
    out.push(b'"');
}

/// Whether a formula could begin at this character of a cell (OWASP, "CSV Injection"). A spreadsheet may skip blanks
/// and control characters. It may also split a cell at a line break, at another separator, or at a quote.
fn begins_formula(before: Option<char>, c: char) -> bool {
    // In an East Asian locale, Excel treats the last four like the first four.
    let is_operator = matches!(c, '=' | '+' | '-' | '@' | '＝' | '＋' | '－' | '＠');
    match before {
        None => is_operator || c.is_control(),
        Some(',' | ';' | '|' | '"' | '\'') => is_operator,
        Some(before) => is_operator && (before.is_whitespace() || before.is_control()),
    }
}

/// Whether a cell is written unchanged: it needs no quotes, and no formula can begin in it. The function reads bytes,
/// for the speed of streams. So it returns false for some such cells with non-ASCII characters.
fn is_plain(text: &str) -> bool {
    /// Only text may follow.
    const WORD: u8 = 0;
    /// A formula may follow: a blank, a control character, a separator, or the last byte of a non-ASCII character.
    const BREAK: u8 = 1;
    /// A formula may begin: an operator, or the first byte of a full-width operator.
    const OPERATOR: u8 = 2;
    const QUOTED: u8 = 4;
    const KINDS: [u8; 256] = {
        let mut kinds = [WORD; 256];
        let mut byte = 0;
        // The byte 0xFF is not in UTF-8.
        while byte < u8::MAX {
            kinds[byte as usize] = match byte {
                b',' | b'"' | 0..b' ' | 0x7F => QUOTED,
                b' ' | b';' | b'|' | b'\'' | 0x80..0xC0 => BREAK,
                b'=' | b'+' | b'-' | b'@' | 0xEF => OPERATOR,
                _ => WORD,
            };
            byte += 1;
        }
        kinds
    };
    let (mut before, mut found) = (BREAK, 0);
    for byte in text.bytes() {
        let kind = KINDS[usize::from(byte)];
        found |= (kind & QUOTED) | (kind & OPERATOR & (before << 1));
        before = kind;
    }
    found == 0
}

#[cfg(test)]
mod tests {
    use super::cell;

    #[test]
    fn a_cell_is_quoted_where_it_must_be_and_never_a_formula() {
        for (text, expected) in [
            ("ada", "ada"),
            ("a,b", "\"a,b\""),
            ("a \"b\"", "\"a \"\"b\"\"\""),
            ("a\nb", "\"a\nb\""),
            ("=1+1", "\"'=1+1\""),
            ("+1", "\"'+1\""),
            ("-1", "\"'-1\""),
            ("@sum", "\"'@sum\""),
            ("＝1+1", "\"'＝1+1\""),
            ("＋1", "\"'＋1\""),
            ("－1", "\"'－1\""),
            ("＠sum", "\"'＠sum\""),
            ("\tada", "\"'\tada\""),
            ("\rada", "\"'\rada\""),
            ("\nada", "\"'\nada\""),
            ("\0ada", "\"'\0ada\""),
            (" =1+1", "\" '=1+1\""),
            ("\u{a0}\u{3000}=1+1", "\"\u{a0}\u{3000}'=1+1\""),
            ("a\n=1+1", "\"a\n'=1+1\""),
            ("a\r\n\t ＝1+1", "\"a\r\n\t '＝1+1\""),
            ("a\r=1", "\"a\r'=1\""),
            ("a\t=1", "\"a\t'=1\""),
            ("a =1", "\"a '=1\""),
            ("a,=1", "\"a,'=1\""),
            ("a;=1;+2|@b", "\"a;'=1;'+2|'@b\""),
            ("a\"=1", "\"a\"\"'=1\""),
            ("a\"\r\n=1", "\"a\"\"\r\n'=1\""),
            ("a';'=1", "\"a';''=1\""),
            ("a-b+c=d@e", "a-b+c=d@e"),
            // Unnecessary quotes are harmless.
            ("ａ＝ｂ", "\"ａ＝ｂ\""),
            ("a\tb", "\"a\tb\""),
            ("M\u{fc}ller;x", "M\u{fc}ller;x"),
            ("", ""),
        ] {
            let mut out = Vec::new();
            cell(&mut out, text);
            assert_eq!(String::from_utf8(out).as_deref(), Ok(expected));
        }
    }
}
