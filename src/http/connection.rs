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
            Err(problem) => Err(request::refuse(&state, &connection, &problem)),
        };
        async move {
            let response = match answer {
                Ok(call) => call.await.map_or_else(|error| error.error_response(), |answer| answer.into_parts().1),
                Err(refusal) => refusal,
            };
            Ok::<_, Infallible>(translate::response(response, connection))
        }
    });
    let mut http = http1::Builder::new();
    // A client that has closed its side may still read (RFC 9112, section 9.6).
    http.half_close(true).header_read_timeout(None).max_buf_size(HEAD_MAX);
    let mut serving = pin!(http.serve_connection(io, service));
    let (mut idle_ends, mut work_ends) = (pin!(state.idle_ends.cancelled()), pin!(state.work_ends.cancelled()));
    let (mut is_over, mut is_stopping) = (false, false);
    let outcome = poll_fn(|cx| {
        loop {
            match serving.as_mut().poll(cx) {
                // After an upgrade that was ignored, hyper ends without a flush and a shutdown, and the next poll does both.
                Poll::Ready(Ok(())) if !is_over => is_over = true,
                Poll::Ready(Err(error)) if !is_over && error.is_parse() => {
                    request::log_refusal(&state, status_of(&error));
                    is_over = true;
                }
                Poll::Ready(outcome) => return Poll::Ready(outcome.map_err(Some)),
                // An idle connection ends when it is read.
                Poll::Pending if !is_stopping && idle_ends.as_mut().poll(cx).is_ready() => is_stopping = true,
                Poll::Pending if is_stopping && work_ends.as_mut().poll(cx).is_ready() => {
                    return Poll::Ready(Err(None));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
    let kind = |error: &hyper::Error| error.source()?.downcast_ref::<io::Error>().map(io::Error::kind);
    connection.abort(match &outcome {
        Err(None) => "SHUTDOWN_TIMEOUT_MS: cut off",
        Err(Some(error)) if error.is_user() => "the response is incomplete",
        Err(Some(error)) if kind(error) == Some(io::ErrorKind::TimedOut) => {
            "REQUEST_TIMEOUT_MS: the client did not read the response"
        }
        Ok(()) | Err(Some(_)) => "the client closed the connection",
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
    /// The last bytes of the client.
    tail: Cell<[u8; 3]>,
    /// Whether the stream is reset at its end. A client would take a response that only the end of the connection
    /// delimits for complete.
    is_reset: Cell<bool>,
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
            tail: Cell::default(),
            is_reset: Cell::default(),
        }
    }

    /// Records that the head of a request is complete.
    fn begin(&self, request: &hyper::Request<Incoming>) {
        self.has_body.set(!request.body().is_end_stream());
        self.phase.set(Phase::Serving);
    }

    /// Records the request whose response is about to be sent.
    pub(super) fn respond(&self, context: RequestContext) {
        self.current.replace(Some(context));
    }

    /// Records that hyper has the current response completely, or dropped it.
    fn end_body(&self) {
        if let Some(mut context) = self.current.take() {
            context.release();
            self.unflushed.borrow_mut().push(context);
            // hyper may have a part of the next head, but not behind a body, which is read up to its end.
            let is_complete = matches!(self.tail.get(), [_, b'\n', b'\n'] | [b'\n', b'\r', b'\n']);
            let phase = if is_complete || self.has_body.get() { Phase::Idle } else { Phase::Head };
            self.phase.set(phase(Instant::now()));
        }
    }

    /// Records that the kernel has accepted everything.
    fn flush(&self) {
        self.unflushed.borrow_mut().clear();
    }

    /// Records that the connection ended before the end of its responses, if there are any.
    fn abort(&self, reason: &'static str) {
        self.end_body();
        for context in self.unflushed.borrow_mut().drain(..) {
            self.is_reset.set(self.is_reset.get() || context.is_close_delimited);
            context.abort(reason);
        }
    }
}
