//! The page of users.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use askama::Template;

use super::{User, Users};
use crate::db::Db;
use crate::http::{Problem, STYLE_NAME, respond_with_page, root};
use crate::listing::{Heading, Parameters, Resource as _, Unknown, headings, link, page};

/// The rows of a page whose request has no limit.
pub(crate) const LIMIT: u32 = 50;

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

/// A user on a page.
pub(crate) struct Row {
    pub(crate) id: i64,
    pub(crate) username: String,
    pub(crate) email: String,
}

impl Row {
    pub(crate) fn of(user: User<'_>) -> Self {
        Self { id: user.id, username: user.username.to_owned(), email: user.email.to_owned() }
    }
}

/// `GET /`
pub(crate) async fn list(request: HttpRequest, db: Data<Db>) -> Result<HttpResponse, Problem> {
    let parameters = Parameters::parse(Users::TABLE, request.query_string(), Unknown::Ignore)?;
    let listing = parameters.listing(None, LIMIT)?;
    let (rows, next) = page::<Users, _>(&db, &listing, Vec::new, |rows, user| rows.push(Row::of(user))).await?;
    let columns = [("id", "Id"), ("username", "Username"), ("email", "E-mail")];
    let page = UsersPage {
        root: root(request.path()),
        style: STYLE_NAME,
        q: parameters.q.clone().unwrap_or_default(),
        headings: headings(&parameters, &listing, columns),
        rows,
        first: listing.after.is_some().then(|| link(&parameters, &listing, None)),
        next: next.map(|key| link(&parameters, &listing, Some(&key))),
    };
    respond_with_page(&request, &page)
}
