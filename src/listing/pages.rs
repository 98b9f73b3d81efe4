//! A page of a listing, and one row, as JSON.

use actix_web::http::header::HeaderValue;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};

use super::parameters::{self, Parameters, Unknown};
use super::query::{Scope, get, page};
use super::resource::Resource;
use super::row::{ROW_SIZE, write_json};
use super::stream;
use crate::db::Db;
use crate::http::{Format, Problem, negotiate, negotiated, respond_with_etag};

/// The rows of a page in the API whose request has no limit.
const LIMIT: u32 = 100;

/// Responds with a page as JSON, or with all rows as a stream, as the client prefers.
///
/// # Errors
/// Those of the parameters and of the query, and 406.
pub async fn page_or_stream<T: Resource>(request: &HttpRequest, db: Data<Db>) -> Result<HttpResponse, Problem> {
    let format = negotiate(request, &[Format::Json, Format::Ndjson, Format::Csv])?;
    if format != Format::Json {
        return stream::respond::<T>(request, db, format).await.map(negotiated);
    }
    let parameters = Parameters::parse(T::TABLE, request.query_string(), Unknown::Refuse)?;
    json_page::<T>(request, &db, &parameters, None).await?.respond().map(negotiated)
}

/// Responds with the row of this id as JSON. The caller has negotiated the format.
///
/// # Errors
/// 400 for an id that is not a number, 404 for one that no row has, and those of the query and of `If-Match`.
pub async fn json_row<T: Resource>(request: &HttpRequest, db: &Db, id: &str) -> Result<HttpResponse, Problem> {
    parameters::none(request.query_string())?;
    let json: fn(T::Row<'_>) -> Vec<u8> = |row| {
        let mut body = Vec::with_capacity(ROW_SIZE);
        write_json(&mut body, &row);
        body
    };
    let body = get::<T, _>(db, parameters::id(id)?, json).await?.ok_or_else(unknown::<T>)?;
    respond_with_etag(request, Format::Json, body, None)
}

/// The problem for an id that no row has.
#[must_use]
pub fn unknown<T: Resource>() -> Problem {
    Problem::not_found(format!("there is no {} with this id", T::TABLE.row))
}

/// A page as JSON, which is not sent yet.
pub struct JsonPage<'a> {
    request: &'a HttpRequest,
    body: Vec<u8>,
    /// The query string of the next page.
    next: Option<String>,
}

/// Reads a page. The rows are written straight from the driver's rows.
///
/// # Errors
/// Those of the parameters and of the query.
pub async fn json_page<'a, T: Resource>(
    request: &'a HttpRequest,
    db: &Db,
    parameters: &Parameters,
    scope: Option<Scope>,
) -> Result<JsonPage<'a>, Problem> {
    let listing = parameters.listing(scope, LIMIT)?;
    let size = ROW_SIZE * listing.limit.min(LIMIT) as usize;
    let new = move || {
        let mut body = Vec::with_capacity(size);
        body.push(b'[');
        body
    };
    let push: fn(&mut Vec<u8>, T::Row<'_>) = |body, row| {
        if body.len() > 1 {
            body.push(b',');
        }
        write_json(body, &row);
    };
    let (body, next) = page::<T, _>(db, &listing, new, push).await?;
    let next = next.map(|key| parameters.query(&listing, Some(&key)));
    Ok(JsonPage { request, body, next })
}

impl JsonPage<'_> {
    /// Whether the page has no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.body.len() == 1
    }

    /// The response, with a link to the next page. The link is relative, because only the client knows the host and the
    /// path prefix. It begins with the last segment of the request's path, because Java's `URI` resolves a query without a
    /// path incorrectly.
    ///
    /// # Errors
    /// 412 for another `If-Match`.
    pub fn respond(mut self) -> Result<HttpResponse, Problem> {
        self.body.push(b']');
        let name = self.request.path().rsplit('/').next().unwrap_or_default();
        let link = self.next.map(|query| format!("<{name}?{query}>; rel=\"next\""));
        let link = link.and_then(|link| HeaderValue::try_from(link).ok());
        respond_with_etag(self.request, Format::Json, self.body, link)
    }
}
