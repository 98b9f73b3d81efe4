//! What surrounds every request: its id and trace, its limits, its line in the log, and the shape of its errors.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::Instant;

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{ConnectionType, Method, StatusCode, Version};
use actix_web::middleware::Next;
use actix_web::web::{BytesMut, Data};
use actix_web::{Error, HttpMessage as _, HttpResponse};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::timeout_at;
use tracing::Instrument as _;

use super::State;
use super::assets;
use super::connection::Connection;
use super::limits::{BODY_MAX, URI_MAX};
use super::problem::Problem;
use super::representation::prefers_page;
use super::trace::{TRACEPARENT, Trace};
use crate::lifecycle::RequestGuard;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Who asks these must have an answer above all when the process is full.
const ALWAYS_SERVED: [&str; 3] = ["/livez", "/readyz", "/metrics"];

/// Wraps the service of every request.
///
/// # Errors
/// A panic of the service or its time-out, as an error that is already a full response: the request that
/// a middleware needs for any other answer went down with it.
pub async fn scope(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let mut context = RequestContext::of(&request);
    let has_body = !matches!(request.parts_mut().1, Payload::None);
    if let Err(problem) = context.admit(&mut request).await {
        // The body is not read, so the response announces that the connection is closed.
        context.is_last = has_body;
        let response = context.reject(&problem);
        return Ok(request.into_response(response));
    }
    let served = AssertUnwindSafe(next.call(request).instrument(context.trace.span.clone())).catch_unwind();
    match timeout_at(context.deadline().into(), served).await {
        Ok(Ok(Ok(response))) => {
            let (request, response) = response.into_parts();
            let response = match response.error().map(Problem::of) {
                Some(problem) => context.reject(&problem),
                None => context.answer(response.map_into_boxed_body()),
            };
            Ok(ServiceResponse::new(request, response))
        }
        Ok(Ok(Err(error))) => Err(context.fail(&Problem::of(&error))),
        Ok(Err(_)) => Err(context.fail(&Problem::internal(&"a panic, logged where it happened"))),
        Err(_) => {
            let limit = context.state.limits.request_timeout;
            Err(context.fail(&Problem::too_slow(limit)))
        }
    }
}

/// The response to a request that is not passed to the application.
pub(super) fn reject(state: &Data<State>, connection: &Rc<Connection>, problem: &Problem) -> HttpResponse {
    let mut context = RequestContext::unknown(state);
    context.connection = Some(connection.clone());
    context.reject(problem)
}

/// Logs and counts a response to bytes that are not a request.
pub(super) fn log_rejected(state: &Data<State>, status: StatusCode) {
    RequestContext::unknown(state).outcome = Some((status, None));
}

/// A request from its head to the last byte of its response. Its line in the log is written when it is dropped.
pub(super) struct RequestContext {
    state: Data<State>,
    /// None in a test without a server, and for bytes that are not a request.
    connection: Option<Rc<Connection>>,
    id: String,
    trace: Trace,
    method: &'static str,
    /// A template and never the path, which may hold anything.
    route: Option<String>,
    /// The root of the links on an error page, if the client is a browser.
    page_root: Option<String>,
    started: Instant,
    guard: RequestGuard,
    /// Whether the connection ends with its response.
    is_last: bool,
    /// The status of the response and the cause of an error, once they are known.
    outcome: Option<(StatusCode, Option<String>)>,
    /// Why the client did not receive the whole response.
    aborted: Option<&'static str>,
    /// Bytes of the body of the response that hyper has read.
    pub(super) bytes: u64,
    /// Whether only the end of the connection ends the body of the response, as of a stream over HTTP/1.0.
    pub(super) is_close_delimited: bool,
}

impl RequestContext {
    fn of(request: &ServiceRequest) -> Self {
        let state = request.app_data::<Data<State>>().expect("the route table has the state");
        // A path that is too long is not worth matching.
        let route = if is_too_long(request) { None } else { request.match_pattern() };
        let mut context = Self::new(state, request.headers(), name(request.method()), route, request.path());
        context.connection = request.extensions_mut().remove();
        context.is_close_delimited = request.version() < Version::HTTP_11;
        context
    }

    /// A request of which nothing is known.
    fn unknown(state: &Data<State>) -> Self {
        Self::new(state, &HeaderMap::new(), "none", None, "")
    }

    fn new(state: &Data<State>, headers: &HeaderMap, method: &'static str, route: Option<String>, path: &str) -> Self {
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let id = header(REQUEST_ID).filter(|id| is_id(id)).map_or_else(new_id, str::to_owned);
        let trace = Trace::enter(headers, &id, state.exports_traces);
        let is_page = matches!(route.as_deref(), None | Some("/" | "/users/{id}/friends"));
        let as_page = is_page && prefers_page(headers);
        Self {
            state: state.clone(),
            connection: None,
            id,
            trace,
            method,
            route,
            page_root: as_page.then(|| assets::root(path)),
            started: Instant::now(),
            guard: state.lifecycle.request(),
            is_last: false,
            outcome: None,
            aborted: None,
            bytes: 0,
            is_close_delimited: false,
        }
    }

    fn deadline(&self) -> Instant {
        self.started + self.state.limits.request_timeout
    }

    /// Lets a request in, when there is room for it and it can be served.
    async fn admit(&mut self, request: &mut ServiceRequest) -> Result<(), Problem> {
        if !self.route.as_deref().is_some_and(|route| ALWAYS_SERVED.contains(&route)) {
            let limit = self.state.limits.max_in_flight;
            if self.guard.begin_work() >= limit {
                return Err(Problem::full(limit));
            }
        }
        if is_too_long(request) {
            return Err(Problem::uri_too_long());
        }
        self.receive(request).await
    }

    /// Receives the body of a request, so that no handler waits for a client.
    async fn receive(&self, request: &mut ServiceRequest) -> Result<(), Problem> {
        let mut payload = match request.take_payload() {
            Payload::None => return Ok(()),
            payload => payload,
        };
        let length = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        if length.and_then(|length| length.parse().ok()).is_some_and(|length: u64| length > BODY_MAX as u64) {
            return Err(Problem::body_too_large());
        }
        let mut whole = BytesMut::new();
        loop {
            match timeout_at(self.deadline().into(), payload.next()).await {
                Ok(Some(Ok(chunk))) if whole.len() + chunk.len() <= BODY_MAX => whole.extend_from_slice(&chunk),
                Ok(Some(Ok(_))) => return Err(Problem::body_too_large()),
                Ok(Some(Err(_))) => return Err(Problem::malformed()),
                Ok(None) => break,
                Err(_) => return Err(Problem::request_timeout()),
            }
        }
        request.set_payload(Payload::from(whole.freeze()));
        Ok(())
    }

    fn reject(mut self, problem: &Problem) -> HttpResponse {
        let response = problem.render(&self.id, self.page_root.as_deref());
        self.outcome = Some((response.status(), problem.cause().map(str::to_owned)));
        self.answer(response)
    }

    fn fail(self, problem: &Problem) -> Error {
        let response = self.reject(problem);
        InternalError::from_response("a request that cannot be answered otherwise", response).into()
    }

    fn answer(mut self, mut response: HttpResponse) -> HttpResponse {
        if self.is_last || self.state.lifecycle.is_unready() {
            response.head_mut().set_connection_type(ConnectionType::Close);
        }
        let headers = response.headers_mut();
        if let Ok(id) = HeaderValue::from_str(&self.id) {
            headers.insert(REQUEST_ID, id);
        }
        if let Some(trace) = self.trace.header() {
            headers.insert(TRACEPARENT, trace);
        }
        self.outcome.get_or_insert((response.status(), None));
        self.is_close_delimited &= response.body().size() == BodySize::Stream;
        if let Some(connection) = self.connection.take() {
            connection.set_current(self);
        }
        response
    }

    /// Stops counting the request as in flight. A client that does not read its response uses memory only.
    pub(super) fn end_in_flight(&mut self) {
        self.guard.end_work();
    }

    /// Ends a request whose response was not sent completely.
    pub(super) fn abort(mut self, reason: &'static str) {
        self.aborted = Some(reason);
    }
}

/// One line a request, and its count and time.
impl Drop for RequestContext {
    fn drop(&mut self) {
        let duration = self.started.elapsed();
        let route = self.route.as_deref();
        let (status, cause) = self.outcome.take().unwrap_or_else(|| {
            // The number of nginx. There is no status, because there is no response.
            let status = StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST);
            self.aborted = Some(self.connection.as_ref().map_or("there was no connection", |it| it.abort_reason()));
            (status, None)
        });
        let cause = cause.as_deref().or(self.aborted);
        /// The level of an event is part of its call site.
        macro_rules! event {
            ($level:ident) => {
                tracing::event!(
                    tracing::Level::$level,
                    request_id = self.id.as_str(),
                    trace_id = self.trace.id.as_str(),
                    method = self.method,
                    route = route.unwrap_or("none"),
                    status = status.as_u16(),
                    duration_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
                    bytes = self.bytes,
                    cause,
                    "request"
                )
            };
        }
        match status {
            StatusCode::SERVICE_UNAVAILABLE => event!(WARN),
            status if status.is_server_error() => event!(ERROR),
            _ => event!(INFO),
        }
        self.state.metrics.record(self.method, route.unwrap_or("none"), status, duration);
        if self.aborted.is_some() {
            self.state.metrics.record_aborted();
        }
        self.trace.end(self.method, route, status.as_u16());
    }
}

/// A method by its name when it is one of HTTP's (RFC 9110 and 5789), because a client may make up any other.
fn name(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

fn is_too_long(request: &ServiceRequest) -> bool {
    request.uri().path_and_query().map_or(0, |uri| uri.as_str().len()) > URI_MAX
}

/// The longest id that is accepted from a client, in bytes.
const ID_MAX: usize = 128;

/// Whether a client's id can be written unchanged to a header, to JSON and to quoted text: it has visible characters
/// only, without quotes or a backslash.
fn is_id(id: &str) -> bool {
    (1..=ID_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic() && !b"\"'\\".contains(&b))
}

fn new_id() -> String {
    format!("{:032x}", fastrand::u128(..))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use actix_web::middleware::from_fn;
    use actix_web::test::{TestRequest, call_service, init_service, read_body};
    use actix_web::{App, web};

    use super::*;
    use crate::config::Config;
    use crate::telemetry::DroppedLines;

    #[test]
    fn a_panic_is_one_problem_and_the_next_request_is_served() {
        async fn handler(request: actix_web::HttpRequest) -> &'static str {
            assert!(request.query_string().is_empty(), "a canary in a panic");
            "well"
        }
        actix_web::rt::System::new().block_on(async {
            // Nobody asks the database.
            let url = ("DATABASE_URL".to_owned(), "sqlite:none.db".to_owned());
            let config = Config::from_vars([url]).expect("it is complete");
            let state = Data::new(State::new(&config, Arc::default(), &DroppedLines::default()));
            let app = App::new().app_data(state).route("/", web::get().to(handler)).wrap(from_fn(scope));
            let app = init_service(app).await;
            let panicking = TestRequest::get().uri("/?panic").insert_header(("x-request-id", "one")).to_request();
            // The test service hands over as an error what a server would send.
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
