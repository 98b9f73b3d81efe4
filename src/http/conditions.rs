//! Conditional requests (RFC 9110, section 13).

use actix_web::HttpRequest;
use actix_web::http::header::{self, EntityTag, Header as _, HeaderName, IfMatch, IfNoneMatch};
use xxhash_rust::xxh3::xxh3_128;

use super::problem::Problem;

/// The tag of a representation. The same bytes have the same tag in every process and every release.
pub(super) fn tag(body: &[u8]) -> EntityTag {
    EntityTag::new_strong(format!("{:032x}", xxh3_128(body)))
}

/// Whether the request depends on the state of its resource.
#[must_use]
pub fn is_conditional(request: &HttpRequest) -> bool {
    [header::IF_MATCH, header::IF_NONE_MATCH].iter().any(|name| request.headers().contains_key(name))
}

/// Requires that a request names the state that it changes, so that no change is lost (RFC 6585, section 3).
///
/// # Errors
/// 428.
pub fn require_match(request: &HttpRequest) -> Result<(), Problem> {
    if request.headers().contains_key(header::IF_MATCH) {
        return Ok(());
    }
    Err(Problem::precondition_required(
        "If-Match: required; send the ETag of the state that is to be changed, or * to change any",
    ))
}

/// Checks the conditions of a request that writes. `current` is the representation that a GET would return. None if there
/// is none.
///
/// # Errors
/// 412, and 400 if a condition is not valid.
pub fn check(request: &HttpRequest, current: Option<&[u8]>) -> Result<(), Problem> {
    if !is_conditional(request) {
        return Ok(());
    }
    check_syntax(request, header::IF_MATCH, "If-Match")?;
    check_syntax(request, header::IF_NONE_MATCH, "If-None-Match")?;
    let tag = current.map(tag);
    check_match(request, tag.as_ref())?;
    if is_known(request, tag.as_ref()) {
        return Err(Problem::precondition_failed("If-None-Match: the resource exists, or has one of these ETags"));
    }
    Ok(())
}

/// Refuses a header that is neither `*` nor a list of tags. The parser would ignore what is not a tag.
fn check_syntax(request: &HttpRequest, header: HeaderName, name: &'static str) -> Result<(), Problem> {
    let lines: Vec<_> = request.headers().get_all(header).map(|line| line.to_str().unwrap_or_default()).collect();
    let list = lines.join(",");
    // Empty elements of a list are ignored (RFC 9110, section 5.6.1.2).
    let mut elements = list.split(',').map(str::trim).filter(|element| !element.is_empty()).peekable();
    let is_tag = |text: &str| text.parse::<EntityTag>().is_ok();
    if lines.is_empty() || list.trim() == "*" || elements.peek().is_some() && elements.all(is_tag) {
        return Ok(());
    }
    Err(Problem::bad_parameter(name, "expected * or ETags, each in quotation marks"))
}

/// Checks the header `If-Match`.
pub(super) fn check_match(request: &HttpRequest, current: Option<&EntityTag>) -> Result<(), Problem> {
    // An absent header would be parsed as `*`.
    if !request.headers().contains_key(header::IF_MATCH) {
        return Ok(());
    }
    let is_met = match (IfMatch::parse(request), current) {
        (Ok(IfMatch::Any), Some(_)) => true,
        (Ok(IfMatch::Items(tags)), Some(current)) => tags.iter().any(|tag| tag.strong_eq(current)),
        _ => false,
    };
    if is_met { Ok(()) } else { Err(Problem::precondition_failed("If-Match: the content has another ETag")) }
}

/// Whether the header `If-None-Match` has the tag of the current representation.
pub(super) fn is_known(request: &HttpRequest, current: Option<&EntityTag>) -> bool {
    let (Some(current), true) = (current, request.headers().contains_key(header::IF_NONE_MATCH)) else { return false };
    match IfNoneMatch::parse(request) {
        Ok(IfNoneMatch::Any) => true,
        Ok(IfNoneMatch::Items(tags)) => tags.iter().any(|tag| tag.weak_eq(current)),
        Err(_) => false,
    }
}
