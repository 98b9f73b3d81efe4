//! What every response has: validators, rules for caching, and protective headers.

use libtest_mimic::Trial;

use crate::support::engine::Database;
use crate::support::process::{Answer, Web};
use crate::support::resource::{CHANGE_SECOND, CSV, FIRST, LISTING, RELATED, SECOND, listing};
use crate::support::{Tests, tests};

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!())
        .each(tests![a_copy_is_confirmed_and_not_sent_again])
        .any(tests![stylesheets_are_cached, every_answer_is_guarded])
        .trials()
}

fn a_copy_is_confirmed_and_not_sent_again(database: &Database) {
    let web = Web::seeded(database);
    for path in [LISTING, listing!("?limit=1"), FIRST, RELATED] {
        let first = web.get(path);
        let tag = first.header("etag").unwrap();
        assert!(tag.starts_with('"'), "a strong tag: {tag}");
        assert_eq!(first.header("cache-control"), Some("private, no-cache"));
        // Any process gives the same tag, so a balancer may send the client anywhere.
        assert_eq!(Web::start(database, &[]).get(path).header("etag"), Some(tag));
        let weak = format!("W/{tag}");
        let among = format!("\"other\", {tag}");
        for known in [tag, &weak, &among, "*"] {
            for method in ["GET", "HEAD"] {
                let again = web.send(method, path, &[("if-none-match", known)]);
                assert_eq!((again.status, again.body.as_str()), (304, ""), "{path} {known}");
                for name in ["etag", "cache-control", "link", "vary"] {
                    assert_eq!(again.header(name), first.header(name), "{path} {name}");
                }
            }
        }
        assert_eq!(web.get_with(path, &[("if-none-match", "\"other\"")]).status, 200);
    }
    let tag = web.get(SECOND).header("etag").unwrap().to_owned();
    database.sql().execute(CHANGE_SECOND);
    let changed = web.get_with(SECOND, &[("if-none-match", &tag)]);
    assert_eq!(changed.status, 200);
    assert_ne!(changed.header("etag"), Some(tag.as_str()));
}

/// The path of the stylesheet that every page names.
pub(crate) fn style_of(page: &Answer) -> String {
    style_named(page, "style-")
}

fn style_named(page: &Answer, name: &str) -> String {
    let link = page.body.split('"').find(|text| text.contains(name) && text.contains(".css")).unwrap();
    page.url.join(link).unwrap().path().to_owned()
}

fn stylesheets_are_cached(database: &Database) {
    let web = Web::seeded(database);
    for (page, name) in [("/", "style-"), ("/docs", "docs-")] {
        let style = web.get(&style_named(&web.get(page), name));
        assert_eq!(style.header("content-type"), Some("text/css; charset=utf-8"));
        assert_eq!(style.header("cache-control"), Some("public, max-age=31536000, immutable"));
        // The page of another release has its style, too, which is not cached.
        let other = web.get(&format!("/{name}0123456789abcdef.css"));
        assert_eq!((other.status, other.header("cache-control")), (200, Some("no-store")));
        assert_eq!(other.body, style.body);
    }
}

fn every_answer_is_guarded(database: &Database) {
    let web = Web::seeded(database);
    for (method, path, status) in [
        ("GET", "/", 200),
        ("GET", LISTING, 200),
        ("HEAD", LISTING, 200),
        ("GET", CSV, 200),
        ("GET", FIRST, 200),
        ("GET", RELATED, 200),
        ("GET", "/livez", 200),
        ("GET", "/readyz", 200),
        ("GET", "/metrics", 200),
        ("GET", "/version", 200),
        ("GET", "/docs", 200),
        ("GET", "/favicon.ico", 200),
        ("GET", "/openapi.json", 200),
        ("GET", listing!("?limit=0"), 400),
        ("GET", listing!("/01"), 400),
        ("GET", listing!("/+1"), 400),
        ("GET", listing!("?limit=01"), 400),
        ("GET", listing!("?sort="), 400),
        ("GET", "/nothing", 404),
        ("DELETE", "/", 405),
        ("OPTIONS", "/", 204),
        ("POST", LISTING, 403),
    ] {
        for accept in ["*/*", "text/html"] {
            let answer = web.send(method, path, &[("accept", accept)]);
            if answer.status != 406 {
                assert_eq!(answer.status, status, "{method} {path}");
            }
            for (name, value) in [
                ("x-content-type-options", "nosniff"),
                ("referrer-policy", "no-referrer"),
                ("cross-origin-opener-policy", "same-origin"),
                ("cross-origin-resource-policy", "same-origin"),
            ] {
                assert_eq!(answer.header(name), Some(value), "{method} {path}");
            }
            let policy = answer.header("content-security-policy").unwrap();
            assert!(
                policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe") && !policy.contains("http")
            );
            assert!(answer.header("cache-control").is_some(), "{method} {path} says who may keep it");
            assert_eq!(answer.header("allow"), [204, 405].contains(&answer.status).then_some("GET, HEAD, OPTIONS"));
            if answer.status >= 400 {
                let kind = answer.header("content-type").unwrap();
                let has_page = matches!(path, "/" | "/nothing") || path.starts_with(listing!("/"));
                let is_page = accept == "text/html" && has_page;
                assert_eq!(
                    kind,
                    if is_page { "text/html; charset=utf-8" } else { "application/problem+json" },
                    "{path}"
                );
                assert!(method == "HEAD" || answer.body.contains(answer.header("x-request-id").unwrap()), "{path}");
            }
        }
    }
}
