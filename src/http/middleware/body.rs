//! The body of a request, received before its handler is called, so that no handler waits for a client.

use actix_web::HttpMessage as _;
use actix_web::dev::{Payload, ServiceRequest};
use actix_web::http::header;
use actix_web::web::BytesMut;
use futures_util::StreamExt as _;
use tokio::time::timeout_at;

use super::context::RequestContext;
use crate::http::limits::BODY_MAX;
use crate::http::problem::Problem;

/// Receives the body. Rejects it if it is too long, or not complete in time.
pub(super) async fn receive(context: &mut RequestContext, request: &mut ServiceRequest) -> Result<(), Problem> {
    if !context.has_unread_body {
        return Ok(());
    }
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    if length.and_then(|length| length.parse().ok()).is_some_and(|length: u64| length > BODY_MAX as u64) {
        return Err(Problem::body_too_large());
    }
    let mut payload = request.take_payload();
    let mut body = BytesMut::new();
    loop {
        match timeout_at(context.deadline().into(), payload.next()).await {
            Ok(Some(Ok(chunk))) if body.len() + chunk.len() <= BODY_MAX => body.extend_from_slice(&chunk),
            Ok(Some(Ok(_))) => return Err(Problem::body_too_large()),
            Ok(Some(Err(_))) => return Err(Problem::malformed()),
            Ok(None) => break,
            Err(_) => return Err(Problem::request_timeout()),
        }
    }
    request.set_payload(Payload::from(body.freeze()));
    context.has_unread_body = false;
    Ok(())
}
