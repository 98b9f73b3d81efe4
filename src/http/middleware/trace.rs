//! The trace that a request belongs to: continued from its `traceparent`, or begun here (W3C Trace Context).

use std::ops::Range;

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags, TraceId};
use opentelemetry::{Context, KeyValue};
use tracing::{Span, field};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::http::metrics::Exemplar;
use crate::telemetry::parse_traceparent;

pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// A request's place in its trace.
pub(super) struct Trace {
    /// Belongs to every event of the request.
    pub(super) span: Span,
    /// The `traceparent` of what this request causes, with the id of the request's own span. The log shows its parts, so the
    /// ids are formatted once.
    pub(super) parent: String,
    /// The ids of the request for a metric, if its trace is exported.
    pub(super) exemplar: Option<Exemplar>,
    exported: bool,
}

impl Trace {
    /// Enters the trace that a request names, or a new one.
    pub(super) fn enter(headers: &HeaderMap, request_id: &str, exported: bool) -> Self {
        let parent = parent(headers);
        if exported {
            return Self::enter_exported(parent, request_id);
        }
        let (trace_id, flags) = match &parent {
            Some(parent) => (parent.trace_id(), parent.trace_flags()),
            None => (TraceId::from(fastrand::u128(1..)), TraceFlags::NOT_SAMPLED),
        };
        let parent = traceparent(trace_id, SpanId::from(fastrand::u64(1..)), flags);
        // At the level ERROR, so that no filter of the log removes the ids from the lines of the request.
        let span =
            tracing::error_span!("request", request_id, trace_id = &parent[TRACE_ID], span_id = &parent[SPAN_ID]);
        Self { span, parent, exemplar: None, exported }
    }

    /// The exporter chooses the ids, and whether the trace is sampled.
    fn enter_exported(parent: Option<SpanContext>, request_id: &str) -> Self {
        let span = tracing::error_span!(
            "request",
            request_id,
            trace_id = field::Empty,
            span_id = field::Empty,
            otel.kind = "server"
        );
        if let Some(parent) = parent {
            // It fails for a span that has begun already, and this one has not.
            let _ = span.set_parent(Context::new().with_remote_span_context(parent));
        }
        let context = span.context();
        let own = context.span().span_context().clone();
        let (trace_id, span_id) = (own.trace_id(), own.span_id());
        let parent = traceparent(trace_id, span_id, own.trace_flags());
        span.record("trace_id", &parent[TRACE_ID]).record("span_id", &parent[SPAN_ID]);
        Self { span, parent, exemplar: own.is_sampled().then_some(Exemplar { trace_id, span_id }), exported: true }
    }

    pub(super) fn id(&self) -> &str {
        &self.parent[TRACE_ID]
    }

    pub(super) fn span_id(&self) -> &str {
        &self.parent[SPAN_ID]
    }

    /// The `traceparent` of the response.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.parent).ok()
    }

    /// Records the outcome of the request, in the names of OpenTelemetry's semantic conventions for HTTP.
    pub(super) fn end(&self, method: &'static str, route: Option<&'static str>, status: u16) {
        if !self.exported {
            return;
        }
        let name = route.map_or_else(|| method.to_owned(), |route| format!("{method} {route}"));
        self.span.context().span().update_name(name);
        let attributes = [
            Some(KeyValue::new("http.request.method", method)),
            route.map(|route| KeyValue::new("http.route", route)),
            Some(KeyValue::new("http.response.status_code", i64::from(status))),
        ];
        for attribute in attributes.into_iter().flatten() {
            self.span.set_attribute(attribute.key, attribute.value);
        }
        if status >= 500 {
            self.span.set_status(Status::error(""));
        }
    }
}

/// The places of the ids in a `traceparent`.
const TRACE_ID: Range<usize> = 3..35;
const SPAN_ID: Range<usize> = 36..52;

fn traceparent(trace_id: TraceId, span_id: SpanId, flags: TraceFlags) -> String {
    format!("00-{trace_id}-{span_id}-{flags:02x}")
}

/// The parent in the headers of a request. Without exactly one valid `traceparent`, there is no parent, and
/// `tracestate` is ignored (W3C Trace Context, section 4.3).
fn parent(headers: &HeaderMap) -> Option<SpanContext> {
    let mut lines = headers.get_all(&TRACEPARENT);
    let (Some(line), None) = (lines.next(), lines.next()) else { return None };
    // Several lines are one list (RFC 9110, section 5.3). An invalid line makes the list invalid.
    let members: Result<Vec<_>, _> = headers.get_all(TRACESTATE).map(HeaderValue::to_str).collect();
    let state = members.unwrap_or_default().join(",").parse().unwrap_or_default();
    parse_traceparent(line.to_str().ok()?, state)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn parent_of(lines: &[(&'static str, &str)]) -> Option<(String, String)> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).expect("a header"));
        }
        let parent = parent(&headers)?;
        Some((parent.trace_id().to_string(), parent.trace_state().header()))
    }

    #[test]
    fn a_traceparent_is_valid_as_the_w3c_defines() {
        for (header, valid) in [
            (format!("00-{TRACE}-00f067aa0ba902b7-01"), true),
            (format!("00-{TRACE}-00f067aa0ba902b7-00"), true),
            (format!("00-{TRACE}-00f067aa0ba902b7-ff"), true),
            (format!("cc-{TRACE}-00f067aa0ba902b7-01"), true),
            (format!("cc-{TRACE}-00f067aa0ba902b7-01-"), true),
            (format!("cc-{TRACE}-00f067aa0ba902b7-01-what-the-future-holds"), true),
            (format!("cc-{TRACE}-00f067aa0ba902b7-01.what-the-future-holds"), false),
            (format!("00-{TRACE}-00f067aa0ba902b7-01-"), false),
            (format!("00-{TRACE}-00f067aa0ba902b7-01-more"), false),
            (format!("00-{TRACE}-00f067aa0ba902b7-01,00-{TRACE}-00f067aa0ba902b7-01"), false),
            (format!("ff-{TRACE}-00f067aa0ba902b7-01"), false),
            (format!("0-{TRACE}-00f067aa0ba902b7-01"), false),
            (format!("+0-{TRACE}-00f067aa0ba902b7-01"), false),
            (format!("0A-{TRACE}-00f067aa0ba902b7-01"), false),
            (format!("00-{TRACE}-0000000000000000-01"), false),
            (format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)), false),
            (format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()), false),
            (format!("00-+{}-00f067aa0ba902b7-01", &TRACE[1..]), false),
            (format!("00-{TRACE}-00F067AA0BA902B7-01"), false),
            (format!("00-{TRACE}-00f067aa0ba902b7-1"), false),
            (format!("00-{TRACE}-00f067aa0ba902b7-.0"), false),
            (format!("00-{TRACE}-00f067aa0ba902b7"), false),
            ("00-1-1-1".to_owned(), false),
            (String::new(), false),
        ] {
            let parent = parent_of(&[("traceparent", &header)]);
            assert_eq!(parent.map(|(trace, _)| trace), valid.then(|| TRACE.to_owned()), "{header}");
        }
    }

    #[test]
    fn two_traceparents_are_none() {
        let one = format!("00-{TRACE}-00f067aa0ba902b7-01");
        assert_eq!(parent_of(&[("traceparent", &one), ("traceparent", &one), ("tracestate", "a=1")]), None);
        assert_eq!(parent_of(&[("traceparent", &one), ("traceparent", "nonsense")]), None);
    }

    #[test]
    fn a_tracestate_is_one_list_and_needs_a_traceparent() {
        let one = format!("00-{TRACE}-00f067aa0ba902b7-01");
        for (lines, state) in [
            (&["congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"][..], "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"),
            (&["congo=1", "rojo=2,acme@w3c=3"], "congo=1,rojo=2,acme@w3c=3"),
            (&["congo=1 \t, \trojo=2,", "", "foo=3"], "congo=1,rojo=2,foo=3"),
            (&["no list"], ""),
            (&["congo=1", "NO KEY=2"], ""),
            (&[], ""),
        ] {
            let headers: Vec<_> = [("traceparent", one.as_str())]
                .into_iter()
                .chain(lines.iter().map(|line| ("tracestate", *line)))
                .collect();
            assert_eq!(parent_of(&headers), Some((TRACE.to_owned(), state.to_owned())), "{lines:?}");
            assert_eq!(parent_of(&headers[1..]), None);
        }
    }
}
