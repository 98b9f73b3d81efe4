//! The description of the API: the committed file, and the page made of it.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use indexmap::IndexMap;
use libtest_mimic::Trial;
use serde_json::Value;

use crate::support::engine::Database;
use crate::support::process::{TOKEN, Web, sampled};
use crate::support::{Tests, tests};

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!())
        .any(tests![
            the_description_is_the_committed_one,
            the_description_has_a_page,
            the_examples_are_what_the_service_does
        ])
        .trials()
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
                  -d &#39;{&#34;username&#34;:&#34;ada&#34;,&#34;email&#34;:&#34;ada@example.com&#34;}&#39;";
    assert!(page.contains(create), "{page}");
    // The operations of the application are before those of the service.
    let order = ["list_users", "get_user", "list_friends", "livez", "errors", "schemas", "schema-User"];
    let order = order.map(|anchor| page.find(&format!(" id=\"{anchor}\"")).unwrap_or_else(|| panic!("{anchor}")));
    assert!(order.is_sorted(), "{order:?}");
    // Every link within the page has its target, and every id is used once.
    let of =
        |attribute: &str| page.split(attribute).skip(1).map(|rest| rest.split('"').next().unwrap()).collect::<Vec<_>>();
    let ids = of(" id=\"");
    assert!(of(" href=\"#").iter().all(|link| ids.contains(link)), "{ids:?}");
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len(), "{ids:?}");
    // A common error is described once, and an error of one operation with it.
    for (error, count) in
        [("The URI is longer than 8 KiB.", 1), ("The token is missing", 1), ("If-Match is missing.", 1)]
    {
        assert_eq!(page.matches(error).count(), count, "{error}");
    }
    assert!(page.find("The token is missing") > page.find("id=\"errors\""));
    assert!(page.find("If-Match is missing.") < page.find("id=\"errors\""));
    // Nothing is loaded from elsewhere, and nothing runs.
    assert!(!page.contains("://") || page.matches("://").count() == page.matches("http://www.w3.org/2000/svg").count());
    assert!(!page.contains("<script") && !page.contains("style="));
}

/// The commands of the page, with the values of the shell's variables. The first sample user makes the examples true.
fn the_examples_are_what_the_service_does(database: &Database) {
    sampled(database, "2");
    let web = Web::writable(database, &[("RELEASE_ID", "v7")]);
    let page = web.get("/docs").body;
    let description = web.get("/openapi.json").json();
    let operations: HashMap<_, _> = description["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|methods| methods.as_object().unwrap().values())
        .map(|operation| (operation["operationId"].as_str().unwrap(), operation))
        .collect();
    let text = |html: &str| {
        ["&#34;", "&#39;", "&#38;", "&#60;", "&#62;"]
            .iter()
            .zip(["\"", "'", "&", "<", ">"])
            .fold(html.to_owned(), |text, (escaped, character)| text.replace(escaped, character))
    };
    let sections = page.split("<section>").skip(1).filter(|section| section.contains("<pre><code>curl "));
    let mut sections: Vec<_> = sections.collect();
    assert_eq!(sections.len(), operations.len(), "{page}");
    // What is removed was needed before.
    sections.sort_by_key(|section| section.contains("curl -X DELETE &#34;$URL/users/1&#34;"));
    for section in sections {
        let mut blocks = section.split("<pre><code>").skip(1).map(|rest| text(rest.split("</code>").next().unwrap()));
        let command = blocks.next().unwrap();
        // With the status after the body.
        let command = format!("{command} --silent --write-out '\\n%{{http_code}}'");
        let mut shell = Command::new("sh");
        shell.args(["-c", &command]).env("URL", web.url("")).env("TOKEN", TOKEN);
        let answer = String::from_utf8(shell.output().unwrap().stdout).unwrap();
        let (body, status) = answer.rsplit_once('\n').unwrap();
        assert!(status.starts_with('2'), "{command}: {answer}");
        let example = blocks.next();
        let name = section.split("<h3 id=\"").nth(1).unwrap().split('"').next().unwrap();
        let first = operations[name]["responses"].as_object().unwrap().values().next().unwrap();
        assert_eq!(example.is_some(), first.get("content").is_some(), "{name} has an example of its response");
        if let Some(example) = example {
            assert!(section.contains(&format!("<small>{status} ")), "{command}: {status}");
            let names = |text: &str| {
                let line = text.lines().next().unwrap();
                let rows: Vec<IndexMap<String, Value>> =
                    serde_json::from_str(line).or_else(|_| serde_json::from_str(line).map(|row| vec![row])).ok()?;
                Some(rows[0].keys().cloned().collect::<Vec<_>>())
            };
            // The same members in the same order; the first line, where it is no JSON.
            match (names(&example), names(body)) {
                (None, None) => assert!(body.contains(example.lines().next().unwrap()), "{command}: {body}"),
                (expected, found) => assert_eq!(expected, found, "{command}"),
            }
        }
    }
}
