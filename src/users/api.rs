//! Users as JSON, NDJSON and CSV.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};

use super::{User, Users};
use crate::db::Db;
use crate::http::{Body, Failures, Format, Problem};
use crate::listing::pages::page_or_stream;
use crate::listing::{Query, stream};

type Parameters = Query<Users>;

/// The examples of streams.
const NDJSON: &str = "{\"id\":1,\"username\":\"admin\",\"email\":\"admin@example.com\"}\n";
const CSV: &str = "id,username,email\n1,admin,admin@example.com\n";

/// A page of users as an array, or every matching user as a stream.
///
/// The next page is in the header `Link`. With `Accept: application/x-ndjson` or `text/csv`, all users are sent, a
/// line each, unless there is a limit; an incomplete stream lacks its last chunk.
#[utoipa::path(
    get,
    path = "/users",
    tag = "users",
    operation_id = "list_users",
    params(Parameters),
    responses(
        (
            status = 200,
            description = "Users, in ascending order of id unless sort is given.",
            content(
                (Vec<User> = "application/json"),
                (String = "application/x-ndjson", example = json!(NDJSON)),
                (String = "text/csv", example = json!(CSV)),
            ),
            headers(
                ("etag" = String, description = "Of a page, for If-None-Match."),
                ("link" = String, description = "Of a page: the next page, if there is one, relative to the request (RFC 8288)."),
            ),
        ),
        (status = 304, description = "The content matches If-None-Match."),
        (status = 412, description = "The content does not match If-Match.", body = Body, content_type = "application/problem+json"),
        (status = 406, description = "None of these types is acceptable.", body = Body, content_type = "application/problem+json"),
        Failures,
    )
)]
pub(crate) async fn list(request: HttpRequest, db: Data<Db>) -> Result<HttpResponse, Problem> {
    page_or_stream::<Users>(&request, db).await
}

/// Every matching user as a stream, a JSON object a line.
#[utoipa::path(
    get,
    path = "/users.ndjson",
    tag = "users",
    operation_id = "export_users_ndjson",
    params(Parameters),
    responses(
        (status = 200, description = "Users.", body = String, content_type = "application/x-ndjson", example = json!(NDJSON)),
        Failures,
    )
)]
pub(crate) async fn ndjson(request: HttpRequest, db: Data<Db>) -> Result<HttpResponse, Problem> {
    stream::<Users>(&request, db, Format::Ndjson).await
}

/// Every matching user as a stream of CSV.
///
/// The first row has the names of the columns. An apostrophe precedes each `=`, `+`, `-` or `@` with which
/// a spreadsheet could begin a formula.
#[utoipa::path(
    get,
    path = "/users.csv",
    tag = "users",
    operation_id = "export_users_csv",
    params(Parameters),
    responses(
        (status = 200, description = "Users.", body = String, content_type = "text/csv", example = json!(CSV)),
        Failures,
    )
)]
pub(crate) async fn csv(request: HttpRequest, db: Data<Db>) -> Result<HttpResponse, Problem> {
    stream::<Users>(&request, db, Format::Csv).await
}
