//! The HTTP surface: every route in one table, one file for each family of endpoints.

mod assets;
pub mod connection;
pub mod cursor;
mod documentation;
mod limits;
pub(crate) mod listing;
mod metrics;
mod operations;
mod page;
mod problem;
pub mod representation;
pub mod request;
mod stream;
mod trace;
mod users;

use std::sync::Arc;
use std::time::Duration;

use actix_service::ServiceFactory;
use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{Method, header};
use actix_web::middleware::from_fn;
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{App, Error, Handler, HttpRequest, HttpResponse, Resource, Responder};

use crate::config::Config;
use crate::db::Db;
use crate::lifecycle::Lifecycle;
use crate::telemetry::DroppedLines;
use metrics::Metrics;
use problem::Problem;

/// What the handlers share.
pub struct State {
    limits: Limits,
    release_id: Option<String>,
    exports_traces: bool,
    metrics: Metrics,
    lifecycle: Arc<Lifecycle>,
}

/// What the requests of one process may cost.
struct Limits {
    /// Requests at work at once.
    max_in_flight: usize,
    /// The longest time for a whole request, and for a client to send or take the next part of one.
    request_timeout: Duration,
    /// How long a connection may be idle.
    keep_alive: Duration,
}

impl Limits {
    /// The shorter of the two time limits.
    fn shortest(&self) -> Duration {
        self.request_timeout.min(self.keep_alive)
    }
}

impl State {
    /// The state of a process.
    #[must_use]
    pub fn new(config: &Config, lifecycle: Arc<Lifecycle>, dropped_lines: &DroppedLines) -> Self {
        let limits = Limits {
            max_in_flight: config.max_in_flight.get().into(),
            request_timeout: Duration::from_millis(config.request_timeout_ms.get()),
            keep_alive: Duration::from_millis(config.keep_alive_ms.get()),
        };
        Self {
            limits,
            release_id: config.release_id.clone(),
            exports_traces: config.traces_endpoint().is_some(),
            metrics: Metrics::new(config.release_id.as_deref(), dropped_lines),
            lifecycle,
        }
    }
}

/// The application, for one worker and its share of the database's connections.
pub fn app(
    state: Data<State>,
    db: Db,
) -> App<
    impl ServiceFactory<ServiceRequest, Config = (), Response = ServiceResponse<BoxBody>, Error = Error, InitError = ()>,
> {
    App::new().configure(move |config| routes(config, state, db)).wrap(from_fn(request::scope))
}

/// The route table.
fn routes(config: &mut ServiceConfig, state: Data<State>, db: Db) {
    config
        .app_data(state)
        .app_data(Data::new(db))
        .service(get("/", page::users))
        .service(get("/users", users::list))
        .service(get("/users.ndjson", users::ndjson))
        .service(get("/users.csv", users::csv))
        .service(get("/users/{id}", users::get))
        .service(get("/users/{id}/friends", users::friends))
        .service(get("/livez", operations::livez))
        .service(get("/readyz", operations::readyz))
        .service(get("/metrics", operations::metrics))
        .service(get("/version", operations::version))
        .service(get("/openapi.json", documentation::openapi))
        .service(get("/docs", documentation::page))
        .service(get("/style-{hash}.css", assets::style))
        .default_service(web::to(default));
}

/// Any other path. `OPTIONS *` is about the whole server (RFC 9110, section 9.3.7).
async fn default(request: HttpRequest) -> Result<HttpResponse, Problem> {
    if request.method() == Method::OPTIONS && request.uri() == "*" {
        return Ok(HttpResponse::NoContent().insert_header((header::ALLOW, "GET, HEAD")).finish());
    }
    Err(Problem::not_found("there is nothing here"))
}

/// A resource that can be read, by GET or HEAD, and refuses every other method.
fn get<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: actix_web::FromRequest + 'static,
    F::Output: Responder + 'static,
{
    web::resource(path)
        .route(web::get().to(handler.clone()))
        // The server leaves the body of an answer to HEAD out by itself.
        .route(web::method(Method::HEAD).to(handler))
        .default_service(web::to(|| async { Err::<HttpResponse, _>(Problem::method_not_allowed()) }))
}
