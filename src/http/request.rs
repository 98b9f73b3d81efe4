//! What surrounds every request: its id, its line in the log, and the shape of its errors.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{Error, HttpResponse};
use futures_util::FutureExt as _;
use tracing::Instrument as _;

use super::problem::Problem;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest URI, in bytes; RFC 9110, section 4.1, asks for 8000 at least.
const URI_MAX: usize = 8 * 1024;

/// Wraps the service of every request.
///
/// # Errors
/// A panic of the service, as an error that is already a full response: the request that a middleware
/// needs for any other answer went down with it.
pub async fn scope(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let mut entry = Entry::of(&request);
    if request.uri().path_and_query().map_or(0, |uri| uri.as_str().len()) > URI_MAX {
        let response = entry.refuse(None, &Problem::uri_too_long(URI_MAX));
        return Ok(request.into_response(response));
    }
    // At the level of an error, so that no filter takes the id from the lines of the request.
    let span = tracing::error_span!("request", request_id = entry.id.as_str());
    let served = AssertUnwindSafe(next.call(request).instrument(span)).catch_unwind().await;
    match served {
        Ok(Ok(response)) => {
            let (request, response) = response.into_parts();
            let route = request.match_pattern();
            let response = match response.error().map(Problem::of) {
                Some(problem) => entry.refuse(route.as_deref(), &problem),
                None => entry.answer(route.as_deref(), response.map_into_boxed_body(), None),
            };
            Ok(ServiceResponse::new(request, response))
        }
        Ok(Err(error)) => {
            let response = entry.refuse(None, &Problem::of(&error));
            Err(InternalError::from_response(error, response).into())
        }
        Err(_) => {
            let response = entry.refuse(None, &Problem::internal(&"a panic, logged where it happened"));
            Err(InternalError::from_response("panic", response).into())
        }
    }
}

/// One request on its way to its line in the log. Dropped without an answer, its client has gone.
struct Entry {
    id: String,
    method: Method,
    as_page: bool,
    started: Instant,
    answered: bool,
}

impl Entry {
    fn of(request: &ServiceRequest) -> Self {
        let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        let id = header(REQUEST_ID).filter(|id| is_id(id)).map_or_else(new_id, str::to_owned);
        let as_page =
            request.path() == "/" && header(header::ACCEPT).is_some_and(|accept| accept.contains("text/html"));
        Self { id, method: request.method().clone(), as_page, started: Instant::now(), answered: false }
    }

    fn refuse(&mut self, route: Option<&str>, problem: &Problem) -> HttpResponse {
        let response = problem.render(&self.id, self.as_page);
        self.answer(route, response, problem.cause())
    }

    fn answer(&mut self, route: Option<&str>, mut response: HttpResponse, cause: Option<&str>) -> HttpResponse {
        self.log(route, response.status(), cause);
        let headers = response.headers_mut();
        if let Ok(id) = HeaderValue::from_str(&self.id) {
            headers.insert(REQUEST_ID, id);
        }
        for (name, value) in SECURITY {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }

    /// One line a request. Its route is a template and never the path, which may hold anything.
    fn log(&mut self, route: Option<&str>, status: StatusCode, cause: Option<&str>) {
        /// The level of an event is part of its call site.
        macro_rules! event {
            ($level:ident) => {
                tracing::event!(
                    tracing::Level::$level,
                    request_id = self.id.as_str(),
                    method = self.method.as_str(),
                    route = route.unwrap_or("none"),
                    status = status.as_u16(),
                    duration_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX),
                    cause,
                    "request"
                )
            };
        }
        self.answered = true;
        match status {
            StatusCode::SERVICE_UNAVAILABLE => event!(WARN),
            status if status.is_server_error() => event!(ERROR),
            _ => event!(INFO),
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if !self.answered {
            // nginx's number for it; there is no status, because there is no answer.
            let status = StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST);
            self.log(None, status, Some("the client hung up"));
        }
    }
}

/// What OWASP's secure-headers project recommends for answers that load nothing from elsewhere.
const SECURITY: [(HeaderName, &str); 3] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
];

/// Whether a client's own id can be repeated in a header and in a line of the log.
fn is_id(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn new_id() -> String {
    format!("{:032x}", fastrand::u128(..))
}

#[cfg(test)]
mod tests {
    use actix_web::middleware::from_fn;
    use actix_web::test::{TestRequest, call_service, init_service, read_body};
    use actix_web::{App, web};

    use super::*;

    #[test]
    fn a_panic_is_one_problem_and_the_next_request_is_served() {
        async fn handler(request: actix_web::HttpRequest) -> &'static str {
            assert!(request.query_string().is_empty(), "a canary in a panic");
            "well"
        }
        actix_web::rt::System::new().block_on(async {
            let app = App::new().route("/", web::get().to(handler)).wrap(from_fn(scope));
            let app = init_service(app).await;
            let panicking = TestRequest::get().uri("/?panic").insert_header(("x-request-id", "one")).to_request();
            // The test service hands over as an error what a server would send.
            let error = actix_web::dev::Service::call(&app, panicking).await.expect_err("a panic");
            let response = error.error_response();
            assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
            assert_eq!(response.headers().get("x-request-id"), Some(&HeaderValue::from_static("one")));
            assert!(response.headers().contains_key(header::X_CONTENT_TYPE_OPTIONS));
            let body = response.into_body().try_into_bytes().expect("it is complete");
            let problem: serde_json::Value = serde_json::from_slice(&body).expect("it is JSON");
            assert_eq!((&problem["status"], &problem["instance"]), (&500.into(), &"one".into()));
            assert!(!problem.to_string().contains("canary"));

            let next = call_service(&app, TestRequest::get().uri("/").to_request()).await;
            assert_eq!(read_body(next).await, "well");
        });
    }
}
