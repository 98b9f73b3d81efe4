//! The trace that a request belongs to: continued from its `traceparent`, or begun here (W3C Trace Context).

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use tracing::{Span, field};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A request's place in its trace.
pub(super) struct Trace {
    /// Belongs to every event of the request.
    pub(super) span: Span,
    /// The trace's id, as its events show it.
    pub(super) id: String,
    span_id: SpanId,
    flags: TraceFlags,
    exported: bool,
}

impl Trace {
    /// Enters the trace that a request names, or a new one.
    pub(super) fn enter(headers: &HeaderMap, request_id: &str, exported: bool) -> Self {
        let parent = headers.get(&TRACEPARENT).and_then(|header| parse(header.to_str().ok()?));
        if exported {
            return Self::enter_exported(parent, request_id);
        }
        let (trace_id, flags) = match &parent {
            Some(parent) => (parent.trace_id(), parent.trace_flags()),
            None => (TraceId::from(fastrand::u128(1..)), TraceFlags::NOT_SAMPLED),
        };
        let id = trace_id.to_string();
        // At the level of an error, so that no filter takes the ids from the lines of the request.
        let span = tracing::error_span!("request", request_id, trace_id = id);
        Self { span, id, span_id: SpanId::from(fastrand::u64(1..)), flags, exported }
    }

    /// The exporter chooses the ids, and whether the trace is sampled.
    fn enter_exported(parent: Option<SpanContext>, request_id: &str) -> Self {
        let span = tracing::error_span!("request", request_id, trace_id = field::Empty, otel.kind = "server");
        if let Some(parent) = parent {
            // It fails for a span that has begun already, and this one has not.
            let _ = span.set_parent(Context::new().with_remote_span_context(parent));
        }
        let context = span.context();
        let own = context.span().span_context().clone();
        let id = own.trace_id().to_string();
        span.record("trace_id", &id);
        Self { span, id, span_id: own.span_id(), flags: own.trace_flags(), exported: true }
    }

    /// Where whoever asked finds this request in the trace.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        HeaderValue::try_from(format!("00-{}-{}-{:02x}", self.id, self.span_id, self.flags)).ok()
    }

    /// Says what came of the request, in the names of OpenTelemetry's semantic conventions for HTTP.
    pub(super) fn end(&self, method: &str, route: Option<&str>, status: u16) {
        if !self.exported {
            return;
        }
        let name = route.map_or_else(|| method.to_owned(), |route| format!("{method} {route}"));
        self.span.context().span().update_name(name);
        let attributes = [
            Some(KeyValue::new("http.request.method", method.to_owned())),
            route.map(|route| KeyValue::new("http.route", route.to_owned())),
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

/// The parent that a `traceparent` names: version, trace, parent and flags in lower-case hexadecimal. A later
/// version may add fields, and is read as far as this one knows it.
fn parse(header: &str) -> Option<SpanContext> {
    let mut fields = header.split('-');
    let mut field = |digits: usize| {
        let field = fields.next()?;
        let is_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        (field.len() == digits && field.bytes().all(is_hex)).then_some(field)
    };
    let (version, trace, parent, flags) = (field(2)?, field(32)?, field(16)?, field(2)?);
    if version == "ff" || (version == "00" && fields.next().is_some()) {
        return None;
    }
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(parent).ok()?,
        TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED,
        true,
        TraceState::default(),
    );
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_or_disregarded() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        for (header, valid) in [
            (format!("00-{trace}-00f067aa0ba902b7-01"), true),
            (format!("00-{trace}-00f067aa0ba902b7-00"), true),
            (format!("cc-{trace}-00f067aa0ba902b7-01-what-the-future-holds"), true),
            (format!("00-{trace}-00f067aa0ba902b7-01-more"), false),
            (format!("ff-{trace}-00f067aa0ba902b7-01"), false),
            (format!("00-{trace}-0000000000000000-01"), false),
            (format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)), false),
            (format!("00-{}-00f067aa0ba902b7-01", trace.to_uppercase()), false),
            (format!("00-{trace}-00f067aa0ba902b7"), false),
            (String::new(), false),
        ] {
            assert_eq!(
                parse(&header).map(|parent| parent.trace_id().to_string()),
                valid.then(|| trace.to_owned()),
                "{header}"
            );
        }
    }
}
