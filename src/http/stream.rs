//! Every matching user as a stream, in constant memory whatever the count.
//!
//! The stream is read page by page, each by a request of its own to the pool: however slowly a client
//! reads, it holds no connection while it does, and each query has its time limit. It sees every user
//! who is there from its beginning to its end, and may or may not see one who comes or goes meanwhile.

use actix_web::http::Method;
use actix_web::http::header::{self, HeaderValue};
use actix_web::rt::spawn;
use actix_web::rt::task::JoinHandle;
use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::stream::{self, Stream, StreamExt as _};
use tracing::{Instrument as _, Span};

use super::listing::{ALL, Parameters, Unknown};
use super::problem::Problem;
use super::representation::{Format, USER_SIZE, write_json};
use crate::db::users::{self, Listing, User};
use crate::db::{self, Db};

/// Users a query: enough that its cost is that of its rows, few enough for a buffer of some 200 KB.
const PAGE: u32 = 2000;

/// `GET /users.ndjson` and `GET /users.csv`, or `GET /users` with a header that wants one of them.
pub(super) async fn respond(request: &HttpRequest, db: Data<Db>, format: Format) -> Result<HttpResponse, Problem> {
    let parameters = Parameters::parse(request.query_string(), ALL, Unknown::Refuse)?;
    let (listing, left) = (parameters.listing(PAGE)?, parameters.limit);
    let export = Export { db, format, listing, left, span: Span::current() };
    let header = if format == Format::Csv { "id,username,email\r\n" } else { "" };
    let mut response = HttpResponse::Ok();
    response.content_type(format.content_type());
    response.insert_header((header::CACHE_CONTROL, HeaderValue::from_static("no-store")));
    // The first page is read before the status is sent, so that an error is still a response, also to HEAD.
    let (page, rest) = export.page(header).await?;
    if request.method() == Method::HEAD {
        return Ok(response.streaming(stream::empty::<Result<Bytes, Broken>>()));
    }
    Ok(response.streaming(stream::once(async { Ok(page) }).chain(pages(rest))))
}

/// The pages behind the first, each of them read while the one before it is sent: the database and the client
/// need not wait for each other. An error ends the stream without its last chunk, which tells the client that
/// it is not complete (RFC 9112, section 8).
fn pages(rest: Option<Export>) -> impl Stream<Item = Result<Bytes, Broken>> {
    stream::try_unfold(rest.map(Export::ahead), |ahead| async {
        let Some(ahead) = ahead else { return Ok(None) };
        let (page, rest) = ahead.await.map_err(|_| Broken)??;
        Ok(Some((page, rest.map(Export::ahead))))
    })
}

/// A stream that is not complete, for a reason that the log has.
#[derive(Debug, thiserror::Error)]
#[error("the stream broke off")]
struct Broken;

/// A stream on its way.
struct Export {
    db: Data<Db>,
    format: Format,
    listing: Listing,
    /// How many users are still wanted, when not all are.
    left: Option<u32>,
    /// The request's.
    span: Span,
}

impl Export {
    /// Begins to read the next page. Dropped, it is read to its end nevertheless, so that its connection is spared.
    fn ahead(self) -> JoinHandle<Result<(Bytes, Option<Self>), Broken>> {
        let span = self.span.clone();
        let page = async {
            self.page("").await.map_err(|error| {
                tracing::warn!(error = %error, "the stream broke off");
                Broken
            })
        };
        spawn(page.instrument(span))
    }

    /// The next page, behind what it begins with, and the export of what follows it, if anything does.
    async fn page(mut self, begin: &str) -> Result<(Bytes, Option<Self>), db::Error> {
        self.listing.limit = self.left.map_or(PAGE, |left| left.min(PAGE));
        let mut rows = Vec::with_capacity(begin.len() + USER_SIZE * self.listing.limit as usize);
        rows.extend_from_slice(begin.as_bytes());
        let next = users::list(&self.db, &self.listing, &mut |user| {
            if self.format == Format::Csv {
                write_csv(&mut rows, user);
            } else {
                write_json(&mut rows, user);
                rows.push(b'\n');
            }
        })
        .await?;
        let left = self.left.map(|left| left - self.listing.limit);
        let rest = next.filter(|_| left != Some(0)).map(|key| {
            let listing = Listing { after: Some(key), ..self.listing };
            Self { listing, left, ..self }
        });
        Ok((rows.into(), rest))
    }
}

fn write_csv(out: &mut Vec<u8>, user: User<'_>) {
    out.extend_from_slice(user.id.to_string().as_bytes());
    for text in [user.username, user.email] {
        out.push(b',');
        cell(out, text);
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
