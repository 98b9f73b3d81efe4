//! The failure of a handler: an error or a panic, which ends one request and no other.

use std::panic::AssertUnwindSafe;

use actix_web::Error;
use actix_web::body::BoxBody;
use actix_web::dev::ServiceResponse;
use futures_util::FutureExt as _;

use crate::http::problem::Problem;

/// Returns the response of a handler, or the problem of its failure.
pub(super) async fn catch(
    handler: impl Future<Output = Result<ServiceResponse<BoxBody>, Error>>,
) -> Result<ServiceResponse<BoxBody>, Problem> {
    match AssertUnwindSafe(handler).catch_unwind().await {
        Ok(Ok(response)) => match response.response().error() {
            Some(error) => Err(Problem::of(error)),
            None => Ok(response),
        },
        Ok(Err(error)) => Err(Problem::of(&error)),
        Err(_) => Err(Problem::internal(&"a panic, logged where it happened")),
    }
}
