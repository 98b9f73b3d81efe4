//! Requests and responses between hyper and actix-web, which use different versions of the crate `http`.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use actix_http::error::PayloadError;
use actix_http::{BoxedPayloadStream, Payload, Request};
use actix_web::HttpResponse;
use actix_web::body::{BodySize, BoxBody, MessageBody as _};
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::http::{ConnectionType, Method, Uri, Version};
use actix_web::web::Bytes;
use futures_util::Stream;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header;

use super::state::Connection;
use crate::http::middleware::security_headers;
use crate::http::problem::Problem;

/// Converts a request of hyper to one of actix-web. Returns the problem if it is invalid.
pub(super) fn request(from: hyper::Request<Incoming>) -> Result<Request, Problem> {
    let (parts, body) = from.into_parts();
    let payload = if body.is_end_stream() {
        Payload::None
    } else {
        Payload::Stream { payload: Box::pin(IncomingBody(body)) as BoxedPayloadStream }
    };
    let mut request: Request = Request::with_payload(payload);
    let head = request.head_mut();
    head.method = Method::from_bytes(parts.method.as_str().as_bytes()).map_err(|_| Problem::malformed())?;
    // The authority of an absolute-form target or of CONNECT is ignored.
    let target = match parts.uri.path_and_query() {
        Some(target) => target.as_str(),
        None if parts.method == hyper::Method::CONNECT => "/",
        None => return Err(Problem::malformed()),
    };
    head.uri = target.parse::<Uri>().map_err(|_| Problem::malformed())?;
    head.version = if parts.version == hyper::Version::HTTP_10 { Version::HTTP_10 } else { Version::HTTP_11 };
    if !has_valid_host(&parts.headers, parts.version) {
        return Err(Problem::invalid_host());
    }
    for (name, value) in &parts.headers {
        let name = HeaderName::from_bytes(name.as_str().as_bytes()).map_err(|_| Problem::malformed())?;
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| Problem::malformed())?;
        head.headers.append(name, value);
    }
    Ok(request)
}

/// Whether the request has one valid `Host` (RFC 9112, section 3.2). HTTP/1.0 has none.
fn has_valid_host(headers: &hyper::HeaderMap, version: hyper::Version) -> bool {
    let is_authority = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+,;=".contains(&byte);
    let mut values = headers.get_all(header::HOST).iter().map(header::HeaderValue::as_bytes);
    match (values.next(), values.next()) {
        (None, None) => version < hyper::Version::HTTP_11,
        (Some(host), None) => !host.is_empty() && host.iter().copied().all(is_authority),
        _ => false,
    }
}

/// Converts a response of actix-web to one of hyper.
pub(super) fn response(from: HttpResponse, connection: Rc<Connection>) -> hyper::Response<OutgoingBody> {
    let (from, body) = from.into_parts();
    let mut response = hyper::Response::new(OutgoingBody { body, connection });
    *response.status_mut() =
        hyper::StatusCode::from_u16(from.status().as_u16()).expect("hyper accepts every status of actix-web");
    let headers = response.headers_mut();
    security_headers::add(headers, from.headers().len() + 1);
    for (name, value) in from.headers() {
        headers.append(
            header::HeaderName::from_bytes(name.as_str().as_bytes()).expect("hyper accepts every name of actix-web"),
            header::HeaderValue::from_bytes(value.as_bytes()).expect("hyper accepts every value of actix-web"),
        );
    }
    if from.head().connection_type() == ConnectionType::Close {
        headers.insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    }
    response
}

/// The body of a request.
struct IncomingBody(Incoming);

impl Stream for IncomingBody {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(match ready!(Pin::new(&mut self.0).poll_frame(cx)) {
            // Trailers are not used.
            Some(Ok(frame)) => Some(Ok(frame.into_data().unwrap_or_default())),
            Some(Err(_)) => Some(Err(PayloadError::Incomplete(None))),
            None => None,
        })
    }
}

/// The body of a response, whose progress and end are recorded.
pub(super) struct OutgoingBody {
    body: BoxBody,
    connection: Rc<Connection>,
}

impl Body for OutgoingBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(match ready!(Pin::new(&mut self.body).poll_next(cx)) {
            Some(Ok(chunk)) => {
                self.connection.record_body(chunk.len());
                Some(Ok(Frame::data(chunk)))
            }
            Some(Err(error)) => Some(Err(io::Error::other(error.to_string()))),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.body.size(), BodySize::None | BodySize::Sized(0))
    }

    fn size_hint(&self) -> SizeHint {
        match self.body.size() {
            BodySize::None => SizeHint::with_exact(0),
            BodySize::Sized(length) => SizeHint::with_exact(length),
            BodySize::Stream => SizeHint::new(),
        }
    }
}

impl Drop for OutgoingBody {
    fn drop(&mut self) {
        self.connection.response_buffered();
    }
}
