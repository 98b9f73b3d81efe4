//! All rows of a listing as a stream, in constant memory whatever their number.
//!
//! Each page of the stream is a query of its own, with a connection of the pool and a time limit. So a client that reads
//! slowly holds no connection. The stream has every row that exists from its beginning to its end. It may have rows that
//! are inserted or deleted meanwhile.

use std::marker::PhantomData;

use actix_web::http::Method;
use actix_web::http::header::{self, HeaderValue};
use actix_web::rt::spawn;
use actix_web::rt::task::JoinHandle;
use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::stream::{self, Stream, StreamExt as _};
use tracing::{Instrument as _, Span};

use super::csv;
use super::parameters::{Parameters, Unknown};
use super::query::{Listing, page};
use super::resource::Resource;
use super::row::{ROW_SIZE, Row as _, write_json};
use crate::db::{self, Db};
use crate::http::{Format, Problem};

/// Rows a query: enough that its cost is that of its rows, few enough for a buffer of some 200 KB.
const PAGE: u32 = 2000;

/// Responds with the listing of a request as NDJSON or CSV.
///
/// # Errors
/// Those of its parameters, and of the query of the first page.
pub async fn respond<T: Resource>(
    request: &HttpRequest,
    db: Data<Db>,
    format: Format,
) -> Result<HttpResponse, Problem> {
    let parameters = Parameters::parse(T::TABLE, request.query_string(), Unknown::Refuse)?;
    let (listing, left) = (parameters.listing(None, PAGE)?, parameters.limit);
    let export = Export { db, format, listing, left, span: Span::current(), resource: PhantomData::<T> };
    let header = if format == Format::Csv { csv::header(T::TABLE) } else { String::new() };
    let mut response = HttpResponse::Ok();
    response.content_type(format.content_type());
    response.insert_header((header::CACHE_CONTROL, HeaderValue::from_static("no-store")));
    // The first page is read before the status is sent, so that an error is still a response, also to HEAD.
    let (page, rest) = export.page(&header).await?;
    if request.method() == Method::HEAD {
        return Ok(response.streaming(stream::empty::<Result<Bytes, Broken>>()));
    }
    Ok(response.streaming(stream::once(async { Ok(page) }).chain(pages(rest))))
}

/// The pages after the first. Each is read while the one before it is sent, so the database and the client do not wait for
/// each other. An error ends the stream without its last chunk. So the client detects that the stream is not complete (RFC
/// 9112, section 8).
fn pages<T: Resource>(rest: Option<Export<T>>) -> impl Stream<Item = Result<Bytes, Broken>> {
    stream::try_unfold(rest.map(Export::ahead), |ahead| async {
        let Some(ahead) = ahead else { return Ok(None) };
        let (page, rest) = ahead.await.map_err(|_| Broken)??;
        Ok(Some((page, rest.map(Export::ahead))))
    })
}

/// A stream that is not complete. The log has the reason.
#[derive(Debug, thiserror::Error)]
#[error("the stream was aborted")]
struct Broken;

/// The rest of a stream.
struct Export<T> {
    db: Data<Db>,
    format: Format,
    listing: Listing,
    /// The number of rows that are still to be sent. None for all.
    left: Option<u32>,
    /// The request's.
    span: Span,
    resource: PhantomData<T>,
}

impl<T: Resource> Export<T> {
    /// Begins to read the next page. If the result is dropped, the page is still read to its end, so its connection can be
    /// used again.
    fn ahead(self) -> JoinHandle<Result<(Bytes, Option<Self>), Broken>> {
        let span = self.span.clone();
        let page = async {
            self.page("").await.map_err(|error| {
                tracing::warn!(error = %error, "the stream was aborted");
                Broken
            })
        };
        spawn(page.instrument(span))
    }

    /// The next page, after the text `begin`, and the export of the rows that follow it, if there are any.
    async fn page(mut self, begin: &str) -> Result<(Bytes, Option<Self>), db::Error> {
        self.listing.limit = self.left.map_or(PAGE, |left| left.min(PAGE));
        let size = ROW_SIZE * self.listing.limit as usize;
        let begin = begin.as_bytes().to_vec();
        let new = move || {
            let mut rows = Vec::with_capacity(begin.len() + size);
            rows.extend_from_slice(&begin);
            rows
        };
        let push: fn(&mut Vec<u8>, T::Row<'_>) = if self.format == Format::Csv {
            |rows, row| csv::write(rows, (0..T::TABLE.columns.len()).map(|position| row.value(position)))
        } else {
            |rows, row| {
                write_json(rows, &row);
                rows.push(b'\n');
            }
        };
        let (rows, next) = page::<T, _>(&self.db, &self.listing, new, push).await?;
        let left = self.left.map(|left| left - self.listing.limit);
        let rest = next.filter(|_| left != Some(0)).map(|key| {
            let listing = Listing { after: Some(key), ..self.listing };
            Self { listing, left, ..self }
        });
        Ok((rows.into(), rest))
    }
}
