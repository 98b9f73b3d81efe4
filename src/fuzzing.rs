//! What must hold for any input from outside. The targets of `fuzz/` search for inputs that break these properties, and
//! the tests of this module apply them to examples.

use std::io::{self, Read};

use actix_web::http::header::HeaderValue;

use crate::admin::reader::{self, Row};
use crate::admin::transfer::{Encoder, Format};
use crate::config::Config;
use crate::db::users::{Column, User};
use crate::http::cursor;
use crate::http::listing::{ALL, Parameters, Unknown};

/// A key has one cursor: one that is accepted is what its key is encoded as.
///
/// # Panics
/// When an input breaks it, as each of these functions.
pub fn cursor(text: &str) {
    for column in [Column::Id, Column::Username, Column::Email] {
        if let Some(key) = cursor::decode(text, column) {
            assert_eq!(cursor::encode(column, &key), text, "{key:?}");
        }
    }
}

/// A query string that is accepted is serialised to one that has the same meaning, is valid in a `Link`, and keeps its
/// meaning among parameters of other sites.
///
/// # Panics
/// See [`cursor()`].
pub fn query_string(text: &str) {
    let parse = |query: &str, unknown| Parameters::parse(query, ALL, unknown).ok();
    let Some(parameters) = parse(text, Unknown::Refuse) else { return };
    let Ok(listing) = parameters.listing(1) else { return };
    let after = listing.after.as_ref().map(|key| (listing.column, key));
    let written = parameters.query(parameters.sort, after);
    let among_others = format!("utm_source=%ff&&{written}&utm_source=x");
    let read = [parse(&written, Unknown::Refuse), parse(text, Unknown::Ignore), parse(&among_others, Unknown::Ignore)];
    for read in read {
        assert_eq!(read.as_ref(), Some(&parameters), "{written}");
    }
    assert!(HeaderValue::try_from(&written).is_ok() && !written.contains(['<', '>', '"']), "{written}");
}

/// Whatever characters surround a secret in a password, neither the configuration nor an error shows it. The first
/// character chooses the form of the URL.
///
/// # Panics
/// See [`cursor()`].
pub fn database_url(text: &str) {
    const SECRET: &str = "nightingale";
    const SCHEMES: [&str; 8] =
        ["postgres", "postgresql", "mysql", "mariadb", "Postgres", "postgers", "sqlite", "jdbc:mysql"];
    let mut text = text.chars();
    let choice = text.next().map_or(0, |first| first as usize);
    let text = text.as_str();
    let (before, after) = text.split_at(text.floor_char_boundary(text.len() / 2));
    let password = format!("{before}{SECRET}{after}");
    let scheme = SCHEMES[choice % SCHEMES.len()];
    let url = match choice / SCHEMES.len() % 6 {
        0 => text.to_owned(),
        1 => format!("roster:{password}@db.example/roster"),
        2 => format!("{scheme}://roster:{password}@db.example/roster"),
        3 => format!("{scheme}://roster:{password}@[::1]:5432/roster?sslmode=require"),
        4 => format!("{scheme}://roster:{password}@/roster?host=/run/sockets"),
        // What follows an ampersand is another parameter, whose name is shown.
        _ => format!("{scheme}://db.example/roster?user=roster&password={}", password.replace('&', "")),
    };
    let shown = match Config::from_vars([("DATABASE_URL".to_owned(), url.clone())]) {
        Ok(config) => {
            let url = &config.database_url;
            format!("{config} {config:?} {url:?} {} {:?}", url.address(), url.protection())
        }
        Err(problems) => format!("{problems} {problems:?}"),
    };
    assert!(!shown.to_lowercase().contains(SECRET), "{url:?} is shown as {shown:?}");
}

/// The rows of CSV: see [`import`].
///
/// # Panics
/// See [`cursor()`].
pub fn csv(bytes: &[u8]) {
    import(bytes, Format::Csv);
    import(&[b"id,username,email\n", bytes].concat(), Format::Csv);
}

/// The rows of NDJSON: see [`import`].
///
/// # Panics
/// See [`cursor()`].
pub fn ndjson(bytes: &[u8]) {
    import(bytes, Format::Ndjson);
}

/// The rows of a file are the same however it arrives, each begins on a line of its own within the file, and their users
/// come back from an export in either format.
fn import(bytes: &[u8], format: Format) {
    let rows = read(bytes, format);
    assert_eq!(rows, read(ByteByByte(bytes), format), "a file that arrives byte by byte");
    let Ok(rows) = rows else { return };
    let lines = 1 + bytes.iter().filter(|byte| matches!(byte, b'\r' | b'\n')).count() as u64;
    assert!(rows.is_sorted_by(|(line, _), (next, _)| line < next), "{rows:?}");
    assert!(rows.iter().all(|(line, _)| (1..=lines).contains(line)), "{lines} lines: {rows:?}");
    let texts = |rows: &[Row]| -> Vec<_> {
        let users = rows.iter().filter_map(|(_, user)| user.as_ref().ok());
        users.map(|user| (user.id().unwrap_or(1), user.username().to_owned(), user.email().to_owned())).collect()
    };
    let users = texts(&rows);
    if users.is_empty() {
        return;
    }
    for format in [Format::Csv, Format::Ndjson] {
        let mut encoder = Encoder::new(format).expect("memory can be written");
        let mut file = Vec::new();
        for (id, username, email) in &users {
            let user = User { id: *id, username, email };
            file.extend(encoder.push(user).expect("memory can be written").unwrap_or_default());
        }
        file.extend(encoder.finish().expect("memory can be written"));
        let again = read(file.as_slice(), format).expect("it was just written");
        assert!(again.iter().all(|(_, user)| user.is_ok()), "{again:?}");
        assert_eq!(texts(&again), users, "{format:?}");
    }
}

fn read(file: impl Read, format: Format) -> Result<Vec<Row>, String> {
    let rows = reader::rows(file, format).and_then(Iterator::collect);
    rows.map_err(|error| error.to_string())
}

/// A file of which each read gives one byte.
struct ByteByByte<'a>(&'a [u8]);

impl Read for ByteByByte<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(1);
        self.0.read(&mut buffer[..count])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_property_holds_for_examples() {
        for text in ["", "!", "aQAAAAAAAAAB", "aQAAAAAAAAAB=", "dWFkYQ", "dWFkYR", "dQ"] {
            cursor(text);
        }
        for text in [
            "",
            "q=",
            "limit=7&sort=-id&after=aQAAAAAAAAAB",
            "q=a%26b%3C%3E+\u{fc}&sort=-username",
            "q=a@b&after=ZWFAYg",
            "x=1",
        ] {
            query_string(text);
        }
        for text in ["", "/", "1/", "1?", "1#", "@", "%", "a:b@c/d?e=f#g", "\\", "\u{fc}\0\n"] {
            for choice in 'A'..='z' {
                database_url(&format!("{choice}{text}"));
            }
        }
        for text in [
            "",
            "1,ada,ada@example.com\r\n\r\n,\"b\nc\",d\rx;y",
            "id\tusername\temail\n7\tada\ta@b",
            "sep=;\nemail;username\n",
        ] {
            csv(text.as_bytes());
        }
        for text in [
            "",
            "\n{}\r\n{\"username\":\"ada\",\"email\":\"a@b\"}\n[",
            "\u{feff}{\"id\":1,\"username\":\"\",\"email\":null}",
        ] {
            ndjson(text.as_bytes());
        }
    }
}
