//! The description of the API: the committed file, and the page made of it.

use std::fs;
use std::path::Path;

use libtest_mimic::Trial;

use crate::support::engine::Database;
use crate::support::process::Web;
use crate::support::{Tests, tests};

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!()).any(tests![the_description_is_the_committed_one, the_description_has_a_page]).trials()
}

fn the_description_is_the_committed_one(database: &Database) {
    let web = Web::start(database, &[]);
    let served = web.get("/openapi.json");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let committed = fs::read_to_string(file).unwrap();
    assert!(committed == served.body, "openapi.json is not what is served");
    let description = served.json();
    assert_eq!(description["openapi"], "3.1.0");
    for path in description["paths"].as_object().unwrap().keys() {
        let path = path.replace("{id}", "1");
        assert_ne!(web.send("POST", &path, &[]).status, 404, "{path} is a resource");
    }
}

fn the_description_has_a_page(database: &Database) {
    let web = Web::start(database, &[]);
    let description = web.get("/openapi.json").json();
    let page = web.get("/docs").body;
    for (path, methods) in description["paths"].as_object().unwrap() {
        assert!(page.contains(&format!("<b>GET</b> {path}</code>")), "{path}");
        for parameter in methods["get"]["parameters"].as_array().into_iter().flatten() {
            assert!(page.contains(&format!("<code>{}</code>", parameter["name"].as_str().unwrap())), "{parameter}");
        }
    }
    // Nothing is loaded from elsewhere, and nothing runs.
    assert!(!page.contains("://") || page.matches("://").count() == page.matches("http://www.w3.org/2000/svg").count());
    assert!(!page.contains("<script") && !page.contains("style="));
}
