//! Friends as JSON, and the choice between JSON and the page of a user.

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};

use super::{Friend, Friends, of, page};
use crate::db::Db;
use crate::http::{Body, Failures, Format, Problem, negotiate, negotiated};
use crate::listing::pages::{json_page, json_row, unknown};
use crate::listing::{Parameters, Query, Resource as _, Unknown, get, parameters};
use crate::users::{User, Users};

const FORMATS: &[Format] = &[Format::Json, Format::Html];

/// A page of a user's friends.
///
/// The next page is in the header `Link`. For `Accept: text/html`, it is an HTML page, which ignores unknown
/// parameters.
#[utoipa::path(
    get,
    path = "/users/{id}/friends",
    operation_id = "list_friends",
    tag = "friends",
    params(
        ("id" = i64, Path, example = 1, description = "The user's id."),
        Query<Friends>,
    ),
    responses(
        (
            status = 200,
            description = "Friends.",
            content((Vec<Friend> = "application/json"), (String = "text/html")),
            headers(
                ("etag" = String, description = "For If-None-Match."),
                ("link" = String, description = "The next page, if there is one, relative to the request (RFC 8288)."),
            ),
        ),
        (status = 304, description = "The content matches If-None-Match."),
        (status = 412, description = "The content does not match If-Match.", body = Body, content_type = "application/problem+json"),
        (status = 404, description = "There is no such user.", body = Body, content_type = "application/problem+json"),
        (status = 406, description = "Neither type is acceptable.", body = Body, content_type = "application/problem+json"),
        Failures,
    )
)]
pub(crate) async fn list(request: HttpRequest, id: Path<String>, db: Data<Db>) -> Result<HttpResponse, Problem> {
    if negotiate(&request, FORMATS)? == Format::Html {
        return page::respond(&request, &db, parameters::id(&id)?).await.map(negotiated);
    }
    let id = parameters::id(&id)?;
    let parameters = Parameters::parse(Friends::TABLE, request.query_string(), Unknown::Refuse)?;
    let page = json_page::<Friends>(&request, &db, &parameters, Some(of(id))).await?;
    if page.is_empty() {
        get::<Users, _>(&db, id, |_| ()).await?.ok_or_else(unknown::<Users>)?;
    }
    page.respond().map(negotiated)
}

/// One user.
///
/// For `Accept: text/html`, it is an HTML page, which also has the user's friends.
#[utoipa::path(
    get,
    path = "/users/{id}",
    tag = "users",
    operation_id = "get_user",
    params(("id" = i64, Path, example = 1, description = "The user's id.")),
    responses(
        (
            status = 200,
            description = "The user.",
            content((User = "application/json"), (String = "text/html")),
            headers(("etag" = String, description = "For If-None-Match.")),
        ),
        (status = 304, description = "The content matches If-None-Match."),
        (status = 412, description = "The content does not match If-Match.", body = Body, content_type = "application/problem+json"),
        (status = 404, description = "There is no such user.", body = Body, content_type = "application/problem+json"),
        (status = 406, description = "Neither type is acceptable.", body = Body, content_type = "application/problem+json"),
        Failures,
    )
)]
pub(crate) async fn user(request: HttpRequest, id: Path<String>, db: Data<Db>) -> Result<HttpResponse, Problem> {
    if negotiate(&request, FORMATS)? == Format::Html {
        return page::respond(&request, &db, parameters::id(&id)?).await.map(negotiated);
    }
    json_row::<Users>(&request, &db, &id).await.map(negotiated)
}
