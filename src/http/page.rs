//! The page for people, rendered from a template that is compiled in; it needs no script.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use askama::Template;

use super::State;
use super::listing::{ALL, Parameters, Sort};
use super::problem::Problem;
use crate::db::users::{self, Column};

/// The rows of a page whose request names no limit.
const LIMIT: u32 = 50;

#[derive(Template)]
#[template(path = "users.html")]
struct Page {
    q: String,
    headings: [Heading; 3],
    rows: Vec<Row>,
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

/// `GET /`
pub(super) async fn users(request: HttpRequest, state: Data<State>) -> Result<HttpResponse, Problem> {
    let parameters = Parameters::parse(request.query_string(), ALL)?;
    let listing = parameters.listing(LIMIT)?;
    let mut rows = Vec::new();
    let next = users::list(&state.db, &listing, |user| {
        rows.push(Row { id: user.id, username: user.username.to_owned(), email: user.email.to_owned() });
    })
    .await?;

    let heading = |name, column| {
        let current = listing.column == column;
        let sort = Sort { column, descending: current && !listing.descending };
        // A search has the order of the column that it matches.
        let link = (current || listing.prefix.is_none()).then(|| format!("/?{}", parameters.query(Some(sort), None)));
        let order = match (current, listing.descending) {
            (false, _) => "none",
            (true, false) => "ascending",
            (true, true) => "descending",
        };
        Heading { name, link, order }
    };
    let page = Page {
        q: parameters.q.clone().unwrap_or_default(),
        headings: [heading("Id", Column::Id), heading("Username", Column::Username), heading("E-mail", Column::Email)],
        rows,
        first: listing.after.is_some().then(|| format!("/?{}", parameters.query(parameters.sort, None))),
        next: next.map(|key| format!("/?{}", parameters.query(parameters.sort, Some((listing.column, &key))))),
    };
    let html = page.render().map_err(|error| Problem::internal(&error))?;
    Ok(HttpResponse::Ok().content_type("text/html; charset=utf-8").body(html))
}
