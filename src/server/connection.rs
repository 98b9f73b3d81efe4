//! A client's connection: hyper's HTTP/1.1 connection (RFC 9112) with actix-web's application as its service.
//!
//! hyper parses requests and frames responses. This module adds the time limits of a client, the end of connections
//! during a shutdown, and the end of each request: when the kernel has accepted the last byte of its response, or when
//! the connection breaks.

mod state;
mod stream;
mod translate;

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
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use crate::http::State;
use crate::http::middleware::{RequestContext, Transport};
use state::{ABORTED, Connection};
use stream::GuardedStream;

/// The cause of an aborted request in the log.
const CLIENT_CLOSED: &str = "the client closed the connection";
/// The longest head of a request, in bytes.
const HEAD_MAX: usize = 128 * 1024;

/// Serves a connection until its end.
pub(crate) async fn serve<S>(stream: TcpStream, app: Rc<S>, state: Data<State>)
where
    S: Service<Request, Response = ServiceResponse<BoxBody>, Error = actix_web::Error>,
{
    // Dropped last, so that a drain waits for the log lines of aborted requests.
    let _counted = state.lifecycle.connection();
    // Only the log uses it, so without proxies it costs no system call.
    let peer = state.proxies.trusted.as_ref().and_then(|_| stream.peer_addr().ok());
    let connection = Rc::new(Connection::new());
    let io = TokioIo::new(GuardedStream::new(stream, connection.clone(), state.clone()));
    let service = service_fn(|request| {
        let connection = connection.clone();
        connection.begin(&request);
        let answer = match translate::request(request) {
            Ok(mut request) => {
                request.head_mut().peer_addr = peer;
                request.extensions_mut().insert::<Rc<dyn Transport>>(connection.clone());
                Ok(app.call(request))
            }
            Err(problem) => Err(RequestContext::reject(&state, peer, connection.clone(), &problem)),
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
                    // The error does not contain what was received.
                    RequestContext::log_rejected(&state, peer, status_of(&error), &error);
                    is_complete = true;
                }
                Poll::Ready(outcome) => return Poll::Ready(outcome.map_err(Some)),
                // The next poll reads, and the stream then reports the end of an idle connection.
                Poll::Pending if !is_stopping && idle_connections_end.as_mut().poll(cx).is_ready() => {
                    is_stopping = true;
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
        Err(None) => ABORTED,
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
