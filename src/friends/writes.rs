//! Beginning and ending a friendship, which both users have.

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};

use crate::db::{Db, Select, Sql, Transaction};
use crate::http::{Body, Failures, Problem, WriteFailures, conditions, respond_without_content};
use crate::listing::pages::unknown;
use crate::listing::parameters;
use crate::users::Users;

/// Makes two users friends of each other. If they are already, nothing changes.
#[utoipa::path(
    put,
    path = "/users/{id}/friends/{friend_id}",
    tag = "friends",
    operation_id = "add_friend",
    security(("token" = [])),
    params(
        ("id" = i64, Path, example = 1, description = "The user's id."),
        ("friend_id" = i64, Path, example = 2, description = "The id of the friend."),
        ("if-none-match" = Option<String>, Header, pattern = r#"^(\*|(W/)?"[!#-+\--~]*"(, (W/)?"[!#-+\--~]*")*)$"#, description = "* if they must not be friends yet."),
    ),
    responses(
        (status = 204, description = "They are friends."),
        (status = 404, description = "There is no such user.", body = Body, content_type = "application/problem+json"),
        (status = 409, description = "Both ids are the same.", body = Body, content_type = "application/problem+json"),
        (status = 412, description = "They are friends already, and If-None-Match is `*`.", body = Body, content_type = "application/problem+json"),
        WriteFailures,
        Failures,
    )
)]
pub(crate) async fn add(
    request: HttpRequest,
    ids: Path<(String, String)>,
    db: Data<Db>,
) -> Result<HttpResponse, Problem> {
    parameters::none(request.query_string())?;
    let (one, other) = parse_ids(&ids)?;
    if one == other {
        return Err(Problem::conflict("id and friend_id are the same", Vec::new()));
    }
    let mut insert = Sql::new("INSERT INTO friends (user_id, friend_id) VALUES (");
    insert.bind(one).push(", ").bind(other).push("), (").bind(other).push(", ").bind(one).push(")");
    let added = db.transaction(async |transaction| {
        lock_users(transaction, one, other).await?;
        check_conditions(&request, transaction, one, other).await?;
        Ok::<_, Problem>(transaction.insert_missing(&insert, "user_id").await?)
    });
    added.await.map(|()| respond_without_content())
}

/// Ends a friendship. If there is none, nothing changes.
#[utoipa::path(
    delete,
    path = "/users/{id}/friends/{friend_id}",
    tag = "friends",
    operation_id = "remove_friend",
    security(("token" = [])),
    params(
        ("id" = i64, Path, example = 1, description = "The user's id."),
        ("friend_id" = i64, Path, example = 2, description = "The id of the friend."),
    ),
    responses(
        (status = 204, description = "They are not friends."),
        (status = 404, description = "There is no such user.", body = Body, content_type = "application/problem+json"),
        (status = 412, description = "If-Match or If-None-Match is not met.", body = Body, content_type = "application/problem+json"),
        WriteFailures,
        Failures,
    )
)]
pub(crate) async fn remove(
    request: HttpRequest,
    ids: Path<(String, String)>,
    db: Data<Db>,
) -> Result<HttpResponse, Problem> {
    parameters::none(request.query_string())?;
    let (one, other) = parse_ids(&ids)?;
    let mut delete = Sql::new("DELETE FROM friends WHERE user_id = ");
    delete.bind(one).push(" AND friend_id = ").bind(other);
    delete.push(" OR user_id = ").bind(other).push(" AND friend_id = ").bind(one);
    let removed = db.transaction(async |transaction| {
        lock_users(transaction, one, other).await?;
        check_conditions(&request, transaction, one, other).await?;
        Ok::<_, Problem>(transaction.execute(&delete).await.map(drop)?)
    });
    removed.await.map(|()| respond_without_content())
}

/// Locks both users, in the order of their ids. So no other request changes the friendship before the transaction ends:
/// PostgreSQL would let one insert a row of a friendship whose other row it does not insert, because that row is being
/// deleted. The fixed order prevents deadlocks.
///
/// # Errors
/// 404, if one of them does not exist.
async fn lock_users(transaction: &mut Transaction<'_>, one: i64, other: i64) -> Result<(), Problem> {
    let mut select = Select::of(["id"].into_iter(), "users");
    select.push(" WHERE id IN (").bind(one).push(", ").bind(other).push(") ORDER BY id");
    let found = transaction.fetch_locked(&select, 0, |found, _| {
        *found += 1;
        Ok(())
    });
    let expected = if one == other { 1 } else { 2 };
    if found.await? == expected { Ok(()) } else { Err(unknown::<Users>()) }
}

/// Checks the conditions of a request. A friendship has no representation, so it either exists or does not.
async fn check_conditions(
    request: &HttpRequest,
    transaction: &mut Transaction<'_>,
    one: i64,
    other: i64,
) -> Result<(), Problem> {
    if !conditions::is_conditional(request) {
        return Ok(());
    }
    let mut select = Select::of(["since"].into_iter(), "friends");
    select.push(" WHERE user_id = ").bind(one).push(" AND friend_id = ").bind(other);
    let found = transaction.fetch_locked(&select, false, |found, _| {
        *found = true;
        Ok(())
    });
    conditions::check(request, found.await?.then_some(&[]))
}

fn parse_ids((one, other): &(String, String)) -> Result<(i64, i64), Problem> {
    Ok((parameters::id(one)?, parameters::id_of("friend_id", other)?))
}
