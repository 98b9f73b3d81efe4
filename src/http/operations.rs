//! What operators and their machines ask: is it alive, is it ready, what is it.

use actix_web::HttpResponse;
use actix_web::http::header::{self, HeaderValue};
use actix_web::web::Data;
use serde_json::json;

use super::State;
use super::problem::Problem;
use crate::db::Unready;

/// `GET /livez`: that it answers is the answer. It never asks the database, whose outage no restart of
/// this process would end.
pub(super) async fn livez() -> HttpResponse {
    text("alive\n")
}

/// `GET /readyz`: whether a balancer may send requests here.
pub(super) async fn readyz(state: Data<State>) -> Result<HttpResponse, Problem> {
    if state.is_stopping() {
        return Err(Problem::unavailable(
            "stopping: this process finishes what it has and takes nothing new",
            &"stopping",
        ));
    }
    state.db.ready().await.map_err(|unready| match unready {
        Unready::Database(_) => Problem::unavailable("database: it does not answer", &unready),
        Unready::Schema { .. } => {
            Problem::unavailable("schema: it is older than this release; run `migrate up`", &unready)
        }
    })?;
    Ok(text("ready\n"))
}

/// `GET /version`: what this process runs.
pub(super) async fn version(state: Data<State>) -> HttpResponse {
    HttpResponse::Ok().json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "commit": env!("ROSTER_COMMIT"),
        "release_id": state.release_id,
    }))
}

fn text(body: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, HeaderValue::from_static("no-store")))
        .content_type("text/plain; charset=utf-8")
        .body(body)
}
