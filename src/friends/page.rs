//! The page of a user and their friends.

use actix_web::{HttpRequest, HttpResponse};
use askama::Template;

use super::{Friend, Friends, of};
use crate::db::Db;
use crate::http::{Problem, STYLE_NAME, respond_with_page, root};
use crate::listing::{Heading, Parameters, get, headings, link, page};
use crate::users::api::unknown;
use crate::users::pages::{LIMIT, Row};
use crate::users::{User, Users};

#[derive(Template)]
#[template(path = "friends.html")]
struct FriendsPage {
    root: String,
    style: &'static str,
    user: Row,
    headings: [Heading; 4],
    friends: Vec<FriendRow>,
    first: Option<String>,
    next: Option<String>,
}

/// A friend on the page.
struct FriendRow {
    user: Row,
    since: String,
}

/// Responds with the page.
///
/// # Errors
/// 404 if there is no such user, those of the parameters and of the database.
pub(super) async fn respond(
    request: &HttpRequest,
    db: &Db,
    id: i64,
    parameters: &Parameters,
) -> Result<HttpResponse, Problem> {
    let listing = parameters.listing(Some(of(id)), LIMIT)?;
    let user = get::<Users, _>(db, id, Row::of).await?.ok_or_else(unknown)?;
    let push = |friends: &mut Vec<FriendRow>, friend: Friend<'_>| {
        let user = User { id: friend.id, username: friend.username, email: friend.email };
        friends.push(FriendRow { user: Row::of(user), since: friend.since.to_string() });
    };
    let (friends, next) = page::<Friends, _>(db, &listing, Vec::new, push).await?;
    let columns = [("id", "Id"), ("username", "Username"), ("email", "E-mail"), ("since", "Since")];
    let page = FriendsPage {
        root: root(request.path()),
        style: STYLE_NAME,
        user,
        headings: headings(parameters, &listing, columns),
        friends,
        first: listing.after.is_some().then(|| link(parameters, &listing, None)),
        next: next.map(|key| link(parameters, &listing, Some(&key))),
    };
    respond_with_page(request, &page)
}
