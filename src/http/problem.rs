//! The one error type of the HTTP surface, and its one shape: problem details (RFC 9457).

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpResponse, HttpResponseBuilder, ResponseError};
use askama::Template;
use serde::Serialize;
use utoipa::ToSchema;

use super::assets::Frame;
use super::limits::{BODY_MAX, URI_MAX};
use super::route::Methods;
use crate::{db, json};

/// An error response. The client receives the detail, and the log has the cause, so no internal message leaks. The log
/// has the detail of other problems, so a detail that contains text of the client needs a cause without it.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    /// Sent to the client.
    detail: Cow<'static, str>,
    /// The parts of the body of the request that are wrong.
    errors: Vec<Fault>,
    /// Further headers of the response.
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether the effect of a request that writes is not known. Otherwise it had none.
    is_outcome_unknown: bool,
    /// Logged, and not sent.
    cause: Option<String>,
}

impl Problem {
    fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        let (errors, headers) = (Vec::new(), Vec::new());
        Self { status, detail: detail.into(), errors, headers, is_outcome_unknown: false, cause: None }
    }

    pub(crate) fn bad_parameter(name: &'static str, reason: impl fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, format!("{name}: {reason}"))
    }

    /// A parameter whose value is wrong. The value is not logged.
    pub(crate) fn bad_value(name: &'static str, expected: impl fmt::Display, value: &str) -> Self {
        let cause = Some(format!("{name}: expected {expected}"));
        Self { cause, ..Self::bad_parameter(name, format_args!("expected {expected}, got {:?}", shortened(value))) }
    }

    /// A parameter whose name is wrong. The name is not logged.
    pub(crate) fn unknown_parameter(name: &str, supported: &str) -> Self {
        let reason = format!("unknown parameter; this resource supports {supported}");
        let detail = format!("{}: {reason}", shortened(name));
        Self { cause: Some(reason), ..Self::new(StatusCode::BAD_REQUEST, detail) }
    }

    pub(crate) fn not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    pub(super) fn method_not_allowed(methods: Methods) -> Self {
        let detail = format!("this resource supports {methods}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, detail).with_header(header::ALLOW, &methods.to_string())
    }

    /// The request has no token.
    pub(super) fn no_token() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "this request needs one header Authorization: Bearer TOKEN")
            .with_header(header::WWW_AUTHENTICATE, "Bearer realm=\"api\"")
    }

    /// The token of the request is not valid (RFC 6750, section 3.1).
    pub(super) fn invalid_token() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "the token is not valid")
            .with_header(header::WWW_AUTHENTICATE, "Bearer realm=\"api\", error=\"invalid_token\"")
    }

    pub(super) fn forbidden(detail: &'static str) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    /// The body is not what its media type promises.
    pub(super) fn malformed_body(detail: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(super) fn unsupported_media_type(detail: String) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
    }

    /// The body is understood, and cannot be accepted.
    #[must_use]
    pub fn unprocessable(detail: impl Into<Cow<'static, str>>, errors: Vec<Fault>) -> Self {
        Self { errors, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail) }
    }

    /// The request contradicts the state of the resource.
    #[must_use]
    pub fn conflict(detail: impl Into<Cow<'static, str>>, errors: Vec<Fault>) -> Self {
        Self { errors, ..Self::new(StatusCode::CONFLICT, detail) }
    }

    /// Another request has to end first.
    pub(super) fn still_running(detail: &'static str) -> Self {
        Self::conflict(detail, Vec::new()).with_header(header::RETRY_AFTER, "1")
    }

    pub(super) fn precondition_required(detail: &'static str) -> Self {
        Self::new(StatusCode::PRECONDITION_REQUIRED, detail)
    }

    /// The same problem, if it is not known whether the request had an effect.
    pub(super) fn with_unknown_outcome(self) -> Self {
        Self { is_outcome_unknown: self.status == StatusCode::SERVICE_UNAVAILABLE, ..self }
    }

    pub(super) fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        self.headers.extend(HeaderValue::from_str(value).ok().map(|value| (name, value)));
        self
    }

    pub(crate) fn not_acceptable(offered: impl fmt::Display) -> Self {
        Self::new(StatusCode::NOT_ACCEPTABLE, format!("this resource is available as {offered}"))
    }

    pub(super) fn precondition_failed(detail: &'static str) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, detail)
    }

    pub(crate) fn uri_too_long() -> Self {
        Self::new(StatusCode::URI_TOO_LONG, format!("the URI is longer than {URI_MAX} bytes"))
    }

    pub(crate) fn body_too_large() -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is longer than {BODY_MAX} bytes"))
    }

    pub(crate) fn invalid_host() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "Host: expected exactly one, with a host name or an address (RFC 9112)")
    }

    pub(crate) fn malformed() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "the request is not valid HTTP/1.1 (RFC 9112)")
    }

    pub(crate) fn request_timeout() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "the request did not arrive in time")
    }

    /// The limit of concurrent requests is reached.
    pub(crate) fn full(limit: usize) -> Self {
        Self::unavailable(
            "the server is busy",
            &format_args!("MAX_IN_FLIGHT: the limit of concurrent requests, {limit}, is reached"),
        )
    }

    /// The handler did not respond in time. It may have been committing a transaction.
    pub(crate) fn too_slow(limit: Duration) -> Self {
        let cause = format!("REQUEST_TIMEOUT_MS: no response within {} ms", limit.as_millis());
        Self::unavailable("the request took too long", &cause).with_unknown_outcome()
    }

    pub(crate) fn unavailable(detail: impl Into<Cow<'static, str>>, cause: &dyn fmt::Display) -> Self {
        Self { cause: Some(cause.to_string()), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail) }
    }

    pub(crate) fn internal(cause: &dyn fmt::Display) -> Self {
        let detail = "unexpected error; the log has this response's instance";
        Self { cause: Some(cause.to_string()), ..Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail) }
    }

    /// The problem of an error: that of the handler, or one for an error of the framework.
    pub(crate) fn of(error: &actix_web::Error) -> Self {
        error.as_error::<Self>().cloned().unwrap_or_else(|| {
            let status = error.as_response_error().status_code();
            if status.is_server_error() {
                Self::internal(error)
            } else {
                Self::new(status, status.canonical_reason().unwrap_or("the request cannot be served"))
            }
        })
    }

    /// What the log has of this problem: its cause, or its detail and the parts of the body that are wrong.
    pub(crate) fn cause(&self) -> String {
        let start = self.cause.as_deref().unwrap_or(&self.detail).to_owned();
        self.errors.iter().fold(start, |text, fault| {
            let pointer = if fault.is_member { &*fault.pointer } else { "a member" };
            format!("{text}; {pointer} {}", fault.detail)
        })
    }

    /// The response: a page in this frame, or the problem as JSON.
    pub(super) fn render(&self, instance: &str, frame: Option<Frame<'_>>, is_write: bool) -> HttpResponse {
        let mut response = HttpResponseBuilder::new(self.status);
        for header in &self.headers {
            response.insert_header(header.clone());
        }
        let detail = if is_write { self.detail_of_write() } else { self.detail.clone() };
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.insert_header((header::RETRY_AFTER, HeaderValue::from_static("1")));
        }
        response.insert_header((header::CACHE_CONTROL, HeaderValue::from_static("no-store")));
        let title = self.status.canonical_reason().unwrap_or("Error");
        if let Some(frame) = frame {
            let status = self.status.as_u16();
            let page = ErrorPage { frame, status, title, detail: &detail, instance };
            if let Ok(html) = page.render() {
                return response.content_type("text/html; charset=utf-8").body(html);
            }
        }
        let (status, errors) = (self.status.as_u16(), self.errors.as_slice());
        let body = Body { r#type: "about:blank", title, status, detail: &detail, instance, errors };
        let mut json = Vec::with_capacity(256);
        json::write(&mut json, &body).expect("numbers and text are JSON");
        response.content_type("application/problem+json").body(json)
    }
}

impl Problem {
    /// The detail for a request that writes, which states whether it had an effect.
    fn detail_of_write(&self) -> Cow<'static, str> {
        let effect = match self.status {
            _ if self.is_outcome_unknown => {
                "the change may have been made: repeat the request, a POST with the same Idempotency-Key"
            }
            StatusCode::SERVICE_UNAVAILABLE => "nothing was changed",
            _ => return self.detail.clone(),
        };
        format!("{}; {effect}", self.detail).into()
    }
}

/// A part of the body of a request that is wrong (the example of RFC 9457, section 3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Fault {
    /// Where it is, as a JSON pointer (RFC 6901).
    #[schema(example = "/email")]
    pointer: String,
    /// What is wrong.
    #[schema(example = "is empty")]
    detail: String,
    /// Whether it is a member of the resource. The name of any other is not logged.
    #[serde(skip)]
    is_member: bool,
}

impl Fault {
    /// A fault of a member of the body.
    #[must_use]
    pub fn of_member(name: &'static str, detail: impl Into<String>) -> Self {
        Self { is_member: true, ..Self::of_unknown(name, detail) }
    }

    /// A fault of a member that the resource does not have.
    #[must_use]
    pub fn of_unknown(name: &str, detail: impl Into<String>) -> Self {
        let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
        Self { pointer, detail: detail.into(), is_member: false }
    }
}

/// The beginning of a text of the client, which may have any length.
fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}

/// The members of RFC 9457, section 3.1. The instance is the request id, which is also in the log.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem, description = "A problem of RFC 9457.")]
pub struct Body<'a> {
    /// Always `about:blank`: the status identifies the problem.
    #[schema(example = "about:blank")]
    r#type: &'a str,
    /// The reason phrase of the status.
    #[schema(example = "Not Found")]
    title: &'a str,
    /// The status code.
    #[schema(example = 404)]
    status: u16,
    /// The explanation of this problem.
    #[schema(example = "there is nothing here")]
    detail: &'a str,
    /// The request id, which is also in the log.
    #[schema(example = "8d3e1f0a5c7b4f6e9a2b1c0d3e4f5a6b")]
    instance: &'a str,
    /// The parts of the body that are wrong.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [Fault],
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage<'a> {
    frame: Frame<'a>,
    status: u16,
    title: &'a str,
    detail: &'a str,
    instance: &'a str,
}

impl From<db::Error> for Problem {
    fn from(error: db::Error) -> Self {
        let detail = match error {
            db::Error::Acquire(_) => "every database connection is in use",
            db::Error::Writer(_) => "another write is running",
            db::Error::Timeout(_) => "the database took too long",
            ref error if error.is_lock_timeout() => "another request, or another program, holds a lock",
            ref error if error.is_conflict() => "the request conflicts with others",
            db::Error::Value(_) => {
                let detail = "a value in the request is not one that the database can hold";
                return Self { cause: Some(error.to_string()), ..Self::new(StatusCode::BAD_REQUEST, detail) };
            }
            db::Error::Unconfirmed(_) => {
                return Self::unavailable("the database became unavailable", &error).with_unknown_outcome();
            }
            _ if !error.is_transient() => return Self::internal(&error),
            db::Error::Schema(_) => "the database's schema is older than this release",
            _ => "the database is unavailable",
        };
        Self::unavailable(detail, &error)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    /// Only the status. The context of the request renders the rest, because it has the instance.
    fn error_response(&self) -> HttpResponse {
        HttpResponse::new(self.status)
    }
}
