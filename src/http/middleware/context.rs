//! A request, from its head to the last byte of its response.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Instant;

use actix_web::body::{BodySize, MessageBody as _};
use actix_web::dev::{Payload, ServiceRequest};
use actix_web::error::InternalError;
use actix_web::http::header::{HeaderMap, HeaderValue};
use actix_web::http::{ConnectionType, Method, StatusCode, Version};
use actix_web::web::Data;
use actix_web::{Error, HttpMessage as _, HttpResponse};
use tracing::Span;

use super::access_log::Line;
use super::client_address;
use super::request_id::{self, REQUEST_ID};
use super::trace::{TRACEPARENT, Trace};
use crate::http::assets::{self, Frame};
use crate::http::problem::Problem;
use crate::http::representation::prefers_page;
use crate::http::route::{Route, is_safe};
use crate::http::state::State;
use crate::lifecycle::RequestGuard;
use crate::telemetry::Origin;

/// The method of what is not a request.
const UNKNOWN: &str = "none";

/// What sends the response of a request.
pub(crate) trait Transport {
    /// Keeps the context of a response that is about to be sent. Drops it when the last byte has been sent.
    fn keep(&self, context: RequestContext);

    /// Why a request without a response ended.
    fn abort_reason(&self) -> &'static str;
}

/// The data of a request. Its line in the log is written when it is dropped.
pub(crate) struct RequestContext {
    pub(super) state: Data<State>,
    /// None in a test without a server, and for bytes that are not a request.
    transport: Option<Rc<dyn Transport>>,
    id: String,
    trace: Trace,
    method: &'static str,
    pub(super) route: Route,
    /// The name of the client, if it has sent a valid token.
    pub(super) client: Option<String>,
    /// The address of the client, if proxies are configured.
    client_address: Option<IpAddr>,
    /// The path, if it has no route.
    path: Option<String>,
    /// The root of the links on an error page, if the client is a browser.
    page_root: Option<String>,
    started: Instant,
    pub(super) guard: RequestGuard,
    /// Whether a body follows that the server has not read. Then the response ends the connection.
    pub(super) has_unread_body: bool,
    /// Whether only the end of the connection ends the body of the response, as of a stream over HTTP/1.0.
    is_close_delimited: bool,
    /// The status of the response and the cause of an error, once they are known.
    outcome: Option<(StatusCode, Option<String>)>,
    /// Why the client did not receive the whole response.
    aborted: Option<&'static str>,
    /// Bytes of the body of the response that the transport has read.
    bytes: u64,
}

impl RequestContext {
    /// The context of a request for a route.
    pub(super) fn new(route: Route, request: &ServiceRequest) -> Self {
        let state = request.app_data::<Data<State>>().expect("the route table has the state");
        let mut context = Self::with(state, route, name(request.method()), request.headers(), request.path());
        context.transport = request.extensions_mut().remove();
        context.client_address = client_address::of(request, &state.proxies);
        context.path = route.pattern.is_none().then(|| loggable(request.path()));
        context.has_unread_body = !matches!(request.parts().1, Payload::None);
        context.is_close_delimited = request.version() < Version::HTTP_11;
        context
    }

    /// A request that the application does not receive, and of which only the sender is known.
    fn unknown(state: &Data<State>, peer: Option<SocketAddr>) -> Self {
        let mut context = Self::with(state, Route::default(), UNKNOWN, &HeaderMap::new(), "");
        context.client_address = peer.and_then(|peer| client_address::of_peer(peer, &state.proxies));
        context
    }

    fn with(state: &Data<State>, route: Route, method: &'static str, headers: &HeaderMap, path: &str) -> Self {
        let id = request_id::of(headers);
        Self {
            state: state.clone(),
            transport: None,
            trace: Trace::enter(headers, &id, state.exports_traces),
            id,
            method,
            route,
            client: None,
            client_address: None,
            path: None,
            page_root: (route.has_page && prefers_page(headers)).then(|| assets::root(path)),
            started: Instant::now(),
            guard: state.lifecycle.request(),
            has_unread_body: false,
            is_close_delimited: false,
            outcome: None,
            aborted: None,
            bytes: 0,
        }
    }

    /// The response to a request that the application does not receive.
    pub(crate) fn reject(
        state: &Data<State>,
        peer: Option<SocketAddr>,
        transport: Rc<dyn Transport>,
        problem: &Problem,
    ) -> HttpResponse {
        let mut context = Self::unknown(state, peer);
        context.transport = Some(transport);
        context.respond_with(problem)
    }

    /// Logs and counts a response to bytes that are not a request.
    pub(crate) fn log_rejected(state: &Data<State>, peer: Option<SocketAddr>, status: StatusCode, cause: &dyn Display) {
        Self::unknown(state, peer).outcome = Some((status, Some(cause.to_string())));
    }

    /// The span of the request, which adds its ids to each line of the log.
    pub(super) fn span(&self) -> Span {
        self.trace.span.clone()
    }

    /// The ids of the request, for work that it causes.
    pub(super) fn origin(&self) -> Origin {
        Origin { request_id: self.id.clone(), traceparent: self.trace.parent.clone() }
    }

    /// When the response must have begun.
    pub(super) fn deadline(&self) -> Instant {
        self.started + self.state.limits.request_timeout
    }

    /// Completes the headers of a response, and hands the context to the transport.
    pub(super) fn respond(mut self, mut response: HttpResponse) -> HttpResponse {
        if self.has_unread_body || self.state.lifecycle.is_unready() {
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
        if let Some(transport) = self.transport.take() {
            transport.keep(self);
        }
        response
    }

    fn respond_with(mut self, problem: &Problem) -> HttpResponse {
        let is_write = self.method != UNKNOWN && !is_safe(self.method);
        let frame = self.page_root.take().map(|root| Frame::new(root, self.state.release_id.as_deref()));
        let response = problem.render(&self.id, frame, is_write);
        self.outcome = Some((response.status(), Some(problem.cause())));
        self.respond(response)
    }

    /// The response to a problem, as an error.
    pub(super) fn fail(self, problem: &Problem) -> Error {
        InternalError::from_response("the response to a problem", self.respond_with(problem)).into()
    }

    /// Records a part of the body of the response, which the transport has read.
    pub(crate) fn record_body(&mut self, length: usize) {
        self.bytes += length as u64;
    }

    /// Records that the transport has read the whole response.
    pub(crate) fn response_read(&mut self) {
        self.guard.end_work();
    }

    /// Ends a request whose response was not sent completely. Returns whether the connection must be reset, because its
    /// normal end would make the response look complete.
    pub(crate) fn abort(mut self, reason: &'static str) -> bool {
        self.aborted = Some(reason);
        self.is_close_delimited
    }
}

/// Writes the line of the request, and records its metrics.
impl Drop for RequestContext {
    fn drop(&mut self) {
        let duration = self.started.elapsed();
        let (status, cause) = self.outcome.take().unwrap_or_else(|| {
            // The number of nginx. There is no status, because there is no response.
            let status = StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST);
            self.aborted = Some(self.transport.as_ref().map_or("no connection", |it| it.abort_reason()));
            (status, None)
        });
        let route = self.route.pattern.unwrap_or("none");
        let line = Line {
            method: self.method,
            route,
            path: self.path.as_deref(),
            client: self.client.as_deref(),
            client_address: self.client_address,
            status,
            duration,
            bytes: self.bytes,
            cause: cause.as_deref().or(self.aborted),
            request_id: &self.id,
            trace_id: self.trace.id(),
            span_id: self.trace.span_id(),
        };
        line.write();
        self.state.metrics.record(self.method, route, status, duration, self.trace.exemplar);
        if self.aborted.is_some() {
            self.state.metrics.record_aborted();
        }
        self.trace.end(self.method, self.route.pattern, status.as_u16());
    }
}

/// A path as the log shows it: its beginning. A segment may be an e-mail address, a query, a cursor or a token, so it is
/// shown only if it is short and has no digit and no capital, as a word has.
fn loggable(path: &str) -> String {
    const LENGTH: usize = 100;
    let is_shown = |segment: &str| {
        segment.len() <= 20 && segment.bytes().all(|byte| byte.is_ascii_lowercase() || b"-_.".contains(&byte))
    };
    let mut shown = String::new();
    for segment in path.split('/').skip(1) {
        shown.push('/');
        shown.push_str(if is_shown(segment) { segment } else { "***" });
        if shown.len() > LENGTH {
            shown.truncate(LENGTH);
            return shown + "…";
        }
    }
    shown
}

/// The name of a standard method (RFC 9110 and 5789). Any other is `other`, because a client may send any text.
fn name(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}
