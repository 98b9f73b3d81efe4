//! The stylesheet of the pages, and the relative references to it.

use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse};

/// The stylesheet of every page.
const STYLE: &str = include_str!("../../templates/style.css");
/// Its name, which changes with its content, so a browser may cache it indefinitely.
pub(crate) const STYLE_NAME: &str = concat!("style-", env!("STYLE_HASH"), ".css");

/// The relative reference from a path to the root of the service, such as `../../` from `/books/1/authors` (RFC 3986,
/// section 5.2). Every link starts with it, because a proxy may publish the service under a prefix that it strips.
pub(crate) fn root(path: &str) -> String {
    // No resource has a path that deep. Without the limit, an error page could be several times as long as its request.
    const DEEPEST: usize = 100;
    match path.bytes().filter(|byte| *byte == b'/').count() {
        0 | 1 => "./".to_owned(),
        slashes => "../".repeat((slashes - 1).min(DEEPEST)),
    }
}

/// `GET /style-{hash}.css`. During a rolling update, a page of one release may request the stylesheet from a process of
/// another. It gets the one that exists, without permission to cache it.
pub(super) async fn style(request: HttpRequest) -> HttpResponse {
    let kept = if request.path().strip_prefix('/') == Some(STYLE_NAME) {
        "public, max-age=31536000, immutable"
    } else {
        "no-store"
    };
    HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, HeaderValue::from_static(kept)))
        .content_type("text/css; charset=utf-8")
        .body(STYLE)
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
            ("/books/1/authors", "../../"),
            ("/books/1/authors/", "../../../"),
            ("//a", "../"),
            ("/a%2Fb/c", "../"),
        ] {
            assert_eq!(root(path), expected, "{path}");
        }
        assert_eq!(root(&"/".repeat(8000)).len(), 300);
    }
}
