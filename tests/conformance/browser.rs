//! The pages, as people have them: in a real browser, by keyboard, on a small screen, in the dark, and
//! as a screen reader understands them.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::engine::{Database, Engine};
use crate::support::process::{Web, import_csv, migrated};
use crate::support::resource::{RELATED, related};
use crate::support::tool::Tool;
use crate::support::{Tests, eventually, tests};

/// WebDriver's names of keys.
const TAB: char = '\u{e004}';
const ENTER: char = '\u{e007}';

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!())
        .with_tool(Tool::Chromedriver, &Engine::ALL, tests![people_find_their_way])
        .with_tool(
            Tool::Chromedriver,
            &[Engine::any()],
            tests![
                the_keyboard_suffices,
                the_focus_is_seen_and_covers_nothing,
                a_row_is_read_at_any_width,
                a_printed_page_has_the_rows_alone,
                // [only original]
                the_readme_shows_what_people_see,
                // [end]
                pages_are_accessible
            ],
        )
        .trials()
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
    assert_eq!(browser.texts("#shown"), ["Users 101–120 of 120"]);
    let mut distinct = seen.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), 120);
    assert!(browser.texts("a[rel=next]").is_empty());
    browser.follow("a[rel=prev]");
    assert_eq!(names(), seen[50..100]);
    browser.follow("a[rel=prev]");
    assert_eq!(names(), seen[..50]);
    assert!(browser.texts("a[rel=prev], a[rel=first]").is_empty());
    browser.follow("a[rel=next]");
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
    assert_eq!(browser.texts("main p"), ["No username or e-mail address begins with “<nobody>”. Show all users"]);
    browser.follow("main p a");
    assert_eq!(names().len(), 50);

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
    assert!(browser.texts("main p")[0].contains("limit: expected an integer from 1 to 1000, got \"0\""));
    browser.open(&web.url("/no/such/page"));
    assert!(browser.texts("h1")[0].ends_with("Not Found"));
}

fn the_keyboard_suffices(database: &Database) {
    let web = web(database);
    let browser = Browser::start();
    browser.open(&web.url("/"));
    let focus = || browser.evaluate("document.activeElement.innerText || document.activeElement.id");
    let mut order = Vec::new();
    for _ in 0..10 {
        browser.press(TAB);
        order.push(focus());
        let outline = browser.evaluate("getComputedStyle(document.activeElement).outlineStyle");
        assert_ne!(outline, "none", "the focus is seen on {}", order.last().unwrap());
    }
    let rest = ["roster", "API documentation", "q", "Search", "Next", "Id", "Username", "E-mail", "admin"];
    assert_eq!(order, [&["Skip to content"], &rest[..]].concat());
    browser.press(ENTER);
    eventually("the page changes", || browser.texts("h1") == ["admin"]);
    // The first link skips what is the same on every page.
    browser.press(TAB);
    browser.press(ENTER);
    browser.press(TAB);
    assert_eq!(focus(), "All users");
}

/// The ring around what has the focus is complete, and covers nothing else that can have it.
fn the_focus_is_seen_and_covers_nothing(database: &Database) {
    const OVERLAPS: &str = "(() => {
        const rect = (element, by) => {
            const {left, right, top, bottom} = element.getBoundingClientRect();
            return {left: left - by, right: right + by, top: top - by, bottom: bottom + by};
        };
        const all = Array.from(document.querySelectorAll('a:not(.skip), button, input, summary'))
            .filter(element => element.checkVisibility());
        return all.flatMap(element => {
            element.focus({focusVisible: true});
            const {outlineStyle, outlineWidth, outlineOffset} = getComputedStyle(element);
            const ring = rect(element, parseFloat(outlineWidth) + parseFloat(outlineOffset));
            const covered = all.filter(other => other != element).filter(other => {
                const {left, right, top, bottom} = rect(other, 0);
                return left < ring.right && ring.left < right && top < ring.bottom && ring.top < bottom;
            });
            let clipped = ring.left < 0 || ring.right > document.documentElement.clientWidth;
            for (let around = element.parentElement; around; around = around.parentElement) {
                const {left, right} = around.getBoundingClientRect();
                clipped ||= getComputedStyle(around).overflowX != 'visible' && (ring.left < left || right < ring.right);
            }
            return outlineStyle == 'none' || clipped || covered.length ? [element.outerHTML] : [];
        });
    })()";
    let web = web(database);
    let browser = Browser::start();
    for path in ["/?q=a&limit=3", "/?after=aQAAAAAAAAAy", "/?q=zzz", RELATED, "/docs", "/nowhere"] {
        for width in [320, 1280] {
            browser.view(width, "light");
            browser.open(&web.url(path));
            assert_eq!(browser.evaluate(OVERLAPS), json!([]), "{path} at {width}");
        }
    }
}

/// At any width, no id breaks, and a name or an address only where it is longer than a line. A table stays one for screen
/// readers.
fn a_row_is_read_at_any_width(database: &Database) {
    let web = web(database);
    database.sql().execute(
        "INSERT INTO users (id, username, email) VALUES (9007199254740991, 'okafor.theodora12', 'okafor.theodora12@example.com')",
    );
    database.sql().execute("INSERT INTO friends (user_id, friend_id) VALUES (1, 9007199254740991)");
    let browser = Browser::start();
    for path in ["/?q=okafor.theodora12", "/", RELATED] {
        for width in [320, 480, 700, 900, 1280] {
            browser.view(width, "light");
            browser.open(&web.url(path));
            let broken = browser.evaluate(
                "Array.from(document.querySelectorAll('tbody td:first-child, tbody th a, tbody td a'), element => {
                    const range = document.createRange();
                    range.selectNodeContents(element);
                    return [element.innerText, new Set(Array.from(range.getClientRects(), rect => rect.top)).size];
                }).filter(([text, lines]) => lines > 1)",
            );
            assert_eq!(broken, json!([]), "{path} at {width}");
            for (css, role) in
                [("table", "table"), ("tbody tr", "row"), ("tbody th", "rowheader"), ("tbody td", "cell")]
            {
                assert_eq!(browser.role(css), role, "{path} at {width}");
            }
        }
    }
}

/// On paper are the rows, and what they are.
fn a_printed_page_has_the_rows_alone(database: &Database) {
    let web = web(database);
    let browser = Browser::start();
    browser.view(700, "dark");
    browser.open(&web.url("/?limit=10"));
    browser.print();
    let seen = browser.evaluate(
        "Array.from(document.querySelectorAll('nav, form, .skip, a[rel], h1, #shown, tbody tr'), element =>
            element.checkVisibility() ? element.tagName : '').filter(name => name).join()",
    );
    assert_eq!(seen, format!("H1,P{}", ",TR".repeat(10)));
    assert_eq!(browser.evaluate("getComputedStyle(document.body).backgroundColor"), "rgb(255, 255, 255)");
}

fn pages_are_accessible(database: &Database) {
    let web = web(database);
    let long = format!("username,email\n{},{}@long.example.com\n", "w".repeat(80), "m".repeat(100));
    assert!(import_csv(database, &long).status.success());
    let browser = Browser::start();
    for path in
        ["/", "/?after=aQAAAAAAAAAy", "/?q=zzz", "/?q=wwww", "/?limit=0", RELATED, related!(122), "/docs", "/nowhere"]
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
}

/// `UPDATE_PICTURES=1` takes them anew.
fn the_readme_shows_what_people_see(database: &Database) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pictures");
    let web = web(database);
    let browser = Browser::start();
    let readme = include_str!("../../README.md");
    let mut kept = Vec::new();
    for (width, scheme) in [(320, "light"), (320, "dark"), (1280, "light"), (1280, "dark")] {
        browser.view(width, scheme);
        browser.open(&web.url("/"));
        let seen = browser.picture();
        let name = format!("users-{width}-{scheme}.png");
        assert!(readme.contains(&format!("docs/pictures/{name}")), "{name} is in the README");
        let file = folder.join(&name);
        if std::env::var_os("UPDATE_PICTURES").is_some() {
            fs::write(&file, STANDARD.decode(&seen).unwrap()).unwrap();
        }
        let shown = STANDARD.encode(fs::read(&file).unwrap());
        let difference = browser.difference([&seen, &shown]);
        assert!(difference < 3.0, "{name} differs by {difference}");
        kept.push(shown);
    }
    // The measure sees what there is to be seen.
    assert!(browser.difference([&kept[2], &kept[3]]) > 50.0);
    assert!(browser.difference([&kept[0], &kept[2]]) > 3.0);
}
