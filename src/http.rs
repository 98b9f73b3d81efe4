//! The HTTP surface: every route in one table, one file for each family of endpoints.

mod assets;
pub mod connection;
mod documentation;
mod limits;
mod metrics;
pub(crate) mod operations;
mod problem;
mod representation;
pub mod request;
mod trace;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use actix_service::ServiceFactory;
use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{Method, header};
use actix_web::middleware::from_fn;
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{App, Error, Handler, HttpRequest, HttpResponse, Resource, Responder};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::db::Db;
use crate::telemetry::DroppedLines;
pub(crate) use assets::{STYLE_NAME, root};
#[cfg(test)]
pub(crate) use documentation::API;
pub(crate) use documentation::Failures;
use metrics::Metrics;
pub(crate) use problem::Body;
pub use problem::Problem;
pub(crate) use representation::{Format, negotiate, respond_with_etag, respond_with_page};

/// What the service has to know about its application.
#[derive(Debug)]
pub struct Application {
    /// Adds its routes.
    pub routes: fn(&mut ServiceConfig),
    /// The routes that are pages for people. An error is a page there, if the client prefers HTML.
    pub pages: &'static [&'static str],
    /// The oldest schema that it can serve.
    pub required_schema: i64,
}

/// What the handlers share.
pub struct State {
    application: &'static Application,
    limits: Limits,
    release_id: Option<String>,
    exports_traces: bool,
    metrics: Metrics,
    in_flight: AtomicUsize,
    /// Requests whose responses were not sent completely.
    unfinished: AtomicUsize,
    connections: AtomicUsize,
    /// Told when the last connection ends.
    is_empty: Notify,
    is_unready: AtomicBool,
    /// Is cancelled when connections that are not used are to end.
    idle_ends: CancellationToken,
    /// Is cancelled when all others are.
    work_ends: CancellationToken,
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
    pub fn new(config: &Config, application: &'static Application, dropped_lines: &DroppedLines) -> Self {
        let limits = Limits {
            max_in_flight: config.max_in_flight.get().into(),
            request_timeout: Duration::from_millis(config.request_timeout_ms.get()),
            keep_alive: Duration::from_millis(config.keep_alive_ms.get()),
        };
        Self {
            application,
            limits,
            release_id: config.release_id.clone(),
            exports_traces: config.traces_endpoint().is_some(),
            metrics: Metrics::new(config.release_id.as_deref(), dropped_lines),
            in_flight: AtomicUsize::new(0),
            unfinished: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            is_empty: Notify::new(),
            is_unready: AtomicBool::new(false),
            idle_ends: CancellationToken::new(),
            work_ends: CancellationToken::new(),
        }
    }

    /// Makes the process unready for good, so that balancers send no more, and every answer the last of its connection.
    pub fn mark_unready(&self) {
        self.is_unready.store(true, Ordering::Relaxed);
    }

    /// Ends the connections that no request is at work on, and each other one behind its request.
    pub fn end_idle_connections(&self) {
        self.idle_ends.cancel();
    }

    /// Waits until there is no connection left.
    pub async fn without_connections(&self) {
        let is_empty = self.is_empty.notified();
        if self.connections.load(Ordering::Acquire) > 0 {
            is_empty.await;
        }
    }

    /// Cuts off every connection, and counts the requests at work.
    pub fn cut_off(&self) -> usize {
        let cut = self.unfinished.load(Ordering::Relaxed);
        self.work_ends.cancel();
        cut
    }

    fn is_unready(&self) -> bool {
        self.is_unready.load(Ordering::Relaxed)
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

/// The routes of the service, after those of the application.
fn routes(config: &mut ServiceConfig, state: Data<State>, db: Db) {
    let application = state.application.routes;
    config
        .app_data(state)
        .app_data(Data::new(db))
        .configure(application)
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
pub(crate) fn get<F, Args>(path: &str, handler: F) -> Resource
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
