//! Creating, changing and removing a user.

use actix_web::web::{Bytes, Data, Path};
use actix_web::{HttpRequest, HttpResponse};

use super::{User, Users, welcome};
use crate::db::Db;
use crate::http::{
    Body, BodyFailures, Created, Failures, Format, JSON, MERGE_PATCH, Problem, WriteFailures, conditions, json_object,
    negotiate, once, origin, respond_with_state, respond_without_content,
};
use crate::jobs;
use crate::listing::pages::unknown;
use crate::listing::{Resource as _, parameters, writes};

/// The members of a new user.
#[derive(utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it describes a body")]
pub(crate) struct NewUser {
    /// Unique, ignoring ASCII case.
    #[schema(min_length = 1, max_length = 80, example = "ada")]
    username: String,
    /// Unique, ignoring ASCII case.
    #[schema(min_length = 1, max_length = 120, example = "ada@example.com")]
    email: String,
}

/// The members of a user that are to be changed.
#[derive(utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it describes a body")]
pub(crate) struct UserChanges {
    /// Unique, ignoring ASCII case.
    #[schema(min_length = 1, max_length = 80, example = "ada.lovelace", required = false)]
    username: String,
    /// Unique, ignoring ASCII case.
    #[schema(min_length = 1, max_length = 120, example = "lovelace@example.com", required = false)]
    email: String,
}

/// Creates a user.
///
/// A client that sends an Idempotency-Key may repeat the request until it has a response: the user is created once.
#[utoipa::path(
    post,
    path = "/users",
    tag = "users",
    operation_id = "create_user",
    security(("token" = [])),
    params(
        (
            "idempotency-key" = Option<String>, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$",
            description = "1 to 255 visible ASCII characters, such as a UUID, the same for each repetition of the request. It is stored for 24 hours.",
        ),
    ),
    request_body(content = NewUser, content_type = "application/json"),
    responses(
        (
            status = 201,
            description = "The user.",
            body = User,
            headers(
                ("location" = String, description = "The URL of the user, relative to the request."),
                ("etag" = String, description = "For If-Match."),
                ("idempotency-replayed" = bool, description = "Present if this is the response of an earlier request with the same key."),
            ),
            links(
                ("get" = (operation_id = "get_user", parameters(("id" = "$response.body#/id")))),
                ("change" = (
                    operation_id = "change_user",
                    parameters(("id" = "$response.body#/id"), ("if-match" = "$response.header.etag")),
                )),
                ("remove" = (operation_id = "remove_user", parameters(("id" = "$response.body#/id")))),
                ("befriend" = (operation_id = "add_friend", parameters(("id" = "$response.body#/id")))),
            ),
        ),
        (status = 406, description = "JSON is not acceptable.", body = Body, content_type = "application/problem+json"),
        (
            status = 409,
            description = "A value is taken. With Retry-After: another request with this key is still running.",
            body = Body,
            content_type = "application/problem+json",
            headers(("retry-after" = u32, description = "Seconds after which to repeat the request.")),
        ),
        (status = 412, description = "The list of users does not match If-Match or If-None-Match.", body = Body, content_type = "application/problem+json"),
        (status = 422, description = "The body is not valid; `errors` has every member that is wrong. Or the Idempotency-Key was used for another request.", body = Body, content_type = "application/problem+json"),
        BodyFailures,
        WriteFailures,
        Failures,
    )
)]
pub(crate) async fn create(
    request: HttpRequest,
    body: Bytes,
    mail: Data<welcome::Setting>,
    db: Data<Db>,
) -> Result<HttpResponse, Problem> {
    negotiate(&request, &[Format::Json])?;
    parameters::none(request.query_string())?;
    // The list of users exists, and has no tag of its own.
    conditions::check(&request, Some(&[]))?;
    let row = writes::new_row(Users::TABLE, &json_object(&request, &body, JSON)?)?;
    once(&request, &body, &db, async |transaction| {
        let (id, json) = writes::create::<Users>(transaction, &row).await?;
        if mail.is_sent {
            jobs::enqueue(transaction, &welcome::job(id, origin(&request))).await?;
        }
        Ok(Created { location: format!("users/{id}"), json })
    })
    .await
}

/// Changes a user.
///
/// The body is a merge patch (RFC 7396). If-Match is required, so that no change of another client is lost.
#[utoipa::path(
    patch,
    path = "/users/{id}",
    tag = "users",
    operation_id = "change_user",
    security(("token" = [])),
    params(
        ("id" = i64, Path, example = 1, description = "The user's id."),
        ("if-match" = String, Header, example = "*", pattern = r#"^(\*|(W/)?"[!#-+\--~]*"(, (W/)?"[!#-+\--~]*")*)$"#, description = "The ETag of the user that is to be changed, or *."),
    ),
    request_body(content((UserChanges = "application/merge-patch+json"), (UserChanges = "application/json"))),
    responses(
        (
            status = 200,
            description = "The user.",
            body = User,
            headers(("etag" = String, description = "For If-Match.")),
        ),
        (status = 404, description = "There is no such user.", body = Body, content_type = "application/problem+json"),
        (status = 406, description = "JSON is not acceptable.", body = Body, content_type = "application/problem+json"),
        (status = 409, description = "A value is taken.", body = Body, content_type = "application/problem+json"),
        (status = 412, description = "The user does not match If-Match.", body = Body, content_type = "application/problem+json"),
        (status = 422, description = "The body is not valid; `errors` has every member that is wrong.", body = Body, content_type = "application/problem+json"),
        (status = 428, description = "If-Match is missing.", body = Body, content_type = "application/problem+json"),
        BodyFailures,
        WriteFailures,
        Failures,
    )
)]
pub(crate) async fn change(
    request: HttpRequest,
    id: Path<String>,
    body: Bytes,
    db: Data<Db>,
) -> Result<HttpResponse, Problem> {
    negotiate(&request, &[Format::Json])?;
    parameters::none(request.query_string())?;
    let id = parameters::id(&id)?;
    let changes = writes::changes(Users::TABLE, &json_object(&request, &body, MERGE_PATCH)?)?;
    conditions::require_match(&request)?;
    let json = db.transaction(async |transaction| {
        let current = writes::read::<Users>(transaction, id).await?.ok_or_else(unknown::<Users>)?;
        conditions::check(&request, Some(&current))?;
        if changes.is_empty() {
            return Ok(current);
        }
        writes::change::<Users>(transaction, id, &changes).await?;
        writes::read::<Users>(transaction, id).await?.ok_or_else(unknown::<Users>)
    });
    json.await.map(respond_with_state)
}

/// Removes a user, and the user's friendships.
#[utoipa::path(
    delete,
    path = "/users/{id}",
    tag = "users",
    operation_id = "remove_user",
    security(("token" = [])),
    params(
        ("id" = i64, Path, example = 1, description = "The user's id."),
        ("if-match" = Option<String>, Header, pattern = r#"^(\*|(W/)?"[!#-+\--~]*"(, (W/)?"[!#-+\--~]*")*)$"#, description = "The ETag of the user that is to be removed."),
    ),
    responses(
        (status = 204, description = "The user is removed."),
        (status = 404, description = "There is no such user.", body = Body, content_type = "application/problem+json"),
        (status = 412, description = "The user does not match If-Match.", body = Body, content_type = "application/problem+json"),
        WriteFailures,
        Failures,
    )
)]
pub(crate) async fn remove(request: HttpRequest, id: Path<String>, db: Data<Db>) -> Result<HttpResponse, Problem> {
    parameters::none(request.query_string())?;
    let id = parameters::id(&id)?;
    let removed = db.transaction(async |transaction| {
        let current = writes::read::<Users>(transaction, id).await?.ok_or_else(unknown::<Users>)?;
        conditions::check(&request, Some(&current))?;
        Ok::<_, Problem>(writes::remove::<Users>(transaction, id).await?)
    });
    removed.await.map(|()| respond_without_content())
}
