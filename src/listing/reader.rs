//! The rows of a file: CSV (RFC 4180 and its variants in spreadsheets) or NDJSON.

use std::fmt;
use std::io::{self, BufRead as _, BufReader, Chain, Cursor, Read};

use csv_core::ReadRecordResult;
use serde::Deserializer as _;
use serde::de::{Error as _, MapAccess, Visitor};
use serde_json::Value as Json;
use serde_json::error::Category;

use super::file::{Error, Format};
use super::new_row::NewRow;
use super::table::Table;

/// The longest row, in bytes. A longer row probably lacks a quotation mark.
const ROW_MAX: usize = 64 * 1024;
/// The most fields of a CSV row.
const FIELDS_MAX: usize = 64;
/// The reason for a row that ends within quotation marks.
const UNCLOSED: &str = "a quotation mark that it opens is never closed";
/// The delimiters of CSV, the most usual first.
const DELIMITERS: [u8; 3] = [b',', b';', b'\t'];

/// The number of the first line of a row, and its values or the reason why it is not valid. A reason does not contain a
/// value.
pub type Row = (u64, Result<NewRow, String>);

/// The rows of a file.
pub type Rows<'f> = Box<dyn Iterator<Item = Result<Row, Error>> + 'f>;

/// The rows of a file for this table. The memory does not depend on its content.
///
/// # Errors
/// [`Error::Read`], [`Error::NotText`], and [`Error::Header`] for CSV.
pub fn rows<'f>(table: &'static Table, file: impl Read + 'f, format: Format) -> Result<Rows<'f>, Error> {
    let input = Input::new(file, format)?;
    Ok(match format {
        Format::Csv => Box::new(Csv::new(table, input)?),
        Format::Ndjson => Box::new(Ndjson(table, input)),
    })
}

/// A file in UTF-8 after its byte order mark, with the number of the current line.
struct Input<R> {
    reader: BufReader<Chain<Cursor<Vec<u8>>, R>>,
    /// Of the line that the next byte is on. A line ends with LF or with CRLF, in CSV with CR, too.
    line: u64,
    cr_ends_line: bool,
    is_behind_cr: bool,
}

impl<R: Read> Input<R> {
    fn new(mut file: R, format: Format) -> Result<Self, Error> {
        let mut head = Vec::new();
        file.by_ref().take(4).read_to_end(&mut head).map_err(Error::Read)?;
        match *head {
            [0xff, 0xfe, 0, 0] | [0, 0, 0xfe, 0xff] => return Err(Error::NotText("in UTF-32")),
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [1..=255, 0, 1..=255, 0] | [0, 1..=255, 0, 1..=255] => {
                return Err(Error::NotText("in UTF-16"));
            }
            [b'P', b'K', 3, 4] => return Err(Error::NotText("a spreadsheet or another ZIP archive")),
            [0xd0, 0xcf, 0x11, 0xe0] => return Err(Error::NotText("a spreadsheet")),
            [0x1f, 0x8b, ..] => return Err(Error::NotText("compressed by gzip")),
            [0x28, 0xb5, 0x2f, 0xfd] => return Err(Error::NotText("compressed by zstd")),
            [0xef, 0xbb, 0xbf, ..] => _ = head.drain(..3),
            _ => {}
        }
        let reader = BufReader::with_capacity(ROW_MAX, Cursor::new(head).chain(file));
        Ok(Self { reader, line: 1, cr_ends_line: format == Format::Csv, is_behind_cr: false })
    }

    /// The buffered bytes. Empty at the end of the file.
    fn fill(&mut self) -> Result<&[u8], Error> {
        // The loop cannot return the bytes that `fill_buf` borrows, so `buffer` borrows them again.
        while let Err(error) = self.reader.fill_buf() {
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(Error::Read(error));
            }
        }
        Ok(self.reader.buffer())
    }

    fn consume(&mut self, count: usize) {
        for &byte in &self.reader.buffer()[..count] {
            let is_cr = byte == b'\r' && self.cr_ends_line;
            // CRLF was counted by its CR.
            self.line += u64::from(is_cr || byte == b'\n' && !self.is_behind_cr);
            self.is_behind_cr = is_cr;
        }
        self.reader.consume(count);
    }

    /// Skips what ends lines. False at the end of the file.
    fn skip_line_ends(&mut self) -> Result<bool, Error> {
        loop {
            let bytes = self.fill()?;
            let ends = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            if ends == 0 {
                return Ok(!bytes.is_empty());
            }
            self.consume(ends);
        }
    }

    /// The bytes before one of these, which is consumed with them, or before the end. None if they are too many.
    fn read_until(&mut self, ends: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let (mut row, mut is_too_long) = (Vec::new(), false);
        loop {
            let bytes = self.fill()?;
            let end = bytes.iter().position(|byte| ends.contains(byte));
            let part = &bytes[..end.unwrap_or(bytes.len())];
            is_too_long |= row.len() + part.len() > ROW_MAX;
            if !is_too_long {
                row.extend_from_slice(part);
            }
            let count = part.len();
            let is_last = end.is_some() || count == 0;
            self.consume(count + usize::from(end.is_some()));
            if is_last {
                return Ok((!is_too_long).then_some(row));
            }
        }
    }
}

/// The line of a row, and its number of fields or the reason why it is not valid.
type Fields = (u64, Result<usize, String>);

/// The rows of CSV.
struct Csv<R> {
    table: &'static Table,
    input: Input<R>,
    parser: csv_core::Reader,
    delimiter: u8,
    columns: Columns,
    row: Vec<u8>,
    /// Where each field of the row ends.
    ends: [usize; FIELDS_MAX],
}

impl<R: Read> Csv<R> {
    fn new(table: &'static Table, mut input: Input<R>) -> Result<Self, Error> {
        let invalid = |line, reason: &str| Err(Error::Header(line, format!("{reason}; {}", expected(table))));
        let mut delimiters = &DELIMITERS[..];
        let mut named;
        loop {
            if !input.skip_line_ends()? {
                return invalid(input.line, "the file is empty");
            }
            let line = input.line;
            let header = input.read_until(b"\r\n")?.and_then(|header| String::from_utf8(header).ok());
            let Some(header) = header else {
                return invalid(line, "it is not UTF-8, or longer than 64 KiB");
            };
            // A first line that sets the delimiter for spreadsheets.
            if let Some((name, rest)) = header.split_at_checked(4)
                && name.eq_ignore_ascii_case("sep=")
            {
                let (&[delimiter], true) = (rest.as_bytes(), delimiters.len() > 1) else {
                    return invalid(line, "what follows sep= is not one delimiter");
                };
                named = [delimiter];
                if !DELIMITERS.contains(&delimiter) {
                    return invalid(line, "sep= names another delimiter");
                }
                delimiters = &named;
            } else if !header.trim().is_empty() {
                let (delimiter, columns) = match Columns::of(table, &header, delimiters) {
                    Ok(found) => found,
                    Err(reason) => return invalid(line, &reason),
                };
                let parser = csv_core::ReaderBuilder::new().delimiter(delimiter).build();
                return Ok(Self {
                    table,
                    input,
                    parser,
                    delimiter,
                    columns,
                    row: vec![0; ROW_MAX],
                    ends: [0; FIELDS_MAX],
                });
            }
        }
    }

    /// Reads the next row. Returns its line, and its number of fields or the reason why it is not valid.
    fn read(&mut self) -> Result<Option<Fields>, Error> {
        if !self.input.skip_line_ends()? {
            return Ok(None);
        }
        let line = self.input.line;
        let (mut bytes, mut fields, mut is_too_long) = (0, 0, false);
        let mut quotes = Quotes { position: Position::Begin, delimiter: self.delimiter };
        loop {
            let input = self.input.fill()?;
            let is_end = input.is_empty();
            // At the end, one more line end closes the row, unless it is within quotation marks.
            let input = if is_end { b"\n" } else { input };
            let (result, consumed, written, ended) =
                self.parser.read_record(input, &mut self.row[bytes..], &mut self.ends[fields..]);
            quotes.read(&input[..consumed]);
            if !is_end {
                self.input.consume(consumed);
            }
            (bytes, fields) = (bytes + written, fields + ended);
            match result {
                ReadRecordResult::InputEmpty if is_end => {
                    return Ok(Some((line, Err(UNCLOSED.to_owned()))));
                }
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {
                    (bytes, fields, is_too_long) = (0, 0, true);
                }
                ReadRecordResult::Record | ReadRecordResult::End if is_too_long => {
                    let reason = format!(
                        "it has more than {ROW_MAX} bytes or {FIELDS_MAX} fields; a quotation mark may not be closed"
                    );
                    return Ok(Some((line, Err(reason))));
                }
                ReadRecordResult::Record | ReadRecordResult::End if quotes.position == Position::Wrong => {
                    return Ok(Some((line, Err("a field has characters outside its quotation marks".to_owned()))));
                }
                ReadRecordResult::Record | ReadRecordResult::End => return Ok(Some((line, Ok(fields)))),
            }
        }
    }

    fn field(&self, index: usize) -> &[u8] {
        let begin = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.row[begin..self.ends[index]]
    }

    fn is_blank(&self, index: usize) -> bool {
        str::from_utf8(self.field(index)).is_ok_and(|field| field.trim().is_empty())
    }

    /// The values of the row that was read last.
    fn values(&self, fields: usize) -> Result<NewRow, String> {
        let count = self.columns.count;
        // A row may end with delimiters, as those of spreadsheets do.
        if fields < count || !(count..fields).all(|index| self.is_blank(index)) {
            return Err(format!("number of fields: expected {count} as in the header, got {fields}"));
        }
        let row = NewRow::new(self.table, |position, column| {
            let field = self.columns.fields[position].map(|index| self.field(index)).unwrap_or_default();
            column.parse(str::from_utf8(field).map_err(|_| "is not UTF-8; save the file as UTF-8")?)
        });
        row.map_err(|error| error.to_string())
    }
}

impl<R: Read> Iterator for Csv<R> {
    type Item = Result<Row, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (line, fields) = match self.read() {
                Ok(row) => row?,
                Err(error) => return Some(Err(error)),
            };
            // A line of white space alone.
            if let Ok(fields) = fields
                && (fields == 1 || self.delimiter == b'\t')
                && (0..fields).all(|index| self.is_blank(index))
            {
                continue;
            }
            return Some(Ok((line, fields.and_then(|fields| self.values(fields)))));
        }
    }
}

/// Checks the quotation marks of a row, of which the parser accepts more than RFC 4180 does. It would read `"a"b` as `ab`,
/// and keep the quotation marks of ` "a"`.
struct Quotes {
    position: Position,
    delimiter: u8,
}

/// Where the next byte of a row is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Position {
    /// At the beginning of a field.
    Begin,
    /// After white space at the beginning of a field.
    Blank,
    Unquoted,
    Quoted,
    /// After a quotation mark that closes the field, or is the first of two.
    Closed,
    /// After an error.
    Wrong,
}

impl Quotes {
    fn read(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.position = match (self.position, byte) {
                (Position::Wrong, _) | (Position::Blank, b'"') => Position::Wrong,
                (Position::Quoted, b'"') => Position::Closed,
                (Position::Quoted, _) | (Position::Begin | Position::Closed, b'"') => Position::Quoted,
                (_, b'\r' | b'\n') => Position::Begin,
                (_, byte) if byte == self.delimiter => Position::Begin,
                (Position::Closed, _) => Position::Wrong,
                (Position::Begin | Position::Blank, b' ' | b'\t') => Position::Blank,
                _ => Position::Unquoted,
            };
        }
    }
}

/// The fields of a header.
struct Columns {
    /// The field of each column of the table.
    fields: Vec<Option<usize>>,
    count: usize,
}

impl Columns {
    /// The delimiter and the columns of a header, or the reason why it is not valid.
    fn of(table: &Table, header: &str, delimiters: &[u8]) -> Result<(u8, Self), String> {
        let candidates = delimiters.iter().map(|&delimiter| (delimiter, names(header, delimiter)));
        let mut failure = (0, UNCLOSED.to_owned());
        for (delimiter, names) in candidates {
            match Self::named(table, &names) {
                Ok(columns) => return Ok((delimiter, columns)),
                // The most frequent delimiter is probably the intended one.
                Err(reason) if names.len() > failure.0 => failure = (names.len(), reason),
                Err(_) => {}
            }
        }
        Err(failure.1)
    }

    fn named(table: &Table, names: &[String]) -> Result<Self, String> {
        let fields = table.columns.iter().map(|column| {
            let mut places = (0..).zip(names).filter_map(|(place, name)| (name == column.name).then_some(place));
            match (places.next(), places.next()) {
                (_, Some(_)) => Err(format!("{} is named twice", column.name)),
                (None, None) if !column.has_default => Err(format!("{} is missing", column.name)),
                (place, None) => Ok(place),
            }
        });
        let columns = Self { fields: fields.collect::<Result<_, _>>()?, count: names.len() };
        match names.iter().position(|name| table.position(name).is_none()) {
            None => Ok(columns),
            // A file without a header has a row in this line. The message must not contain its values.
            Some(place)
                if names[place].chars().all(|c| c.is_ascii_lowercase() || c == '_') && !names[place].is_empty() =>
            {
                Err(format!("{} is not a column", names[place]))
            }
            Some(place) => Err(format!("field {} is not the name of a column", place + 1)),
        }
    }
}

/// What a header must have.
fn expected(table: &Table) -> String {
    let columns = |is_optional| {
        let columns = table.columns.iter().filter(move |column| column.has_default == is_optional);
        columns.map(|column| column.name)
    };
    let optional = listed(columns(true));
    let optional = if optional.is_empty() { optional } else { format!(", and may name {optional}") };
    let required = listed(columns(false));
    format!("the header must name the columns {required}{optional}, separated by commas, semicolons or tabs")
}

/// Names as a list in a sentence, such as `a, b and c`.
fn listed(names: impl Iterator<Item = &'static str>) -> String {
    let names: Vec<_> = names.collect();
    match &*names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [others @ .., last] => format!("{} and {last}", others.join(", ")),
    }
}

/// The names of a header, without white space and quotes around them, and without empty names at the end.
fn names(header: &str, delimiter: u8) -> Vec<String> {
    let mut parser = csv_core::ReaderBuilder::new().delimiter(delimiter).build();
    let (mut row, mut ends) = (vec![0; header.len() + 1], vec![0; header.len() + 1]);
    let line = [header.as_bytes(), b"\n"].concat();
    let (_, _, _, fields) = parser.read_record(&line, &mut row, &mut ends);
    let mut begin = 0;
    let mut names: Vec<String> = ends[..fields]
        .iter()
        .map(|&end| {
            let name = String::from_utf8_lossy(&row[begin..end]);
            begin = end;
            let is_around = |c: char| c.is_whitespace() || matches!(c, '"' | '\u{feff}');
            name.trim_matches(is_around).to_ascii_lowercase()
        })
        .collect();
    while names.pop_if(|name| name.is_empty()).is_some() {}
    names
}

/// The rows of NDJSON.
struct Ndjson<R>(&'static Table, Input<R>);

impl<R: Read> Iterator for Ndjson<R> {
    type Item = Result<Row, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.1.fill() {
                Ok([]) => return None,
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
            let line = self.1.line;
            let row = match self.1.read_until(b"\n") {
                Ok(row) => row,
                Err(error) => return Some(Err(error)),
            };
            match row {
                Some(row) if row.trim_ascii().is_empty() => {}
                Some(row) => return Some(Ok((line, values(self.0, &row)))),
                None => return Some(Ok((line, Err(format!("it has more than {ROW_MAX} bytes"))))),
            }
        }
    }
}

/// The values of a line of NDJSON.
fn values(table: &'static Table, row: &[u8]) -> Result<NewRow, String> {
    let text = str::from_utf8(row)
        .map_err(|error| format!("it is not UTF-8 (column {}); save the file as UTF-8", error.valid_up_to() + 1))?;
    if text.trim_start().starts_with('[') {
        return Err("it is a JSON array, and NDJSON has an object on each line".to_owned());
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let members = json.deserialize_map(Members(table)).and_then(|members| json.end().map(|()| members));
    let members = members.map_err(|error| {
        // The message of serde may contain a value.
        let message = error.to_string();
        let reason = match error.classify() {
            Category::Data if message.starts_with(UNKNOWN) => {
                format!("it has a member other than {}", listed(table.names()))
            }
            Category::Data if message.starts_with(DUPLICATE) => "it has a member twice".to_owned(),
            Category::Data => "it is not an object".to_owned(),
            Category::Io | Category::Syntax | Category::Eof => "it is not valid JSON".to_owned(),
        };
        format!("{reason} (column {})", error.column())
    })?;
    let row = NewRow::new(table, |position, column| column.parse_json(members[position].as_ref()));
    row.map_err(|error| error.to_string())
}

/// The errors of [`Members`].
const UNKNOWN: &str = "unknown member";
const DUPLICATE: &str = "duplicate member";

/// Reads the members of an object, each the value of a column of this table.
struct Members(&'static Table);

impl<'de> Visitor<'de> for Members {
    type Value = Vec<Option<Json>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut members = vec![None; self.0.columns.len()];
        while let Some(name) = object.next_key::<String>()? {
            let position = self.0.position(&name).ok_or_else(|| A::Error::custom(UNKNOWN))?;
            if members[position].is_some() {
                return Err(A::Error::custom(DUPLICATE));
            }
            members[position] = Some(object.next_value()?);
        }
        Ok(members)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use std::fmt::Write as _;

    use super::{Error, Format, ROW_MAX, Row, rows};
    use crate::listing::{Column, Table};

    const PEOPLE: &Table = &Table {
        name: "people",
        row: "person",
        from: "people",
        columns: &[
            Column::id("id"),
            Column::text("username", 80).ordered_by("username_key").unique(),
            Column::text("email", 120).ordered_by("email_key").unique(),
        ],
        search: None,
        constraints: &[],
    };

    /// The lines of the rows of a file, each with its username or the reason why it is not valid; or the error of the file.
    fn read(file: &[u8], format: Format) -> Result<Vec<(u64, String)>, String> {
        let rows = rows(PEOPLE, file, format).map_err(|error| error.to_string())?.map(|row| {
            let (line, row): Row = row.unwrap();
            (line, row.map_or_else(|reason| reason, |row| row.value(1).unwrap().to_string()))
        });
        Ok(rows.collect())
    }

    fn csv(file: &str) -> Result<Vec<(u64, String)>, String> {
        read(file.as_bytes(), Format::Csv)
    }

    fn named(names: &[(u64, &str)]) -> Vec<(u64, String)> {
        names.iter().map(|&(line, name)| (line, name.to_owned())).collect()
    }

    /// The test builds a file of lines, so the position of a row among them is its expected line.
    #[test]
    fn a_row_has_the_number_of_its_line() {
        for (variant, end) in ["\n", "\r\n", "\r"].into_iter().cycle().take(24).enumerate() {
            let (is_quoted, has_blanks, has_mark) = (variant & 4 > 0, variant & 2 > 0, variant & 1 > 0);
            let mut lines = Vec::new();
            let mut expected = Vec::new();
            let blank = |lines: &mut Vec<String>, count| lines.extend((0..count).map(|_| String::new()));
            if has_blanks {
                blank(&mut lines, 2);
            }
            lines.push("username,email".to_owned());
            for number in 0..200_u64 {
                if has_blanks && number % 5 == 0 {
                    blank(&mut lines, number % 3 + 1);
                }
                let line = lines.len() as u64 + 1;
                if is_quoted && number % 7 == 0 {
                    lines.extend([format!("\"u{number}"), "in".to_owned(), "three lines\",x".to_owned()]);
                    expected.push((
                        line,
                        format!("username has a control character (U+{:04X})", u32::from(end.as_bytes()[0])),
                    ));
                } else {
                    lines.push(format!("u{number},u{number}@x"));
                    expected.push((line, format!("u{number}")));
                }
            }
            let mark = if has_mark { "\u{feff}" } else { "" };
            for last in ["", end] {
                let file = format!("{mark}{}{last}", lines.join(end));
                let found = csv(&file).unwrap();
                let found = found.into_iter().map(|(line, text)| (line, text.split(';').next().unwrap().to_owned()));
                assert_eq!(found.collect::<Vec<_>>(), expected, "{end:?} {is_quoted} {has_blanks} {has_mark} {last:?}");
            }
        }
        for end in ["\n", "\r\n"] {
            let lines = [
                "\u{feff}{\"username\":\"a\",\"email\":\"a@x\"}",
                "",
                " ",
                "no",
                "",
                "{\"username\":\"b\",\"email\":\"b@x\"}",
            ];
            let found = read(lines.join(end).as_bytes(), Format::Ndjson);
            assert_eq!(found, Ok(named(&[(1, "a"), (4, "it is not valid JSON (column 2)"), (6, "b")])));
        }
    }

    #[test]
    fn headers_of_spreadsheets_are_understood() {
        let expected = Ok(named(&[(2, "a")]));
        for file in [
            "username,email\na,a@x\n",
            "UserName, E-Mail \na,a@x\n".replace("E-Mail", "EMAIL").as_str(),
            "\u{feff}\"username\";\"email\"\r\n\"a\";\"a@x\"\r\n",
            "Email\tUsername\tID\r\na@x\ta\t7\r\n",
            " \"email\" ; \"username\" \na@x;a",
            "username;email;\na;a@x;\n",
            "username,email,,\na,a@x\n",
            "username,email\na,a@x,,\n",
            "\u{a0}username\u{a0},email\na,a@x",
            "username\temail\n a \t a@x \n \t\n",
        ] {
            assert_eq!(csv(file), expected, "{file:?}");
        }
        for file in [
            "sep=;\nusername;email\na;a@x",
            "SEP=\t\r\nusername\temail\r\na\ta@x\r\n",
            "\u{feff}sep=,\rusername,email\ra,a@x",
        ] {
            assert_eq!(csv(file), Ok(named(&[(3, "a")])), "{file:?}");
        }
        for file in ["username,email", "username,email\r\n", "username;email\n\n  \n"] {
            assert_eq!(csv(file), Ok(vec![]), "{file:?}");
        }
        for (file, reason) in [
            ("", "line 1: the file is empty"),
            ("\u{feff}", "line 1: the file is empty"),
            ("\r\n\r\n", "line 3: the file is empty"),
            ("username\na", "line 1: email is missing"),
            ("\n\nid,name\n", "line 3: username is missing"),
            ("username;email;username\n", "line 1: username is named twice"),
            ("username,email,password\n", "line 1: password is not a column"),
            ("username,email,Ada 1\n", "line 1: field 3 is not the name of a column"),
            ("username,,email\n", "line 1: field 2 is not the name of a column"),
            ("username|email\n", "line 1: username is missing"),
            ("sep=|\nusername|email\n", "line 1: sep= names another delimiter"),
            ("sep=\nusername,email\n", "line 1: what follows sep= is not one delimiter"),
            ("sep=;\nusername,email\n", "line 2: username is missing"),
            ("\"username,email\na,a@x\n", "line 1: a quotation mark that it opens is never closed"),
        ] {
            let found = csv(file).unwrap_err();
            assert!(found.starts_with(&format!("{reason}; the header must name")), "{file:?}: {found}");
        }
    }

    #[test]
    fn a_file_that_is_not_utf_8_is_named() {
        let utf_16 = |big: bool| -> Vec<u8> {
            let units = "username,email\r\n".encode_utf16();
            units.flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
        };
        for format in [Format::Csv, Format::Ndjson] {
            for (file, kind) in [
                (&[&[0xff, 0xfe], &*utf_16(false)].concat()[..], "in UTF-16"),
                (&[&[0xfe, 0xff], &*utf_16(true)].concat(), "in UTF-16"),
                (&utf_16(false), "in UTF-16"),
                (&utf_16(true), "in UTF-16"),
                (&[0xff, 0xfe, 0, 0, b'u', 0, 0, 0], "in UTF-32"),
                (b"PK\x03\x04...", "a spreadsheet or another ZIP archive"),
                (b"\x1f\x8b\x08...", "compressed by gzip"),
            ] {
                let expected = format!("the file is {kind}: save it as CSV or NDJSON in UTF-8");
                assert_eq!(read(file, format), Err(expected), "{file:?}");
            }
        }
        let latin_1 = b"username,email\nJ\xf6rg,j@x\nada,ada@x\n";
        assert_eq!(
            read(latin_1, Format::Csv),
            Ok(named(&[(2, "username is not UTF-8; save the file as UTF-8"), (3, "ada")]))
        );
        let latin_1 = b"{\"username\":\"J\xf6rg\"}\n";
        assert_eq!(
            read(latin_1, Format::Ndjson),
            Ok(named(&[(1, "it is not UTF-8 (column 15); save the file as UTF-8")]))
        );
    }

    #[test]
    fn a_row_that_is_not_closed_is_named_by_its_line() {
        let unclosed = "username,email\r\na,a@x\r\n\"b,b@x\r\nc,c@x\r\n";
        assert_eq!(csv(unclosed), Ok(named(&[(2, "a"), (3, "a quotation mark that it opens is never closed")])));
        let mut long = "username,email\na,a@x\n\"b,b@x\n".to_owned();
        for number in 0..20_000 {
            writeln!(long, "u{number},u{number}@x").unwrap();
        }
        long += "\",x\nc,c@x\n";
        let reason = "it has more than 65536 bytes or 64 fields; a quotation mark may not be closed";
        assert_eq!(csv(&long), Ok(named(&[(2, "a"), (3, reason), (20_005, "c")])));
        let wide = format!("username,email\na{}\nb,b@x", ",".repeat(1000));
        assert_eq!(csv(&wide), Ok(named(&[(2, reason), (3, "b")])));
        let line = [&b"x".repeat(ROW_MAX + 1)[..], b"\n{\"username\":\"b\",\"email\":\"b@x\"}"].concat();
        assert_eq!(read(&line, Format::Ndjson), Ok(named(&[(1, "it has more than 65536 bytes"), (2, "b")])));
    }

    /// Other programs read different values from such a row.
    #[test]
    fn characters_outside_quotation_marks_are_refused() {
        let outside = "a field has characters outside its quotation marks";
        for row in ["\"c\"junk,c@x", " \"e\",e@x", "\"d\" ,d@x", "a,\"b@x\"\"\"c", "a,\t\"b@x\"", "\"a\"\"\"b\",c@x"] {
            let file = format!("username,email\n{row}\nf,f@x\n");
            assert_eq!(csv(&file), Ok(named(&[(2, outside), (3, "f")])), "{row}");
        }
        for (row, name) in [
            ("\"a\"\"b\",c@x", "a\"b"),
            ("a\"b\",c@x", "a\"b\""),
            ("\"a,\",\"c@x\"", "a,"),
            (" a ,\"c@x\"", "a"),
            ("\"\"\"a\"\"\",c@x", "\"a\""),
        ] {
            for end in ["\r\n", "\n", ""] {
                assert_eq!(csv(&format!("username,email\n{row}{end}")), Ok(named(&[(2, name)])), "{row}{end:?}");
            }
        }
    }

    #[test]
    fn a_line_of_ndjson_is_named_by_its_fault() {
        for (line, reason) in [
            ("{\"username\":\"m\"}", "email is missing"),
            ("{\"username\":\"m\",\"email\":null}", "email is missing"),
            ("{\"username\":7,\"email\":\"m@x\"}", "username is a number, and must be a string"),
            ("{\"id\":\"7\",\"username\":\"m\",\"email\":\"m@x\"}", "id is a string, and must be a whole number"),
            ("{\"id\":1.5,\"username\":\"m\",\"email\":\"m@x\"}", "id is not a whole number"),
            ("{\"id\":1e3,\"username\":\"m\",\"email\":\"m@x\"}", "id is not a whole number"),
            ("{\"id\":18446744073709551615,\"username\":\"m\",\"email\":\"m@x\"}", "id is above 9007199254740991"),
            ("{\"id\":-1,\"username\":\"m\",\"email\":\"m@x\"}", "id is below 1"),
            (
                "{\"username\":\"n\",\"email\":\"n@x\",\"admin\":true}",
                "it has a member other than id, username and email (column 37)",
            ),
            ("{\"username\":\"n\",\"username\":\"n\"}", "it has a member twice (column 26)"),
            ("nonsense", "it is not valid JSON (column 2)"),
            ("{\"username\":", "it is not valid JSON (column 12)"),
            ("\"secret\"", "it is not an object (column 8)"),
            ("[{\"username\":\"a\",\"email\":\"a@x\"}]", "it is a JSON array, and NDJSON has an object on each line"),
            ("[1,\"a\",\"a@x\"]", "it is a JSON array, and NDJSON has an object on each line"),
            ("{\"username\":\"a\",\"email\":\"a@x\"} {}", "it is not valid JSON (column 32)"),
            ("{\"username\":\"\\ud800\",\"email\":\"a@x\"}", "it is not valid JSON (column 20)"),
        ] {
            assert_eq!(read(line.as_bytes(), Format::Ndjson), Ok(named(&[(1, reason)])), "{line}");
        }
        assert_eq!(read(b"", Format::Ndjson), Ok(vec![]));
        assert_eq!(
            read(b" {\"id\":null,\"email\":\"a@x\",\"username\":\" a\"}\r\n", Format::Ndjson),
            Ok(named(&[(1, "a")]))
        );
    }

    /// The result does not depend on the sizes of reads, such as from a pipe.
    #[test]
    fn pieces_of_a_file_are_put_together() {
        struct Pieces<'f>(&'f [u8]);
        impl std::io::Read for Pieces<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                let count = self.0.len().min(1).min(buffer.len());
                let (piece, rest) = self.0.split_at(count);
                buffer[..count].copy_from_slice(piece);
                self.0 = rest;
                Ok(count)
            }
        }
        let file = "\u{feff}sep=;\r\n\r\nusername;email\r\n\"a\";a@x\r\n\r\nb\r\n".as_bytes();
        let found: Result<Vec<_>, Error> = rows(PEOPLE, Pieces(file), Format::Csv).unwrap().collect();
        let found: Vec<_> = found.unwrap().into_iter().map(|(line, row)| (line, row.is_ok())).collect();
        assert_eq!(found, [(4, true), (6, false)]);
    }
}
