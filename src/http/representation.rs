//! Representations: content negotiation (RFC 9110, section 12), and complete responses.

use std::borrow::Cow;

use actix_web::http::header::{self, ETag, HeaderMap, HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use askama::Template;

use super::conditions::{check_match, is_known, tag};
use super::problem::Problem;

/// The formats of resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON value.
    Json,
    /// One JSON object a line.
    Ndjson,
    /// With a header.
    Csv,
    /// A page.
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
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Html => "text/html; charset=utf-8",
            format => format.media_type(),
        }
    }
}

/// The media types that a client accepts (RFC 9110, section 12.5.1).
struct Accept<'a>(Cow<'a, str>);

impl<'a> Accept<'a> {
    /// None if the header is absent, `*/*` or not valid. This is so for most requests, and they need no parser.
    fn of(headers: &'a HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(header::ACCEPT).filter_map(|accept| accept.to_str().ok());
        let first = lines.next()?;
        // Several lines are one list (RFC 9110, section 5.3).
        let accept = lines.fold(Cow::Borrowed(first), |list, line| Cow::Owned(format!("{list}, {line}")));
        (accept != "*/*").then_some(Self(accept)).filter(Self::is_valid)
    }

    /// The weight of a media type, from 0 to 1: that of the most specific range that covers it, or 0.
    fn weight(&self, media_type: &str) -> f32 {
        let (own_type, _) = media_type.split_once('/').unwrap_or_default();
        let specificity = |range: &str| match range.split_once('/') {
            _ if range.eq_ignore_ascii_case(media_type) => Some(2),
            Some((kind, "*")) if kind.eq_ignore_ascii_case(own_type) => Some(1),
            Some(("*", "*")) => Some(0),
            // Java's HttpURLConnection sends it for every type.
            None if range == "*" => Some(0),
            _ => None,
        };
        let covering = self.0.split(',').filter_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let specificity = specificity(parts.next()?)?;
            let weight = parts
                .filter_map(|parameter| parameter.split_once('='))
                .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
            let weight = weight.map_or(Some(1.0), |(_, weight)| weight.trim().parse().ok());
            Some((specificity, weight.filter(|weight| (0.0..=1.0).contains(weight))?))
        });
        covering.max_by_key(|(specificity, _)| *specificity).map_or(0.0, |(_, weight)| weight)
    }

    /// Whether the header contains a media range. A server may ignore an invalid header.
    fn is_valid(&self) -> bool {
        self.0.contains(['/', '*'])
    }
}

/// The format among those offered that the client prefers; the first, if it has no preference.
///
/// # Errors
/// 406, if the client accepts none of them.
pub fn negotiate(request: &HttpRequest, offered: &[Format]) -> Result<Format, Problem> {
    let Some(accept) = Accept::of(request.headers()) else { return Ok(offered[0]) };
    let mut preferred = (offered[0], 0.0);
    for &format in offered {
        let weight = accept.weight(format.media_type());
        if weight > preferred.1 {
            preferred = (format, weight);
        }
    }
    if preferred.1 > 0.0 {
        return Ok(preferred.0);
    }
    Err(Problem::not_acceptable(offered.iter().map(|format| format.media_type()).collect::<Vec<_>>().join(", ")))
}

/// A response whose format was negotiated, so that a cache keeps one for each format.
pub fn negotiated(mut response: HttpResponse) -> HttpResponse {
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    response
}

/// Whether a client prefers a page to JSON for an error.
pub(super) fn prefers_page(headers: &HeaderMap) -> bool {
    prefers(headers, "text/html", &["application/problem+json", "application/json"])
}

/// Whether a client prefers a media type to each of the others.
pub(super) fn prefers(headers: &HeaderMap, media_type: &str, others: &[&str]) -> bool {
    Accept::of(headers).is_some_and(|accept| {
        let weight = accept.weight(media_type);
        others.iter().all(|other| weight > accept.weight(other))
    })
}

/// A complete response with its `ETag`, or 304 if the client has the same content.
///
/// # Errors
/// 412, if the client requires other content with `If-Match`.
pub fn respond_with_etag(
    request: &HttpRequest,
    format: Format,
    body: Vec<u8>,
    link: Option<HeaderValue>,
) -> Result<HttpResponse, Problem> {
    let tag = tag(&body);
    check_match(request, Some(&tag))?;
    let known = is_known(request, Some(&tag));
    let mut response = if known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response.insert_header(ETag(tag)).insert_header(NOT_SHARED);
    if let Some(link) = link {
        response.insert_header((header::LINK, link));
    }
    if known {
        return Ok(response.finish());
    }
    Ok(response.content_type(format.content_type()).body(body))
}

/// The state of a resource after a request that changed it.
#[must_use]
pub fn respond_with_state(json: Vec<u8>) -> HttpResponse {
    state(HttpResponse::Ok(), json)
}

/// The response to a request that was done and has no content.
#[must_use]
pub fn respond_without_content() -> HttpResponse {
    HttpResponse::NoContent().insert_header((header::CACHE_CONTROL, HeaderValue::from_static("no-store"))).finish()
}

/// The response to a request that created a resource at this URL, which is relative to the request.
pub(super) fn created(location: &str, json: Vec<u8>) -> HttpResponse {
    let mut response = HttpResponse::Created();
    response.insert_header((header::LOCATION, location));
    state(response, json)
}

fn state(mut response: HttpResponseBuilder, json: Vec<u8>) -> HttpResponse {
    response.insert_header(ETag(tag(&json))).insert_header(NOT_SHARED);
    response.content_type(Format::Json.content_type()).body(json)
}

/// The content may change at any time, and may be personal. A client may keep a private copy, if it validates the copy before
/// each use.
const NOT_SHARED: (HeaderName, HeaderValue) = (header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));

/// The media type of a change (RFC 5789, section 3.1).
pub(super) const ACCEPT_PATCH: (HeaderName, HeaderValue) =
    (HeaderName::from_static("accept-patch"), HeaderValue::from_static("application/merge-patch+json"));

/// A page rendered from a template, with its `ETag`.
///
/// # Errors
/// 412, if the client requires other content with `If-Match`.
pub fn respond_with_page(request: &HttpRequest, page: &impl Template) -> Result<HttpResponse, Problem> {
    let html = page.render().map_err(|error| Problem::internal(&error))?;
    respond_with_etag(request, Format::Html, html.into_bytes(), None)
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
            // Older versions of Java's HttpURLConnection.
            ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", Some(Format::Json)),
            ("text/csv;q=.3, *;q=.2", Some(Format::Csv)),
            ("text/csv;Q=0.3, application/json;q=0.2", Some(Format::Csv)),
            ("text/csv;q=2, application/x-ndjson;q=0.1", Some(Format::Ndjson)),
            ("text/csv;header=present;q=0.5, application/json;q=0.4", Some(Format::Csv)),
            ("", Some(Format::Json)),
        ] {
            assert_eq!(negotiated(accept), format, "{accept}");
        }
    }

    #[test]
    fn several_lines_are_one_list() {
        let request = TestRequest::get()
            .append_header((header::ACCEPT, "application/json;q=0.1"))
            .append_header((header::ACCEPT, "text/csv"));
        let offered = [Format::Json, Format::Ndjson, Format::Csv];
        assert_eq!(negotiate(&request.to_http_request(), &offered).ok(), Some(Format::Csv));
    }

    #[test]
    fn an_error_has_the_preferred_format() {
        for (accept, is_page) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", true),
            ("TEXT/HTML", true),
            ("text/*", true),
            ("text/html;q=0", false),
            ("text/html;q=0.5, application/json", false),
            ("application/problem+json;q=0.6, text/html;q=0.7", true),
            ("*/*", false),
            ("text/html, */*", false),
            ("", false),
        ] {
            let request = TestRequest::get().insert_header((header::ACCEPT, accept)).to_http_request();
            assert_eq!(prefers_page(request.headers()), is_page, "{accept}");
        }
    }
}
