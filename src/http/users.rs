//! Users as JSON.

use actix_web::http::header::{self, HeaderValue};
use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};

use super::documentation::Failures;
use super::listing::{ALL, Parameters, Unknown};
use super::problem::{Body, Problem};
use super::representation::{self, Format, USER_SIZE, negotiate, write_json};
use super::{page, stream};
use crate::db::users::{Column, Key, User};
use crate::db::{Db, friends, users};

/// The rows of a page whose request names no limit.
const LIMIT: u32 = 100;

/// A page of users as an array, or every matching user as a stream.
///
/// The next page is in the header `Link`. With `Accept: application/x-ndjson` or `text/csv`, all users are sent, a
/// line each, unless there is a limit; a stream that breaks off lacks its last chunk.
#[utoipa::path(
    get,
    path = "/users",
    params(Parameters),
    responses(
        (
            status = 200,
            description = "Users, in ascending id unless sort says otherwise.",
            content(
                (Vec<User> = "application/json"),
                (String = "application/x-ndjson"),
                (String = "text/csv"),
            ),
            headers(
                ("etag" = String, description = "Of a page: for If-None-Match."),
                ("link" = String, description = "Of a page that another follows: where that is, relative to the request (RFC 8288)."),
            ),
        ),
        (status = 304, description = "The client's copy, named by If-None-Match, is the same."),
        (status = 412, description = "If-Match names other content.", body = Body, content_type = "application/problem+json"),
        (status = 406, description = "None of these types is acceptable.", body = Body, content_type = "application/problem+json"),
        Failures,
    )
)]
pub(super) async fn list(request: HttpRequest, db: Data<Db>) -> Result<HttpResponse, Problem> {
    let format = negotiate(&request, &[Format::Json, Format::Ndjson, Format::Csv])?;
    let mut response = if format == Format::Json {
        let parameters = Parameters::parse(request.query_string(), ALL, Unknown::Refuse)?;
        let listing = parameters.listing(LIMIT)?;
        let mut body = Array::with_capacity(listing.limit);
        let next = users::list(&db, &listing, &mut |user| body.push(user)).await?;
        let next = next.map(|key| parameters.query(parameters.sort, Some((listing.column, &key))));
        array(&request, "users", next, body)?
    } else {
        stream::respond(&request, db, format).await?
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// Every matching user as a stream, a JSON object a line.
#[utoipa::path(
    get,
    path = "/users.ndjson",
    params(Parameters),
    responses(
        (status = 200, description = "Users.", body = String, content_type = "application/x-ndjson"),
        Failures,
    )
)]
pub(super) async fn ndjson(request: HttpRequest, db: Data<Db>) -> Result<HttpResponse, Problem> {
    stream::respond(&request, db, Format::Ndjson).await
}

/// Every matching user as a stream of CSV.
///
/// The first row has the names of the columns. An apostrophe precedes each `=`, `+`, `-` or `@` with which
/// a spreadsheet could begin a formula.
#[utoipa::path(
    get,
    path = "/users.csv",
    params(Parameters),
    responses((status = 200, description = "Users.", body = String, content_type = "text/csv"), Failures)
)]
pub(super) async fn csv(request: HttpRequest, db: Data<Db>) -> Result<HttpResponse, Problem> {
    stream::respond(&request, db, Format::Csv).await
}

/// One user.
#[utoipa::path(
    get,
    path = "/users/{id}",
    params(("id" = i64, Path, description = "The user's id.")),
    responses(
        (
            status = 200,
            description = "The user.",
            body = User,
            headers(("etag" = String, description = "For If-None-Match.")),
        ),
        (status = 304, description = "The client's copy, named by If-None-Match, is the same."),
        (status = 412, description = "If-Match names other content.", body = Body, content_type = "application/problem+json"),
        (status = 404, description = "There is no such user.", body = Body, content_type = "application/problem+json"),
        (status = 406, description = "JSON is not acceptable.", body = Body, content_type = "application/problem+json"),
        Failures,
    )
)]
pub(super) async fn get(request: HttpRequest, id: Path<String>, db: Data<Db>) -> Result<HttpResponse, Problem> {
    negotiate(&request, &[Format::Json])?;
    Parameters::parse(request.query_string(), &[], Unknown::Refuse)?;
    let mut body = Vec::with_capacity(USER_SIZE);
    let found = users::get(&db, parse_id(&id)?, |user| write_json(&mut body, user)).await?;
    found.ok_or_else(|| Problem::not_found("there is no user with this id"))?;
    representation::respond_with_etag(&request, Format::Json, body, None)
}

/// A user's friends, in ascending id.
///
/// The next page is in the header `Link`. For `Accept: text/html`, it is a page for people, which ignores parameters
/// that it does not have.
#[utoipa::path(
    get,
    path = "/users/{id}/friends",
    params(
        ("id" = i64, Path, description = "The user's id."),
        ("limit" = Option<u32>, Query, description = "The most friends that are wanted; 100 by default.", minimum = 1, maximum = 1000),
        ("after" = Option<String>, Query, description = "Where to go on: a cursor from the `Link` of the page before.", pattern = "^[A-Za-z0-9_-]+$"),
    ),
    responses(
        (
            status = 200,
            description = "Friends.",
            content((Vec<User> = "application/json"), (String = "text/html")),
            headers(
                ("etag" = String, description = "For If-None-Match."),
                ("link" = String, description = "Where the next page is, if there is one, relative to the request (RFC 8288)."),
            ),
        ),
        (status = 304, description = "The client's copy, named by If-None-Match, is the same."),
        (status = 412, description = "If-Match names other content.", body = Body, content_type = "application/problem+json"),
        (status = 404, description = "There is no such user.", body = Body, content_type = "application/problem+json"),
        (status = 406, description = "Neither type is acceptable.", body = Body, content_type = "application/problem+json"),
        Failures,
    )
)]
pub(super) async fn friends(request: HttpRequest, id: Path<String>, db: Data<Db>) -> Result<HttpResponse, Problem> {
    let format = negotiate(&request, &[Format::Json, Format::Html])?;
    let id = parse_id(&id)?;
    let unknown = if format == Format::Html { Unknown::Ignore } else { Unknown::Refuse };
    let parameters = Parameters::parse(request.query_string(), &["limit", "after"], unknown)?;
    let mut response = match format {
        Format::Html => page::friends(&request, &db, id, &parameters).await?,
        _ => friends_as_json(&request, &db, id, &parameters).await?,
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

async fn friends_as_json(
    request: &HttpRequest,
    db: &Db,
    id: i64,
    parameters: &Parameters,
) -> Result<HttpResponse, Problem> {
    let after = parameters.after_id()?;
    let limit = parameters.limit.unwrap_or(LIMIT);
    let mut body = Array::with_capacity(limit);
    let next = friends::list(db, id, after, limit, &mut |user| body.push(user)).await?;
    if body.is_empty() {
        users::get(db, id, |_| ()).await?.ok_or_else(|| Problem::not_found("there is no user with this id"))?;
    }
    let next = next.map(|id| parameters.query(None, Some((Column::Id, &Key::Id(id)))));
    array(request, "friends", next, body)
}

/// A JSON array of users, written straight from the rows.
struct Array(Vec<u8>);

impl Array {
    fn with_capacity(users: u32) -> Self {
        let mut bytes = Vec::with_capacity(USER_SIZE * (users as usize).min(100));
        bytes.push(b'[');
        Self(bytes)
    }

    fn is_empty(&self) -> bool {
        self.0.len() == 1
    }

    fn push(&mut self, user: User<'_>) {
        if !self.is_empty() {
            self.0.push(b',');
        }
        write_json(&mut self.0, user);
    }
}

/// A response with an array, and a link to its next page. The link is relative, because only the client knows the host
/// and the path prefix. It begins with `name`, the last segment of the request's path, because Java's `URI` resolves a
/// query without a path incorrectly.
fn array(request: &HttpRequest, name: &str, next: Option<String>, mut body: Array) -> Result<HttpResponse, Problem> {
    body.0.push(b']');
    let link = next.and_then(|query| HeaderValue::try_from(format!("<{name}?{query}>; rel=\"next\"")).ok());
    representation::respond_with_etag(request, Format::Json, body.0, link)
}

fn parse_id(id: &str) -> Result<i64, Problem> {
    // One user has one address, so that a number is written in one way.
    let number = id.parse().ok().filter(|number: &i64| number.to_string() == id);
    number.ok_or_else(|| Problem::bad_parameter("id", format_args!("it must be a whole number, {} at most", i64::MAX)))
}
