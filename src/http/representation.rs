//! Which representation of a resource a client wants, and whether it has it already (RFC 9110,
//! sections 12 and 13).

use actix_web::http::header::{self, Accept, ETag, EntityTag, Header as _, HeaderValue, IfNoneMatch, Quality};
use actix_web::{HttpRequest, HttpResponse};
use xxhash_rust::xxh3::xxh3_128;

use super::problem::Problem;
use crate::db::users::User;
use crate::json;

/// A typical user in any format, in bytes: what to reserve for each.
pub const USER_SIZE: usize = 90;

/// What users can be represented as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Ndjson,
    Csv,
    Html,
}

impl Format {
    pub(super) const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv",
            Self::Html => "text/html",
        }
    }

    /// The media type with its parameters, as a header names it.
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Html => "text/html; charset=utf-8",
            format => format.media_type(),
        }
    }

    /// How much a client wants it: by the most specific range that covers it, not at all if none does.
    fn quality(self, accept: &Accept) -> Quality {
        let (own_type, own_subtype) = self.media_type().split_once('/').unwrap_or_default();
        let specificity = |range: &str, subtype: &str| match (range, subtype) {
            (range, subtype) if range == own_type && subtype == own_subtype => Some(2),
            (range, "*") if range == own_type => Some(1),
            ("*", "*") => Some(0),
            _ => None,
        };
        let covering = accept.0.iter().filter_map(|range| {
            let (kind, subtype) = (range.item.type_(), range.item.subtype());
            Some((specificity(kind.as_str(), subtype.as_str())?, range.quality))
        });
        covering.max_by_key(|(specificity, _)| *specificity).map_or(Quality::ZERO, |(_, quality)| quality)
    }
}

/// The format among those offered that the client wants most; the first, if it does not say.
pub(super) fn negotiate(request: &HttpRequest, offered: &[Format]) -> Result<Format, Problem> {
    // Most clients take anything, and need no parser.
    if request.headers().get(header::ACCEPT).is_none_or(|accept| accept == "*/*") {
        return Ok(offered[0]);
    }
    // What it cannot make sense of a server may disregard; the parser leaves it out.
    let Some(accept) = Accept::parse(request).ok().filter(|accept| !accept.0.is_empty()) else { return Ok(offered[0]) };
    let wanted =
        offered.iter().rev().map(|format| (format.quality(&accept), *format)).max_by_key(|(quality, _)| *quality);
    match wanted {
        Some((quality, format)) if quality > Quality::ZERO => Ok(format),
        _ => Err(Problem::not_acceptable(
            offered.iter().map(|format| format.media_type()).collect::<Vec<_>>().join(", "),
        )),
    }
}

/// Writes a user as JSON, straight from its row.
///
/// # Panics
/// Never: numbers and text always fit into memory as JSON.
pub fn write_json(out: &mut Vec<u8>, user: User<'_>) {
    json::write(out, &user).expect("numbers and text are JSON");
}

/// An answer that is complete, or 304 when the client's copy is the same.
pub(super) fn complete(
    request: &HttpRequest,
    format: Format,
    body: Vec<u8>,
    link: Option<HeaderValue>,
) -> HttpResponse {
    // The same bytes have the same tag in every process and every release.
    let tag = EntityTag::new_strong(format!("{:032x}", xxh3_128(&body)));
    // Absent, the header would be parsed as `*`.
    let known = request.headers().contains_key(header::IF_NONE_MATCH)
        && match IfNoneMatch::parse(request) {
            Ok(IfNoneMatch::Any) => true,
            Ok(IfNoneMatch::Items(tags)) => tags.iter().any(|known| known.weak_eq(&tag)),
            Err(_) => false,
        };
    let mut response = if known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response.insert_header(ETag(tag));
    // A user may change at any moment, and is nobody's business but the client's: a private copy is
    // worth keeping, and must be asked about each time.
    response.insert_header((header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache")));
    if let Some(link) = link {
        response.insert_header((header::LINK, link));
    }
    if known {
        return response.finish();
    }
    response.content_type(format.content_type()).body(body)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn negotiated(accept: &str) -> Option<Format> {
        let request = TestRequest::get().insert_header((header::ACCEPT, accept)).to_http_request();
        negotiate(&request, &[Format::Json, Format::Ndjson, Format::Csv]).ok()
    }

    #[test]
    fn the_most_wanted_format_is_given() {
        for (accept, format) in [
            ("*/*", Some(Format::Json)),
            ("text/html, */*;q=0.1", Some(Format::Json)),
            ("application/*", Some(Format::Json)),
            ("text/csv", Some(Format::Csv)),
            ("text/*", Some(Format::Csv)),
            ("TEXT/CSV; charset=utf-8", Some(Format::Csv)),
            ("application/json;q=0.5, application/x-ndjson", Some(Format::Ndjson)),
            ("application/json;q=0, */*", Some(Format::Ndjson)),
            ("application/json;q=0", None),
            ("image/png", None),
            ("nonsense", Some(Format::Json)),
        ] {
            assert_eq!(negotiated(accept), format, "{accept}");
        }
    }
}
