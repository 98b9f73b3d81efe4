//! Users as JSON.

use actix_web::http::header::{self, HeaderValue};
use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};

use super::listing::{ALL, Parameters};
use super::problem::Problem;
use super::representation::{self, Format, USER_SIZE, negotiate, write_json};
use super::{State, stream};
use crate::db::users::{Column, Key, User};
use crate::db::{friends, users};

/// The rows of a page whose request names no limit.
const LIMIT: u32 = 100;

/// `GET /users`: a bare array, as clients of the original service expect it, or a stream for those who ask for one.
pub(super) async fn list(request: HttpRequest, state: Data<State>) -> Result<HttpResponse, Problem> {
    let format = negotiate(&request, &[Format::Json, Format::Ndjson, Format::Csv])?;
    let mut response = if format == Format::Json {
        let parameters = Parameters::parse(request.query_string(), ALL)?;
        let listing = parameters.listing(LIMIT)?;
        let mut body = Array::with_capacity(listing.limit);
        let next = users::list(&state.db, &listing, |user| body.push(user)).await?;
        let next = next.map(|key| parameters.query(parameters.sort, Some((listing.column, &key))));
        page(&request, "/users", next, body)
    } else {
        stream::respond(&request, state, format).await?
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// `GET /users.ndjson`
pub(super) async fn ndjson(request: HttpRequest, state: Data<State>) -> Result<HttpResponse, Problem> {
    stream::respond(&request, state, Format::Ndjson).await
}

/// `GET /users.csv`
pub(super) async fn csv(request: HttpRequest, state: Data<State>) -> Result<HttpResponse, Problem> {
    stream::respond(&request, state, Format::Csv).await
}

/// `GET /users/{id}`
pub(super) async fn get(request: HttpRequest, id: Path<String>, state: Data<State>) -> Result<HttpResponse, Problem> {
    negotiate(&request, &[Format::Json])?;
    Parameters::parse(request.query_string(), &[])?;
    let mut body = Vec::with_capacity(USER_SIZE);
    let found = users::get(&state.db, parse_id(&id)?, |user| write_json(&mut body, user)).await?;
    found.ok_or_else(unknown_user)?;
    Ok(representation::json(&request, body, None))
}

/// `GET /users/{id}/friends`: always by id, because any other order would be no range of an index.
pub(super) async fn friends(
    request: HttpRequest,
    id: Path<String>,
    state: Data<State>,
) -> Result<HttpResponse, Problem> {
    negotiate(&request, &[Format::Json])?;
    let id = parse_id(&id)?;
    let parameters = Parameters::parse(request.query_string(), &["limit", "after"])?;
    let after = match parameters.after(Column::Id)? {
        Some(Key::Id(id)) => Some(id),
        _ => None,
    };
    let limit = parameters.limit.unwrap_or(LIMIT);
    let mut body = Array::with_capacity(limit);
    let next = friends::list(&state.db, id, after, limit, |user| body.push(user)).await?;
    if body.is_empty() {
        users::get(&state.db, id, |_| ()).await?.ok_or_else(unknown_user)?;
    }
    let next = next.map(|id| parameters.query(None, Some((Column::Id, &Key::Id(id)))));
    Ok(page(&request, &format!("/users/{id}/friends"), next, body))
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

fn page(request: &HttpRequest, path: &str, next: Option<String>, mut body: Array) -> HttpResponse {
    body.0.push(b']');
    // RFC 8288; relative, because only the client knows by which name it reached us.
    let link = next.and_then(|query| HeaderValue::try_from(format!("<{path}?{query}>; rel=\"next\"")).ok());
    representation::json(request, body.0, link)
}

fn parse_id(id: &str) -> Result<i64, Problem> {
    id.parse()
        .map_err(|_| Problem::bad_parameter("id", format_args!("it must be a whole number, {} at most", i64::MAX)))
}

fn unknown_user() -> Problem {
    Problem::not_found("there is no user with this id")
}
