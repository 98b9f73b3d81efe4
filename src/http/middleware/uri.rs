//! The length of a request's URI.

use actix_web::dev::ServiceRequest;

use crate::http::limits::URI_MAX;
use crate::http::problem::Problem;

/// Rejects a request whose URI is too long.
pub(super) fn check(request: &ServiceRequest) -> Result<(), Problem> {
    let length = request.uri().path_and_query().map_or(0, |uri| uri.as_str().len());
    if length > URI_MAX { Err(Problem::uri_too_long()) } else { Ok(()) }
}
