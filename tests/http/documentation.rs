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
        let path = path.replace("{id}", "1").replace("{friend_id}", "2");
        assert_ne!(web.send("POST", &path, &[]).status, 404, "{path} is a resource");
    }
}

fn the_description_has_a_page(database: &Database) {
    let web = Web::start(database, &[]);
    let description = web.get("/openapi.json").json();
    let page = web.get("/docs").body;
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            assert!(page.contains(&format!("<b>{}</b> {path}</code>", method.to_uppercase())), "{method} {path}");
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                assert!(page.contains(&format!("<code>{}</code>", parameter["name"].as_str().unwrap())), "{parameter}");
            }
        }
    }
    let create = "curl -X POST &#34;$URL/users&#34; -H &#34;Authorization: Bearer $TOKEN&#34; \
                  -H &#39;Content-Type: application/json&#39; \
                  -d &#39;{&#34;email&#34;:&#34;ada@example.com&#34;,&#34;username&#34;:&#34;ada&#34;}&#39;";
    assert!(page.contains(create), "{page}");
    // Nothing is loaded from elsewhere, and nothing runs.
    assert!(!page.contains("://") || page.matches("://").count() == page.matches("http://www.w3.org/2000/svg").count());
    assert!(!page.contains("<script") && !page.contains("style="));
}
