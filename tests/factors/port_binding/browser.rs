//! The pages, as people have them: in a real browser, by keyboard, on a small screen, in the dark, and
//! as a screen reader understands them.

use serde_json::Value;

use crate::support::browser::Browser;
use crate::support::engine::{Database, Engine};
use crate::support::process::{Web, import_csv, migrated};
use crate::support::tool::Tool;
use crate::support::{Factor, eventually};

/// WebDriver's names of keys.
const TAB: char = '\u{e004}';
const ENTER: char = '\u{e007}';

pub(super) fn tests(factor: Factor) -> Factor {
    factor
        .judged_by(Tool::Chromedriver, &Engine::ALL, "people_find_their_way", people_find_their_way)
        .judged_by(Tool::Chromedriver, &[Engine::Sqlite], "the_keyboard_suffices", the_keyboard_suffices)
        .judged_by(Tool::Chromedriver, &[Engine::Sqlite], "pages_are_accessible", pages_are_accessible)
}

/// A table that has more than a page.
fn web(database: &Database) -> Web {
    migrated(database, &["up"]);
    migrated(database, &["seed", "120"]);
    Web::start(database, &[])
}

fn people_find_their_way(database: &Database) {
    let web = web(database);
    let browser = Browser::start();
    browser.open(&web.url("/"));
    let names = || browser.texts("tbody th");
    assert_eq!(browser.texts("h1"), ["Users"]);
    assert_eq!((names().len(), &*names()[0], &*names()[1]), (50, "admin", "guest"));

    // Page by page, and back to the first.
    let mut seen = names();
    browser.follow("a[rel=next]");
    seen.extend(names());
    browser.follow("a[rel=next]");
    seen.extend(names());
    assert_eq!(seen.len(), 120);
    let mut distinct = seen.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), 120);
    assert!(browser.texts("a[rel=next]").is_empty());
    browser.follow("a[rel=first]");
    assert_eq!(names()[0], "admin");

    // By another column, one way and the other.
    browser.follow("thead th:nth-child(2) a");
    assert_eq!(browser.evaluate("document.querySelector('[aria-sort=ascending]').innerText"), "Username");
    assert!(names().is_sorted());
    browser.follow("thead th:nth-child(2) a");
    assert_eq!(browser.evaluate("document.querySelector('[aria-sort=descending]').innerText"), "Username");
    assert!(names().is_sorted_by(|one, other| one >= other));

    // A search, what it finds, and what it does not.
    browser.type_into("#q", "GUEST");
    browser.follow("form button");
    assert_eq!(names(), ["guest"]);
    assert_eq!(browser.evaluate("document.querySelector('#q').value"), "GUEST");
    browser.follow("form a");
    assert_eq!(names().len(), 50);
    browser.type_into("#q", "<nobody>");
    browser.follow("form button");
    assert_eq!(browser.texts("main p"), ["No user begins with “<nobody>”."]);

    // A user, and a friend of theirs.
    browser.open(&web.url("/?q=admin@"));
    browser.follow("tbody a");
    assert_eq!(browser.texts("h1"), ["admin"]);
    let friend = names().remove(0);
    browser.follow("tbody a");
    assert_eq!(browser.texts("h1"), [friend]);
    browser.follow("a.back");
    assert_eq!(browser.texts("h1"), ["Users"]);
    assert_eq!(browser.complaints(), [""; 0], "nothing was forbidden, and nothing failed");

    // What went wrong, in words.
    browser.open(&web.url("/?limit=0"));
    assert!(browser.texts("main p")[0].contains("limit: it must be a whole number from 1 to 1000"));
    browser.open(&web.url("/no/such/page"));
    assert!(browser.texts("h1")[0].ends_with("Not Found"));
}

fn the_keyboard_suffices(database: &Database) {
    let web = web(database);
    let browser = Browser::start();
    browser.open(&web.url("/"));
    let focus = || browser.evaluate("document.activeElement.innerText || document.activeElement.id");
    let mut order = Vec::new();
    for _ in 0..8 {
        browser.press(TAB);
        order.push(focus());
        let outline = browser.evaluate("getComputedStyle(document.activeElement).outlineStyle");
        assert_ne!(outline, "none", "the focus is seen on {}", order.last().unwrap());
    }
    assert_eq!(order, ["roster", "API documentation", "q", "Search", "Id", "Username", "E-mail", "admin"]);
    browser.press(ENTER);
    eventually("the page changes", || browser.texts("h1") == ["admin"]);
}

fn pages_are_accessible(database: &Database) {
    let web = web(database);
    let long = format!("username,email\n{},{}@long.example.com\n", "w".repeat(80), "m".repeat(100));
    assert!(import_csv(database, &long).status.success());
    let browser = Browser::start();
    for path in ["/", "/?q=zzz", "/?q=wwww", "/?limit=0", "/users/1/friends", "/users/122/friends", "/docs", "/nowhere"]
    {
        for (width, scheme) in [(320, "light"), (320, "dark"), (1280, "light"), (1280, "dark")] {
            browser.view(width, scheme);
            browser.open(&web.url(path));
            let wide = browser.evaluate("document.documentElement.scrollWidth");
            assert!(wide.as_u64().unwrap() <= u64::from(width), "{path} is {wide} wide in a window of {width}");
            assert_eq!(browser.evaluate("getComputedStyle(document.body).margin"), "0px", "it has its style");
            let dark = browser.evaluate("matchMedia('(prefers-color-scheme: dark)').matches");
            assert_eq!(dark, scheme == "dark");
            assert_eq!(browser.violations(), [Value::Null; 0], "{path} at {width} in {scheme}");
        }
    }
    // As the README shows it.
    browser.view(320, "light");
    browser.open(&web.url("/"));
    assert!(browser.picture().len() > 10_000);
}
