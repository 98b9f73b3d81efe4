//! What must hold for any input from outside. The targets of `fuzz/` search for inputs that break these properties, and
//! the tests of this module apply them to examples.

use std::io::{self, Read};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::Request;
use actix_service::Service;
use actix_web::body::BoxBody;
use actix_web::dev::ServiceResponse;
use actix_web::http::header::HeaderValue;
use actix_web::rt::System;
use actix_web::test::init_service;
use actix_web::web::Data;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{spawn_local, yield_now};
use tokio::time::timeout;

use crate::config::{Config, UNUSED_URLS};
use crate::db::{Db, Timestamp, Value};
use crate::http::{self, State};
use crate::listing::export::Encoder;
use crate::listing::file::Format;
use crate::listing::reader::{self, Row};
use crate::listing::{Kind, Parameters, Table, Unknown, cursor};
use crate::resources;
use crate::server::connection;

/// A key has one cursor: one that is accepted is what its key is encoded as.
///
/// # Panics
/// When an input breaks it, as each of these functions.
pub fn cursor(table: &Table, text: &str) {
    for (position, _) in table.columns.iter().enumerate().filter(|(_, column)| column.key.is_some()) {
        if let Some(key) = cursor::decode(text, table, position) {
            assert_eq!(cursor::encode(table, position, &key), text, "{key:?}");
        }
    }
}

/// A query string that is accepted is serialised to one that has the same meaning, is valid in a `Link`, and keeps its
/// meaning among parameters of other sites.
///
/// # Panics
/// See [`cursor()`].
pub fn query_string(table: &'static Table, text: &str) {
    let parse = |query: &str, unknown| Parameters::parse(table, query, unknown).ok();
    let Some(parameters) = parse(text, Unknown::Refuse) else { return };
    let Ok(listing) = parameters.listing(None, 1) else { return };
    let written = parameters.query(&listing, listing.after.as_ref());
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
        3 => format!("{scheme}://roster:{password}@[::1]:5432/roster?connect_timeout=1"),
        4 => format!("{scheme}://roster:{password}@/roster?host=/run/sockets"),
        _ => {
            // An ampersand begins the next parameter.
            let password = password.replace('&', "%26");
            format!("{scheme}://db.example/roster?user=roster&password={password}")
        }
    };
    let shown = match Config::from_vars([("DATABASE_URL".to_owned(), url.clone())]) {
        Ok(config) => {
            let url = &config.database_url;
            // [only servers]
            assert!(!url.protection().unwrap_or_default().contains(SECRET), "{url:?}");
            // [end]
            format!("{config} {config:?} {url:?} {}", url.address())
        }
        Err(problems) => format!("{problems} {problems:?}"),
    };
    assert!(!shown.to_lowercase().contains(SECRET), "{url:?} is shown as {shown:?}");
}

/// The rows of CSV: see [`import`].
///
/// # Panics
/// See [`cursor()`].
pub fn csv(table: &'static Table, bytes: &[u8]) {
    import(table, bytes, Format::Csv);
    let header = table.names().collect::<Vec<_>>().join(",");
    import(table, &[header.as_bytes(), b"\n", bytes].concat(), Format::Csv);
}

/// The rows of NDJSON: see [`import`].
///
/// # Panics
/// See [`cursor()`].
pub fn ndjson(table: &'static Table, bytes: &[u8]) {
    import(table, bytes, Format::Ndjson);
}

/// However the bytes of a client are cut, its connection has the same answers, and ends. The first byte chooses the
/// length of the pieces. The input ends with an empty line, because hyper rejects an invalid head without its end only if it
/// arrives in one piece.
///
/// # Panics
/// See [`cursor()`].
pub fn connection(bytes: &[u8]) {
    const FIRST: &[u8] = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
    let length = bytes.first().map_or(1, |first| usize::from(*first) % 64 + 1);
    let all = [FIRST, bytes.get(1..).unwrap_or_default(), b"\r\n\r\n"].concat();
    let config = Config::from_vars([("DATABASE_URL".to_owned(), UNUSED_URLS[0].to_owned())]);
    let config = config.expect("it is complete");
    let (whole, cut) = System::new().block_on(async {
        let state = Data::new(State::new(&config, resources::application(&config).into(), Arc::default(), Vec::new()));
        let app = Rc::new(init_service(http::app(state.clone(), Db::open(&config))).await);
        (answers(&app, &state, &[&all]).await, answers(&app, &state, &all.chunks(length).collect::<Vec<_>>()).await)
    });
    assert!(whole.starts_with("HTTP/1.1 200 OK\r\n") && whole.contains("alive\n"), "{whole}");
    assert_eq!(whole, cut, "pieces of {length} bytes");
}

/// The answers of a connection, without what is new every time.
async fn answers<S>(app: &Rc<S>, state: &Data<State>, pieces: &[&[u8]]) -> String
where
    S: Service<Request, Response = ServiceResponse<BoxBody>, Error = actix_web::Error> + 'static,
{
    const LONGEST: Duration = Duration::from_secs(5);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (mut client, (server, _)) = (client.expect("it listens"), server.expect("the client connects"));
    client.set_nodelay(true).expect("an option of TCP");
    let serving = spawn_local(connection::serve(server, app.clone(), state.clone()));
    for piece in pieces {
        // The server may have closed the connection.
        if client.write_all(piece).await.is_err() {
            break;
        }
        for _ in 0..4 {
            yield_now().await;
        }
    }
    let _ = client.shutdown().await;
    let mut received = Vec::new();
    let ended = timeout(LONGEST, client.read_to_end(&mut received)).await;
    ended.expect("the connection ends").expect("it ends in order");
    drop(client);
    timeout(LONGEST, serving).await.expect("its task ends").expect("it does not panic");
    let text = String::from_utf8_lossy(&received).replace("HTTP/1.1 100 Continue\r\n\r\n", "");
    let is_constant =
        |line: &&str| !["date: ", "x-request-id: ", "traceparent: ", "{\"type\""].iter().any(|it| line.starts_with(it));
    // The order of headers is random.
    let mut lines: Vec<_> = text.split("\r\n").filter(is_constant).collect();
    lines[1..].sort_unstable();
    lines.join("\r\n")
}

/// The rows of a file do not depend on the sizes of its pieces, and each begins on a line of its own. In either format, an
/// export of them has the same rows.
fn import(table: &'static Table, bytes: &[u8], format: Format) {
    let rows = read(table, bytes, format);
    assert_eq!(rows, read(table, ByteByByte(bytes), format), "a file that arrives byte by byte");
    let Ok(rows) = rows else { return };
    let lines = 1 + bytes.iter().filter(|byte| matches!(byte, b'\r' | b'\n')).count() as u64;
    assert!(rows.is_sorted_by(|(line, _), (next, _)| line < next), "{rows:?}");
    assert!(rows.iter().all(|(line, _)| (1..=lines).contains(line)), "{lines} lines: {rows:?}");
    // A value that the database would choose.
    let chosen = |position: usize| match table.columns[position].kind {
        Kind::Id | Kind::Reference => Value::from(1),
        Kind::Text(..) => Value::from("x"),
        Kind::Time => Timestamp::from_unix(0).expect("it is in range").into(),
    };
    let values = |rows: &[Row]| -> Vec<Vec<Value<'static>>> {
        let rows = rows.iter().filter_map(|(_, row)| row.as_ref().ok());
        let positions = 0..table.columns.len();
        rows.map(|row| positions.clone().map(|at| row.value(at).cloned().unwrap_or_else(|| chosen(at))).collect())
            .collect()
    };
    let valid = values(&rows);
    if valid.is_empty() {
        return;
    }
    for format in [Format::Csv, Format::Ndjson] {
        let mut encoder = Encoder::new(table, format).expect("memory can be written");
        let mut file = Vec::new();
        for row in &valid {
            file.extend(encoder.push(row).expect("memory can be written").unwrap_or_default());
        }
        file.extend(encoder.finish().expect("memory can be written"));
        let again = read(table, file.as_slice(), format).expect("it was just written");
        assert!(again.iter().all(|(_, row)| row.is_ok()), "{again:?}");
        assert_eq!(values(&again), valid, "{format:?}");
    }
}

fn read(table: &'static Table, file: impl Read, format: Format) -> Result<Vec<Row>, String> {
    let rows = reader::rows(table, file, format).and_then(Iterator::collect);
    rows.map_err(|error| error.to_string())
}

/// A file of which each read gives one byte.
struct ByteByByte<'a>(&'a [u8]);

impl Read for ByteByByte<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(1);
        Read::read(&mut self.0, &mut buffer[..count])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::TABLES;

    #[test]
    fn every_property_holds_for_examples() {
        for text in ["", "!", "aQAAAAAAAAAB", "aQAAAAAAAAAB=", "dWFkYQ", "dWFkYR", "dQ"] {
            for table in TABLES {
                cursor(table, text);
            }
        }
        for text in [
            "",
            "q=",
            "limit=7&sort=-id&after=aQAAAAAAAAAB",
            "q=a%26b%3C%3E+\u{fc}&sort=-username",
            "q=a@b&after=ZWFAYg",
            "x=1",
        ] {
            for table in TABLES {
                query_string(table, text);
            }
        }
        for text in ["", "/", "1/", "1?", "1#", "@", "%", "a:b@c/d?e=f#g", "\\", "\u{fc}\0\n"] {
            for choice in 'A'..='z' {
                database_url(&format!("{choice}{text}"));
            }
        }
        for text in [
            "",
            "\n\n?s",
            "\u{7}GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n",
            "\u{1}POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /livez HT",
            "\u{10}\r\n\r\nHEAD /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\nno request\r\n\r\n",
            "\u{3}GET /livez HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nPRI * HTTP/2.0\r\n\r\n",
        ] {
            connection(text.as_bytes());
        }
        for text in [
            "",
            "1,ada,ada@example.com\r\n\r\n,\"b\nc\",d\rx;y",
            "id\tusername\temail\n7\tada\ta@b",
            "sep=;\nemail;username\n",
        ] {
            for table in TABLES {
                csv(table, text.as_bytes());
            }
        }
        for text in [
            "",
            "\n{}\r\n{\"username\":\"ada\",\"email\":\"a@b\"}\n[",
            "\u{feff}{\"id\":1,\"username\":\"\",\"email\":null}",
        ] {
            for table in TABLES {
                ndjson(table, text.as_bytes());
            }
        }
    }
}
