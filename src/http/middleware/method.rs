//! The methods of a resource.

use actix_web::HttpResponse;
use actix_web::dev::ServiceRequest;
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderValue};

use crate::http::problem::Problem;
use crate::http::representation::ACCEPT_PATCH;
use crate::http::route::Route;

/// The response to `OPTIONS`, which needs no handler (RFC 9110, section 9.3.7).
///
/// # Errors
/// 405, if the resource does not have the method of the request.
pub(super) fn check(route: Route, request: &ServiceRequest) -> Result<Option<HttpResponse>, Problem> {
    let (method, methods) = (request.method(), route.methods);
    if route.pattern.is_none() || methods.contains(method) {
        return Ok(None);
    }
    if method != Method::OPTIONS {
        return Err(Problem::method_not_allowed(methods));
    }
    let mut response = HttpResponse::NoContent();
    response.insert_header((header::ALLOW, methods.to_string()));
    response.insert_header((header::CACHE_CONTROL, HeaderValue::from_static("no-store")));
    if methods.contains(&Method::PATCH) {
        response.insert_header(ACCEPT_PATCH);
    }
    Ok(Some(response.finish()))
}
