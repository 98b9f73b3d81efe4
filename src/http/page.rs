//! The pages for people, rendered from templates that are compiled in; they need no script.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use askama::Template;

use super::assets::{STYLE_NAME, root};
use super::listing::{ALL, Parameters, Sort, Unknown};
use super::problem::Problem;
use super::representation::{self, Format};
use crate::db::users::{self, Column, Key, User};
use crate::db::{Db, friends};

/// The rows of a page whose request names no limit.
const LIMIT: u32 = 50;

#[derive(Template)]
#[template(path = "users.html")]
struct UsersPage {
    root: String,
    style: &'static str,
    q: String,
    headings: [Heading; 3],
    rows: Vec<Row>,
    first: Option<String>,
    next: Option<String>,
}

#[derive(Template)]
#[template(path = "friends.html")]
struct FriendsPage {
    root: String,
    style: &'static str,
    user: Row,
    friends: Vec<Row>,
    first: Option<String>,
    next: Option<String>,
}

/// A column's head: where a click leads, and how the rows are ordered by it now (ARIA's `aria-sort`).
struct Heading {
    name: &'static str,
    link: Option<String>,
    order: &'static str,
}

struct Row {
    id: i64,
    username: String,
    email: String,
}

impl Row {
    fn of(user: User<'_>) -> Self {
        Self { id: user.id, username: user.username.to_owned(), email: user.email.to_owned() }
    }
}

/// `GET /`
pub(super) async fn users(request: HttpRequest, db: Data<Db>) -> Result<HttpResponse, Problem> {
    let parameters = Parameters::parse(request.query_string(), ALL, Unknown::Ignore)?;
    let listing = parameters.listing(LIMIT)?;
    let mut rows = Vec::new();
    let next = users::list(&db, &listing, &mut |user| rows.push(Row::of(user))).await?;

    let heading = |name, column| {
        let current = listing.column == column;
        let sort = Sort { column, descending: current && !listing.descending };
        // A search has the order of the column that it matches.
        let link = (current || listing.prefix.is_none()).then(|| format!("?{}", parameters.query(Some(sort), None)));
        let order = match (current, listing.descending) {
            (false, _) => "none",
            (true, false) => "ascending",
            (true, true) => "descending",
        };
        Heading { name, link, order }
    };
    let page = UsersPage {
        root: root(request.path()),
        style: STYLE_NAME,
        q: parameters.q.clone().unwrap_or_default(),
        headings: [heading("Id", Column::Id), heading("Username", Column::Username), heading("E-mail", Column::Email)],
        rows,
        first: listing.after.is_some().then(|| format!("?{}", parameters.query(parameters.sort, None))),
        next: next.map(|key| format!("?{}", parameters.query(parameters.sort, Some((listing.column, &key))))),
    };
    respond(&request, &page)
}

/// One user with their friends, by ascending id.
pub(super) async fn friends(
    request: &HttpRequest,
    db: &Db,
    id: i64,
    parameters: &Parameters,
) -> Result<HttpResponse, Problem> {
    let after = parameters.after_id()?;
    let user = users::get(db, id, Row::of).await?.ok_or_else(|| Problem::not_found("there is no user with this id"))?;
    let mut rows = Vec::new();
    let limit = parameters.limit.unwrap_or(LIMIT);
    let next = friends::list(db, id, after, limit, &mut |friend| rows.push(Row::of(friend))).await?;
    let link = |after: Option<i64>| {
        let after = after.map(Key::Id);
        format!("?{}", parameters.query(None, after.as_ref().map(|key| (Column::Id, key))))
    };
    let page = FriendsPage {
        root: root(request.path()),
        style: STYLE_NAME,
        user,
        friends: rows,
        first: after.is_some().then(|| link(None)),
        next: next.map(|id| link(Some(id))),
    };
    respond(request, &page)
}

/// Renders a page.
pub(super) fn respond(request: &HttpRequest, page: &impl Template) -> Result<HttpResponse, Problem> {
    let html = page.render().map_err(|error| Problem::internal(&error))?;
    representation::respond_with_etag(request, Format::Html, html.into_bytes(), None)
}
