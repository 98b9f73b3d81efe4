//! The page of users.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use askama::Template;

use super::{User, Users};
use crate::db::Db;
use crate::http::{Frame, Problem, respond_with_page};
use crate::listing::{Parameters, Resource as _, Unknown, View, view};

#[derive(Template)]
#[template(path = "users.html")]
struct UsersPage<'a> {
    frame: Frame<'a>,
    q: String,
    view: View<Row, 3>,
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
    let columns = [("id", "Id"), ("username", "Username"), ("email", "E-mail")];
    let view = view::<Users, _, 3>(&db, &parameters, None, columns, Row::of).await?;
    let q = parameters.q.unwrap_or_default();
    respond_with_page(&request, &UsersPage { frame: Frame::of(&request), q, view })
}
