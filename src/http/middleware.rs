//! What surrounds the handler of each request: [`stack`] shows the order, and each part has a file.

mod access_log;
mod admission;
mod authorization;
mod body;
mod client_address;
mod context;
mod method;
mod panic;
mod request_id;
pub(crate) mod security_headers;
mod timeout;
mod trace;
mod uri;

use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage as _, HttpRequest};
use tracing::Instrument as _;

use super::problem::Problem;
use super::route::{Route, is_safe};
use crate::telemetry::Origin;
pub(crate) use authorization::Client;
pub(crate) use context::{RequestContext, Transport};

/// Serves a request of a route. Its context adds the request id, the trace and the line of the access log.
///
/// # Errors
/// Every problem, as an error that is already a complete response: a panic or a timeout drops the request that a middleware
/// needs for any other response.
pub(super) async fn serve(
    route: Route,
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let mut context = RequestContext::new(route, &request);
    match stack(&mut context, request, next).await {
        Ok(response) => {
            let (request, response) = response.into_parts();
            Ok(ServiceResponse::new(request, context.respond(response)))
        }
        Err(problem) => Err(context.fail(&problem)),
    }
}

/// The ids of a request that writes, for work that it causes.
#[must_use]
pub fn origin(request: &HttpRequest) -> Origin {
    request.extensions().get().cloned().unwrap_or_default()
}

/// The middleware in its order, the handler last.
async fn stack(
    context: &mut RequestContext,
    mut request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, Problem> {
    admission::admit(context)?;
    uri::check(&request)?;
    body::receive(context, &mut request).await?;
    if let Some(response) = method::check(context.route, &request)? {
        return Ok(request.into_response(response));
    }
    authorization::authorize(context, &request)?;
    if !is_safe(request.method().as_str()) {
        request.extensions_mut().insert(context.origin());
    }
    timeout::limit(context, panic::catch(next.call(request).instrument(context.span()))).await
}
