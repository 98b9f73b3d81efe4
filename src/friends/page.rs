//! The page of a user and their friends.

use actix_web::{HttpRequest, HttpResponse};
use askama::Template;
use futures_util::future::try_join;

use super::{Friend, Friends, of};
use crate::db::Db;
use crate::http::{Frame, Problem, respond_with_page};
use crate::listing::pages::unknown;
use crate::listing::{Parameters, Resource as _, Unknown, View, get, view};
use crate::users::pages::Row;
use crate::users::{User, Users};

#[derive(Template)]
#[template(path = "friends.html")]
struct FriendsPage<'a> {
    frame: Frame<'a>,
    row: Row,
    view: View<FriendRow, 4>,
}

/// A friend on the page.
struct FriendRow {
    user: Row,
    /// The day.
    since: String,
}

impl FriendRow {
    fn of(friend: Friend<'_>) -> Self {
        let user = User { id: friend.id, username: friend.username, email: friend.email };
        let mut since = friend.since.to_string();
        since.truncate("2026-01-31".len());
        Self { user: Row::of(user), since }
    }
}

/// Responds with the page.
///
/// # Errors
/// 404 if there is no such user, those of the parameters and of the database.
pub(super) async fn respond(request: &HttpRequest, db: &Db, id: i64) -> Result<HttpResponse, Problem> {
    let parameters = Parameters::parse(Friends::TABLE, request.query_string(), Unknown::Ignore)?;
    let columns = [("id", "Id"), ("username", "Username"), ("email", "E-mail"), ("since", "Since")];
    let row = async { get::<Users, _>(db, id, Row::of).await?.ok_or_else(unknown::<Users>) };
    let view = view::<Friends, _, 4>(db, &parameters, Some(of(id)), columns, FriendRow::of);
    let (row, view) = try_join(row, view).await?;
    respond_with_page(request, &FriendsPage { frame: Frame::of(request), row, view })
}
