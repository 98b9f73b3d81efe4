//! The id of a request: the client's, or a new one.

use actix_web::http::header::{HeaderMap, HeaderName};

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id that is accepted from a client, in bytes.
const LONGEST: usize = 128;

/// The id of the request with these headers.
pub(super) fn of(headers: &HeaderMap) -> String {
    let id = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(|id| is_valid(id));
    id.map_or_else(|| format!("{:032x}", fastrand::u128(..)), str::to_owned)
}

/// Whether a client's id can be written unchanged to a header, to JSON and to quoted text: it has visible characters
/// only, without quotes or a backslash.
fn is_valid(id: &str) -> bool {
    (1..=LONGEST).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic() && !b"\"'\\".contains(&b))
}
