//! The HTTP surface: the routes, and what surrounds the handler of each.

mod application;
mod assets;
pub mod conditions;
pub mod documentation;
mod idempotency;
mod json_object;
mod limits;
mod metrics;
pub(crate) mod middleware;
pub(crate) mod operations;
pub(crate) mod problem;
mod representation;
mod route;
mod state;

use actix_service::ServiceFactory;
use actix_web::body::BoxBody;
use actix_web::dev::{AppService, HttpServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::http::{Method, header};
use actix_web::middleware::from_fn;
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{App, Error, FromRequest, Handler, HttpRequest, HttpResponse, Responder};

use crate::db::Db;
pub use application::{Application, BackingService, Unready};
pub use assets::Frame;
#[cfg(test)]
pub(crate) use documentation::API;
pub use documentation::{BodyFailures, Failures, WriteFailures};
pub use idempotency::{Created, once, remove_expired_keys};
pub use json_object::{JSON, MERGE_PATCH, Members, json_object};
pub use middleware::origin;
pub use problem::{Body, Fault, Problem};
pub use representation::{
    Format, negotiate, negotiated, respond_with_etag, respond_with_page, respond_with_state, respond_without_content,
};
use route::{Methods, Route};
pub use state::State;

/// The service of one worker: the routes of the application and the operational ones, with the worker's share of the
/// database connections.
pub fn app(
    state: Data<State>,
    db: Db,
) -> App<
    impl ServiceFactory<ServiceRequest, Config = (), Response = ServiceResponse<BoxBody>, Error = Error, InitError = ()>,
> {
    let application = state.application.clone();
    let unmatched = Route { has_page: true, ..Route::default() };
    let unmatched = from_fn(move |request, next| middleware::serve(unmatched, request, next));
    App::new()
        .app_data(state)
        .app_data(Data::new(db))
        .configure(|config| (application.routes)(config))
        .configure(operations)
        .default_service(web::to(nothing).wrap(unmatched))
}

/// The operational routes.
fn operations(config: &mut ServiceConfig) {
    config
        .service(at("/livez").get(operations::livez))
        .service(at("/readyz").get(operations::readyz))
        .service(at("/metrics").get(operations::metrics))
        .service(at("/version").get(operations::version))
        .service(at("/style-{hash}.css").get(assets::style))
        .service(at("/docs-{hash}.css").get(assets::docs_style))
        .service(at("/favicon.ico").get(assets::icon));
}

/// Any other path. `OPTIONS *` is about the whole server (RFC 9110, section 9.3.7).
async fn nothing(request: HttpRequest) -> Result<HttpResponse, Problem> {
    if request.method() == Method::OPTIONS && request.uri() == "*" {
        return Ok(HttpResponse::NoContent().insert_header((header::ALLOW, Methods::ALL.to_string())).finish());
    }
    Err(Problem::not_found("there is nothing here"))
}

/// A resource whose paths have this pattern, without methods yet. A method that it does not have is 405.
#[must_use]
pub fn at(pattern: &'static str) -> Endpoint {
    let route = Route { pattern: Some(pattern), ..Route::default() };
    Endpoint { route, resource: web::resource(pattern) }
}

/// A resource, with the handlers of its methods.
pub struct Endpoint {
    route: Route,
    resource: actix_web::Resource,
}

impl Endpoint {
    /// Its representations include a page: browsers receive its errors as a page, too.
    #[must_use]
    pub fn with_page(mut self) -> Self {
        self.route.has_page = true;
        self
    }

    /// Also HEAD: the server omits the body of its response.
    #[must_use]
    pub fn get<F: Handler<Args, Output: Responder + 'static>, Args: FromRequest + 'static>(self, handler: F) -> Self {
        self.on(Method::GET, handler.clone()).on(Method::HEAD, handler)
    }

    /// The handler of another method.
    #[must_use]
    pub fn on<F: Handler<Args, Output: Responder + 'static>, Args: FromRequest + 'static>(
        mut self,
        method: Method,
        handler: F,
    ) -> Self {
        self.route.methods.insert(&method);
        Self { resource: self.resource.route(web::method(method).to(handler)), ..self }
    }
}

impl HttpServiceFactory for Endpoint {
    fn register(self, config: &mut AppService) {
        let route = self.route;
        let served = from_fn(move |request, next| middleware::serve(route, request, next));
        self.resource.wrap(served).register(config);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use actix_web::App;
    use actix_web::body::MessageBody as _;
    use actix_web::http::StatusCode;
    use actix_web::http::header::HeaderValue;
    use actix_web::test::{TestRequest, call_service, init_service, read_body};
    use actix_web::web::Data;

    use super::{Application, State, at};
    use crate::config::{Config, UNUSED_URLS};

    #[test]
    fn a_panic_is_one_problem_and_the_next_request_is_served() {
        async fn handler(request: actix_web::HttpRequest) -> &'static str {
            assert!(request.query_string().is_empty(), "a canary in a panic");
            "well"
        }
        actix_web::rt::System::new().block_on(async {
            // The test does not use the database.
            let url = ("DATABASE_URL".to_owned(), UNUSED_URLS[0].to_owned());
            let config = Config::from_vars([url]).expect("it is complete");
            let application = Application { routes: Box::new(|_| {}), required_schema: 0, services: Vec::new() };
            let state = Data::new(State::new(&config, application.into(), Arc::default(), Vec::new()));
            let app = App::new().app_data(state).service(at("/").get(handler));
            let app = init_service(app).await;
            let panicking = TestRequest::get().uri("/?panic").insert_header(("x-request-id", "one")).to_request();
            // The test service returns the response as an error, which a server would send.
            let error = actix_web::dev::Service::call(&app, panicking).await.expect_err("a panic");
            let response = error.error_response();
            assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
            assert_eq!(response.headers().get("x-request-id"), Some(&HeaderValue::from_static("one")));
            let body = response.into_body().try_into_bytes().expect("it is complete");
            let problem: serde_json::Value = serde_json::from_slice(&body).expect("it is JSON");
            assert_eq!((&problem["status"], &problem["instance"]), (&500.into(), &"one".into()));
            assert!(!problem.to_string().contains("canary"));

            let next = call_service(&app, TestRequest::get().uri("/").to_request()).await;
            assert_eq!(read_body(next).await, "well");
        });
    }
}
