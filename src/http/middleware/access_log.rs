//! The line of each request in the log.

use std::net::IpAddr;
use std::time::Duration;

use actix_web::http::StatusCode;

/// The values of the line of a request.
pub(super) struct Line<'a> {
    pub(super) method: &'static str,
    pub(super) route: &'static str,
    /// The path, if it has no route.
    pub(super) path: Option<&'a str>,
    /// The name of the client, if it has sent a valid token.
    pub(super) client: Option<&'a str>,
    /// The address of the client, if proxies are configured.
    pub(super) client_address: Option<IpAddr>,
    pub(super) status: StatusCode,
    pub(super) duration: Duration,
    /// The part of the response's body that was read by the connection.
    pub(super) bytes: u64,
    /// Why the response is not the one that was requested.
    pub(super) cause: Option<&'a str>,
    pub(super) request_id: &'a str,
    pub(super) trace_id: &'a str,
    pub(super) span_id: &'a str,
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
                    http.request.method = self.method,
                    http.route = self.route,
                    url.path = self.path,
                    http.response.status_code = self.status.as_u16(),
                    duration_s = self.duration.as_secs_f64(),
                    http.response.body.size = self.bytes,
                    cause = self.cause,
                    client.address = self.client_address.map(tracing::field::display),
                    enduser.id = self.client,
                    request_id = self.request_id,
                    trace_id = self.trace_id,
                    span_id = self.span_id,
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
