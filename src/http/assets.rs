//! What the pages share: the stylesheets, the icon, and the relative references to them.

use actix_web::http::header::{self, HeaderValue};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};

use super::state::State;

/// The stylesheet of every page.
const STYLE: &str = include_str!("../../templates/style.css");
/// The additional stylesheet of the documentation.
const DOCS_STYLE: &str = include_str!("../../templates/docs.css");
/// The icon, which browsers request by this name also when no page names it.
const ICON: &str = include_str!("../../templates/favicon.svg");
/// The name of a stylesheet changes with its content, so a browser may cache it indefinitely.
const STYLE_NAME: &str = concat!("style-", env!("STYLE_HASH"), ".css");
pub(super) const DOCS_STYLE_NAME: &str = concat!("docs-", env!("DOCS_STYLE_HASH"), ".css");

/// What surrounds the content of every page.
pub struct Frame<'a> {
    /// See [`root`].
    pub(crate) root: String,
    pub(crate) style: &'static str,
    pub(crate) version: &'static str,
    /// None without `RELEASE_ID`.
    pub(crate) release: Option<&'a str>,
}

impl<'a> Frame<'a> {
    /// The frame of the page of a request.
    ///
    /// # Panics
    /// Without the state of the process.
    #[must_use]
    pub fn of(request: &'a HttpRequest) -> Self {
        let state = request.app_data::<Data<State>>().expect("the route table has the state");
        Self::new(root(request.path()), state.release_id.as_deref())
    }

    pub(super) const fn new(root: String, release: Option<&'a str>) -> Self {
        Self { root, style: STYLE_NAME, version: env!("CARGO_PKG_VERSION"), release }
    }
}

/// The relative reference from a path to the root of the service, such as `../../` from `/songs/1/singers` (RFC 3986,
/// section 5.2). Every link starts with it, because a proxy may publish the service under a prefix that it strips.
pub(super) fn root(path: &str) -> String {
    // No resource has a path that deep. Without the limit, an error page could be several times as long as its request.
    const DEEPEST: usize = 100;
    match path.bytes().filter(|byte| *byte == b'/').count() {
        0 | 1 => "./".to_owned(),
        slashes => "../".repeat((slashes - 1).min(DEEPEST)),
    }
}

/// `GET /style-{hash}.css`
pub(super) async fn style(request: HttpRequest) -> HttpResponse {
    stylesheet(&request, STYLE_NAME, STYLE)
}

/// `GET /docs-{hash}.css`
pub(super) async fn docs_style(request: HttpRequest) -> HttpResponse {
    stylesheet(&request, DOCS_STYLE_NAME, DOCS_STYLE)
}

/// During a rolling update, a page of one release may request the stylesheet from a process of another. It gets the one that
/// exists, without permission to cache it.
fn stylesheet(request: &HttpRequest, name: &str, style: &'static str) -> HttpResponse {
    let cache_control =
        if request.path().strip_prefix('/') == Some(name) { "public, max-age=31536000, immutable" } else { "no-store" };
    respond(cache_control, "text/css; charset=utf-8", style)
}

/// `GET /favicon.ico`. Browsers read the type of an icon from its header, so it can be drawn by SVG.
pub(super) async fn icon() -> HttpResponse {
    respond("public, max-age=86400", "image/svg+xml", ICON)
}

fn respond(cache_control: &'static str, content_type: &'static str, body: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, HeaderValue::from_static(cache_control)))
        .content_type(content_type)
        .body(body)
}

#[cfg(test)]
mod tests {
    use super::root;

    #[test]
    fn the_root_is_reached_from_any_depth() {
        for (path, expected) in [
            ("*", "./"),
            ("/", "./"),
            ("/docs", "./"),
            ("/docs/", "../"),
            ("/songs/1/singers", "../../"),
            ("/songs/1/singers/", "../../../"),
            ("//a", "../"),
            ("/a%2Fb/c", "../"),
        ] {
            assert_eq!(root(path), expected, "{path}");
        }
        assert_eq!(root(&"/".repeat(8000)).len(), 300);
    }
}
