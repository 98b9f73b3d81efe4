//! The handlers for operators: liveness, readiness, metrics and version.

use actix_web::http::header::{self, HeaderValue};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use utoipa::ToSchema;

use super::application::Unready;
use super::documentation::Failures;
use super::metrics::Exposition;
use super::problem::Problem;
use super::representation::prefers;
use super::state::State;
use crate::db::{self, Db};

/// Liveness probe: always 200.
///
/// It does not depend on the database, because a restart of this process would not end an outage of the database.
#[utoipa::path(
    get,
    path = "/livez",
    tag = "service",
    responses((status = 200, description = "The process is running.", body = String, content_type = "text/plain", example = "alive\n"), Failures)
)]
pub(crate) async fn livez() -> HttpResponse {
    text("alive\n")
}

/// Readiness probe: whether a load balancer may send requests to this process.
///
/// A 503 has the reason.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "service",
    responses((status = 200, description = "The process is ready.", body = String, content_type = "text/plain", example = "ready\n"), Failures)
)]
pub(crate) async fn readyz(state: Data<State>, db: Data<Db>) -> Result<HttpResponse, Problem> {
    if state.lifecycle.is_unready() {
        return Err(Problem::unavailable("stopping: this process accepts no new requests", &"stopping"));
    }
    state.application.ready(&db).await.map_err(|unready| match &unready {
        Unready::Database(db::Unready::Database(_)) => Problem::unavailable("database: it does not respond", &unready),
        Unready::Database(db::Unready::Schema { .. }) => {
            Problem::unavailable("schema: it is older than this release; run `migrate up`", &unready)
        }
        Unready::Service { name, .. } => Problem::unavailable(format!("{name}: the check failed"), &unready),
    })?;
    Ok(text("ready\n"))
}

/// Metrics for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "service",
    responses(
        (
            status = 200,
            description = "The metrics, in the text format of Prometheus, or in that of OpenMetrics 1.0.",
            content(
                (
                    String = "text/plain",
                    example = json!("# TYPE http_server_active_requests gauge\nhttp_server_active_requests 0\n"),
                ),
                (String = "application/openmetrics-text"),
            ),
        ),
        Failures,
    )
)]
pub(crate) async fn metrics(request: HttpRequest, state: Data<State>) -> Result<HttpResponse, Problem> {
    let is_open = prefers(request.headers(), "application/openmetrics-text", &["text/plain"]);
    let format = if is_open { Exposition::OpenMetrics } else { Exposition::Text };
    let in_flight = state.lifecycle.in_flight();
    let text = state.metrics.render(in_flight, format).map_err(|error| Problem::internal(&error))?;
    Ok(HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, HeaderValue::from_static("no-store")))
        .insert_header((header::VARY, HeaderValue::from_static("accept")))
        .content_type(format.content_type())
        .body(text))
}

/// The version of a process.
#[derive(Serialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "they are the answer's members")]
pub(crate) struct Version<'a> {
    /// The package's version.
    #[schema(example = "0.1.0")]
    version: &'a str,
    /// The git commit that it was built from.
    #[schema(example = "9d4f6b1c0e5a7f3821d6c4b09e8a7f5d3c2b1a09")]
    commit: &'a str,
    /// The release, if `RELEASE_ID` is set.
    #[schema(example = "v7")]
    release_id: Option<&'a str>,
}

/// The version, the commit and the release of this process.
#[utoipa::path(get, path = "/version", tag = "service", responses((status = 200, description = "The version.", body = Version), Failures))]
pub(crate) async fn version(state: Data<State>) -> HttpResponse {
    HttpResponse::Ok().insert_header((header::CACHE_CONTROL, HeaderValue::from_static("no-store"))).json(Version {
        version: env!("CARGO_PKG_VERSION"),
        commit: env!("ROSTER_COMMIT"),
        release_id: state.release_id.as_deref(),
    })
}

fn text(body: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, HeaderValue::from_static("no-store")))
        .content_type("text/plain; charset=utf-8")
        .body(body)
}
