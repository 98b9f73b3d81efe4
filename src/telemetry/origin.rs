//! The request that causes work, and its trace (W3C Trace Context).

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// The ids of the request that caused some work.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The request id.
    pub request_id: String,
    /// The header `traceparent` of its response, which has the id of its span.
    pub traceparent: String,
}

/// Reads a `traceparent`. None if it does not have the form of the standard.
pub(crate) fn parse_traceparent(header: &str, state: TraceState) -> Option<SpanContext> {
    let header = Some(header).filter(|header| is_traceparent(header))?;
    let (trace_id, span_id) = (TraceId::from_hex(&header[3..35]).ok()?, SpanId::from_hex(&header[36..52]).ok()?);
    let flags = TraceFlags::new(u8::from_str_radix(&header[53..55], 16).ok()?) & TraceFlags::SAMPLED;
    Some(SpanContext::new(trace_id, span_id, flags, true, state)).filter(SpanContext::is_valid)
}

/// Whether a `traceparent` has the form of the standard: version, trace, parent and flags in lower-case hexadecimal digits
/// of fixed lengths. A later version may append fields, and `ff` is none.
fn is_traceparent(header: &str) -> bool {
    let is_valid = |(at, byte)| match at {
        2 | 35 | 52 | 55 => byte == b'-',
        0..55 => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        _ => true,
    };
    let is_complete = header.len() == 55 || (header.len() > 55 && !header.starts_with("00"));
    is_complete && !header.starts_with("ff") && header.bytes().enumerate().all(is_valid)
}
