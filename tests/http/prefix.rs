//! The service behind a proxy that publishes it under a path prefix: every link works without a setting. Pages ignore
//! the parameters that other sites append to links.

use std::collections::HashSet;

use libtest_mimic::Trial;
use serde_json::Value;
use url::Url;

use crate::support::engine::Database;
use crate::support::process::{Answer, Web, agent, request, sampled};
use crate::support::resource::{CSV, FIRST, LISTING, NDJSON, RELATED, listing, related};
use crate::support::{Tests, prefix_proxy, tests};

const PREFIX: &str = "/apps/roster";

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!())
        .any(tests![
            every_link_works_behind_a_path_prefix,
            next_pages_work_behind_a_path_prefix,
            the_description_works_behind_a_path_prefix
        ])
        .each(tests![pages_ignore_foreign_parameters])
        .trials()
}

/// A server with more users than a page shows, and its published address.
fn published(database: &Database) -> (Web, Url) {
    sampled(database, "60");
    let web = Web::start(database, &[]);
    let root = prefix_proxy::start(PREFIX, web.port);
    (web, root)
}

/// The published address of a path.
fn under(root: &Url, path: &str) -> Url {
    root.join(path.trim_start_matches('/')).unwrap()
}

fn fetch(url: &Url) -> Answer {
    request(&agent(), "GET", url.clone(), &[("accept", "text/html,*/*;q=0.8")])
}

/// The addresses that a page links to, loads or submits a form to.
fn links(page: &Answer) -> Vec<Url> {
    let values = [" href=", " action="].into_iter().flat_map(|attribute| page.body.split(attribute).skip(1));
    // The quotes of a value are optional.
    let values = values.map(|rest| rest.strip_prefix('"').unwrap_or(rest).split(['"', '>']).next().unwrap());
    let values = values.map(|value| value.replace("&#38;", "&"));
    values.filter(|link| !link.starts_with("mailto:")).map(|link| page.url.join(&link).unwrap()).collect()
}

fn every_link_works_behind_a_path_prefix(database: &Database) {
    let (_web, root) = published(database);
    let errors = ["no", "no/", "no/such/page", "no//such///page", "docs/", related!(1, "/"), related!(99)];
    let errors =
        errors.into_iter().chain(["?limit=0", related!(1, "?limit=0"), "a%2Fb/c"]).map(|path| under(&root, path));
    let errors: Vec<_> = errors.collect();
    for error in &errors {
        let page = fetch(error);
        assert!(page.status >= 400 && page.body.contains("<h1>"), "{error}: {} {}", page.status, page.body);
    }
    let mut open = errors.clone();
    open.push(root.clone());
    let mut seen: HashSet<Url> = open.iter().cloned().collect();
    while let Some(url) = open.pop() {
        let answer = fetch(&url);
        assert!(answer.status == 200 || errors.contains(&url), "{url}: {} {}", answer.status, answer.body);
        if answer.header("content-type") != Some("text/html; charset=utf-8") {
            continue;
        }
        for mut link in links(&answer) {
            link.set_fragment(None);
            assert!(link.as_str().starts_with(root.as_str()), "{url} links to {link}");
            if seen.insert(link.clone()) {
                open.push(link);
            }
        }
    }
    let paths: HashSet<_> = seen.iter().map(|url| url.path().strip_prefix(PREFIX).unwrap()).collect();
    for path in ["/", "/docs", "/openapi.json", "/favicon.ico", FIRST, listing!("/60"), CSV, NDJSON] {
        assert!(paths.contains(path), "{path} was found: {paths:?}");
    }
    for style in ["/style-", "/docs-"] {
        assert!(paths.iter().any(|path| path.starts_with(style)), "{paths:?}");
    }
    for cursor in ["after=", "before="] {
        assert!(seen.iter().any(|url| url.query().is_some_and(|query| query.contains(cursor))), "{seen:?}");
    }
    // The form's address, with what a browser puts into the query.
    let page = fetch(&root);
    let form = page.body.split_once("<form").unwrap().1.split_once(" action=\"").unwrap().1.split('"').next().unwrap();
    let mut search = root.join(form).unwrap();
    search.set_query(Some("q=GUEST"));
    let found = fetch(&search);
    assert_eq!((found.status, found.body.matches("<tr><td>").count()), (200, 1));
}

fn next_pages_work_behind_a_path_prefix(database: &Database) {
    let (web, root) = published(database);
    for path in
        [listing!("?limit=7"), listing!("?limit=7&sort=-email"), listing!("?q=a&limit=1"), related!(1, "?limit=1")]
    {
        let mut next = Some(under(&root, path));
        let mut rows = Vec::new();
        while let Some(url) = next {
            let page = request(&agent(), "GET", url, &[]);
            assert_eq!(page.status, 200, "{}: {}", page.url, page.body);
            rows.extend(page.json().as_array().unwrap().iter().cloned());
            next = page.next().map(|next| page.url.join(&next).unwrap());
            // A client of RFC 2396, such as Java's `URI::resolve`, resolves a query alone against the parent folder.
            assert!(!page.header("link").is_some_and(|link| link.starts_with("<?")), "{:?}", page.headers);
        }
        assert_eq!(rows, web.all(path), "{path}");
        assert!(rows.len() > 1, "{path}");
    }
}

fn the_description_works_behind_a_path_prefix(database: &Database) {
    let (_web, root) = published(database);
    let description = request(&agent(), "GET", root.join("openapi.json").unwrap(), &[]);
    let servers = &description.json()["servers"];
    let server = description.url.join(servers[0]["url"].as_str().unwrap()).unwrap();
    let Value::Object(paths) = &description.json()["paths"] else { panic!("{servers}") };
    for (path, _) in paths.iter().filter(|(_, methods)| methods.get("get").is_some()) {
        let url = format!("{}{}", server.as_str().trim_end_matches('/'), path.replace("{id}", "1"));
        let answer = request(&agent(), "GET", Url::parse(&url).unwrap(), &[]);
        assert_eq!(answer.status, 200, "{url}: {}", answer.body);
    }
}

fn pages_ignore_foreign_parameters(database: &Database) {
    let web = Web::seeded(database);
    let html = [("accept", "text/html,*/*;q=0.8")];
    let foreign = [
        "utm_source=x&utm_medium=y",
        "fbclid=IwAR0_x-Y",
        "gclid=a&gclid=b",
        "utm_source=%ff%00&%ff=%zz",
        "&&=&==&%",
        "page=2",
        "Limit=0",
    ];
    for path in ["/", FIRST, RELATED, "/docs"] {
        let plain = web.get_with(path, &html);
        for query in foreign {
            let page = web.get_with(&format!("{path}?{query}"), &html);
            assert_eq!((page.status, &page.body), (200, &plain.body), "{path}?{query}");
        }
    }
    // Known parameters apply. Links contain only these.
    let page = web.get_with("/?utm_source=x&limit=1&fbclid=y", &html);
    assert_eq!(page.body.matches("<tr><td>").count(), 1);
    assert!(!page.body.contains("utm_source") && !page.body.contains("fbclid"), "{}", page.body);
    assert_eq!(web.get_with(related!(1, "?q=x&sort=email&after=forged"), &html).status, 400);
    for (path, names) in [("/", "limit"), (RELATED, "after")] {
        let page = web.get_with(&format!("{path}?utm_source=x&{names}=0"), &html);
        assert!(page.status == 400 && page.body.contains(&format!("<p>{names}: ")), "{}", page.body);
    }
    // The API rejects unknown parameters.
    for path in [LISTING, CSV, NDJSON, FIRST, RELATED] {
        for query in foreign.into_iter().filter(|query| !query.starts_with('&')) {
            assert_eq!(web.get(&format!("{path}?{query}")).status, 400, "{path}?{query}");
        }
    }
}
