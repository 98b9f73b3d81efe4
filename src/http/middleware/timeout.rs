//! The time for a whole request, limited by `REQUEST_TIMEOUT_MS`.

use tokio::time::timeout_at;

use super::context::RequestContext;
use crate::http::problem::Problem;

/// Drops a handler that has no response in time.
pub(super) async fn limit<T>(
    context: &RequestContext,
    handler: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    let response = timeout_at(context.deadline().into(), handler).await;
    response.unwrap_or_else(|_| Err(Problem::too_slow(context.state.limits.request_timeout)))
}
