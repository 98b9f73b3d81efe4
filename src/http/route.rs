//! A route, as the route table names it.

/// The route of a request.
#[derive(Clone, Copy, Default)]
pub(crate) struct Route {
    /// The pattern of its path, if there is such a resource. Logs and metrics have it instead of the path, which may hold
    /// anything.
    pub(super) pattern: Option<&'static str>,
    /// Whether browsers receive its errors as a page.
    pub(super) has_page: bool,
}
