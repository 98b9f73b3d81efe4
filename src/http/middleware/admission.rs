//! The number of requests at work, limited by `MAX_IN_FLIGHT`.

use super::context::RequestContext;
use crate::http::problem::Problem;

/// The routes that are served above the limit, because operators need them during overload.
const ALWAYS_SERVED: [&str; 3] = ["/livez", "/readyz", "/metrics"];

/// Counts a request as at work, until its response has been read by the connection. Rejects it if the limit is reached.
pub(super) fn admit(context: &mut RequestContext) -> Result<(), Problem> {
    if context.route.pattern.is_some_and(|pattern| ALWAYS_SERVED.contains(&pattern)) {
        return Ok(());
    }
    let limit = context.state.limits.max_in_flight;
    if context.guard.begin_work() < limit {
        return Ok(());
    }
    // A rejected request is not at work, however slowly the client reads its response.
    context.guard.end_work();
    Err(Problem::full(limit))
}
