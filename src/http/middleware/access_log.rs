//! The line of each request in the log.

use std::time::Duration;

use actix_web::http::StatusCode;

/// The values of the line of a request.
pub(super) struct Line<'a> {
    pub(super) request_id: &'a str,
    pub(super) trace_id: &'a str,
    pub(super) method: &'static str,
    pub(super) route: &'static str,
    /// The name of the client, if it has sent a valid token.
    pub(super) client: Option<&'a str>,
    pub(super) status: StatusCode,
    pub(super) duration: Duration,
    /// The part of the response's body that was read by the connection.
    pub(super) bytes: u64,
    /// Why the request failed.
    pub(super) cause: Option<&'a str>,
}

impl Line<'_> {
    /// Writes the line.
    pub(super) fn write(&self) {
        /// The level of an event is part of its call site.
        macro_rules! event {
            ($level:ident) => {
                tracing::event!(
                    // A name that filters of the log can rely on.
                    target: "roster::http::request",
                    tracing::Level::$level,
                    request_id = self.request_id,
                    trace_id = self.trace_id,
                    http.request.method = self.method,
                    http.route = self.route,
                    enduser.id = self.client,
                    http.response.status_code = self.status.as_u16(),
                    duration_us = u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX),
                    bytes = self.bytes,
                    cause = self.cause,
                    "request"
                )
            };
        }
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE => event!(WARN),
            status if status.is_server_error() => event!(ERROR),
            _ => event!(INFO),
        }
    }
}
