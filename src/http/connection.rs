//! A client's connection: hyper's HTTP/1.1 connection (RFC 9112) with actix-web's application as its service.
//!
//! hyper parses requests and frames responses. This module adds the time limits of a client, the end of connections
//! during a shutdown, and the end of each request: when the kernel has accepted the last byte of its response, or when
//! the connection breaks.

mod stream;
mod translate;

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::error::Error as _;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use actix_http::Request;
use actix_service::Service;
use actix_web::HttpMessage as _;
use actix_web::body::BoxBody;
use actix_web::dev::ServiceResponse;
use actix_web::http::StatusCode;
use actix_web::rt::net::TcpStream;
use actix_web::web::Data;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::State;
use super::request::{self, RequestContext};
use stream::GuardedStream;

/// The causes of aborted requests in the log.
const CUT_OFF: &str = "SHUTDOWN_TIMEOUT_MS: cut off";
const CLIENT_CLOSED: &str = "the client closed the connection";
/// The longest head of a request, in bytes.
const HEAD_MAX: usize = 128 * 1024;

/// Serves a connection until its end.
pub async fn serve<S>(stream: TcpStream, app: Rc<S>, state: Data<State>)
where
    S: Service<Request, Response = ServiceResponse<BoxBody>, Error = actix_web::Error>,
{
    let connection = Rc::new(Connection::new());
    let io = TokioIo::new(GuardedStream::new(stream, connection.clone(), state.clone()));
    let service = service_fn(|request| {
        let connection = connection.clone();
        connection.begin(&request);
        let answer = match translate::request(request) {
            Ok(request) => {
                request.extensions_mut().insert(connection.clone());
                Ok(app.call(request))
            }
            Err(problem) => Err(request::reject(&state, &connection, &problem)),
        };
        async move {
            let response = match answer {
                Ok(call) => call.await.map_or_else(|error| error.error_response(), |answer| answer.into_parts().1),
                Err(rejection) => rejection,
            };
            Ok::<_, Infallible>(translate::response(response, connection))
        }
    });
    let mut http = http1::Builder::new();
    // A client that has closed its side may still read (RFC 9112, section 9.6).
    http.half_close(true).header_read_timeout(None).max_buf_size(HEAD_MAX);
    let mut serving = pin!(http.serve_connection(io, service));
    let mut idle_connections_end = pin!(state.lifecycle.idle_connections_end().cancelled());
    let mut all_connections_end = pin!(state.lifecycle.all_connections_end().cancelled());
    let (mut is_complete, mut is_stopping) = (false, false);
    let outcome = poll_fn(|cx| {
        loop {
            match serving.as_mut().poll(cx) {
                // hyper returns before flush and shutdown after an ignored upgrade. The next poll performs both. hyper's
                // connection may be polled again (tested with 1.12).
                Poll::Ready(Ok(())) if !is_complete => is_complete = true,
                Poll::Ready(Err(error)) if !is_complete && error.is_parse() => {
                    request::log_rejected(&state, status_of(&error));
                    is_complete = true;
                }
                Poll::Ready(outcome) => return Poll::Ready(outcome.map_err(Some)),
                // The next poll reads, and the stream then reports the end of an idle connection.
                Poll::Pending if !is_stopping && idle_connections_end.as_mut().poll(cx).is_ready() => {
                    is_stopping = true
                }
                Poll::Pending if is_stopping && all_connections_end.as_mut().poll(cx).is_ready() => {
                    return Poll::Ready(Err(None));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
    let kind = |error: &hyper::Error| error.source()?.downcast_ref::<io::Error>().map(io::Error::kind);
    connection.abort(match &outcome {
        Err(None) => CUT_OFF,
        Err(Some(error)) if error.is_user() => "the response is incomplete",
        Err(Some(error)) if kind(error) == Some(io::ErrorKind::TimedOut) => {
            "REQUEST_TIMEOUT_MS: the client did not read the response"
        }
        Ok(()) | Err(Some(_)) => CLIENT_CLOSED,
    });
}

/// The status with which hyper rejects bytes that are not a request.
fn status_of(error: &hyper::Error) -> StatusCode {
    match error.is_parse_too_large() {
        // There is no other way to tell the two apart.
        true if error.to_string() == "URI too long" => StatusCode::URI_TOO_LONG,
        true => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        false => StatusCode::BAD_REQUEST,
    }
}

/// The state of a connection, which its stream, its requests and their responses share.
pub(super) struct Connection {
    phase: Cell<Phase>,
    /// The request whose response hyper has not read to its end.
    current: RefCell<Option<RequestContext>>,
    /// Requests whose responses hyper has read to their end, but the kernel has not accepted.
    unflushed: RefCell<Vec<RequestContext>>,
    /// Whether the last request has a body.
    has_body: Cell<bool>,
    /// The last three bytes received.
    last_received: Cell<[u8; 3]>,
    /// Whether dropping the stream resets the connection, so that a client detects an incomplete response without a length.
    reset_on_drop: Cell<bool>,
    /// Why the connection was aborted.
    aborted: Cell<Option<&'static str>>,
}

/// What the client is expected to do, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing: it has not begun another request.
    Idle(Instant),
    /// To complete the head of a request.
    Head(Instant),
    /// A request is being served, and has its own limit.
    Serving,
    /// To close its side.
    Ending(Instant),
}

impl Connection {
    fn new() -> Self {
        Self {
            phase: Cell::new(Phase::Idle(Instant::now())),
            current: RefCell::default(),
            unflushed: RefCell::default(),
            has_body: Cell::default(),
            last_received: Cell::default(),
            reset_on_drop: Cell::default(),
            aborted: Cell::default(),
        }
    }

    /// Records that the head of a request is complete.
    fn begin(&self, request: &hyper::Request<Incoming>) {
        self.has_body.set(!request.body().is_end_stream());
        self.phase.set(Phase::Serving);
    }

    /// Records the request whose response is about to be sent.
    pub(super) fn set_current(&self, context: RequestContext) {
        self.current.replace(Some(context));
    }

    /// Records a part of the body of the current response, which hyper has read.
    fn record_body(&self, length: usize) {
        if let Some(context) = &mut *self.current.borrow_mut() {
            context.bytes += length as u64;
        }
    }

    /// Records that hyper has read the whole current response, or dropped it.
    fn response_buffered(&self) {
        if let Some(mut context) = self.current.take() {
            context.end_in_flight();
            self.unflushed.borrow_mut().push(context);
            // hyper may have received a part of the next head. Behind a body this is not known, so the connection counts as
            // idle until the next byte.
            let is_complete = matches!(self.last_received.get(), [_, b'\n', b'\n'] | [b'\n', b'\r', b'\n']);
            let phase = if is_complete || self.has_body.get() { Phase::Idle } else { Phase::Head };
            self.phase.set(phase(Instant::now()));
        }
    }

    /// Records that the kernel has accepted everything.
    fn mark_flushed(&self) {
        self.unflushed.borrow_mut().clear();
    }

    /// Records that the connection ended before the end of its responses, if there are any.
    fn abort(&self, reason: &'static str) {
        self.aborted.set(Some(reason));
        self.response_buffered();
        for context in self.unflushed.borrow_mut().drain(..) {
            self.reset_on_drop.set(self.reset_on_drop.get() || context.is_close_delimited);
            context.abort(reason);
        }
    }

    /// Why a request without a response ended.
    pub(super) fn abort_reason(&self) -> &'static str {
        self.aborted.get().unwrap_or(CUT_OFF)
    }
}
