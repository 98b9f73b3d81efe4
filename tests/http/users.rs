//! Users and friends over HTTP: their formats, their pages, and the parameters that they reject.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::responses::style_of;
use crate::support::engine::{Database, Family};
use crate::support::process::{Answer, Web, code, import_csv, migrated};
use crate::support::resource::{CSV, FIRST, LISTING, NDJSON, RELATED, listing, related};
use crate::support::{Tests, tests};

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!())
        .each(tests![
            bad_input_is_named,
            a_user_is_one_line_of_json_to_every_reader,
            no_cell_of_csv_is_a_formula,
            pages_are_light,
            pages_link_in_both_directions,
            a_total_is_counted_up_to_a_thousand,
            an_address_is_a_link_and_nothing_else,
        ])
        .any(tests![the_format_is_the_clients_choice, an_empty_page_has_instructions, every_page_names_the_release])
        .trials()
}

fn the_format_is_the_clients_choice(database: &Database) {
    let web = Web::seeded(database);
    for (accept, status, kind) in [
        ("application/json", 200, "application/json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", 200, "application/json"),
        ("application/x-ndjson", 200, "application/x-ndjson"),
        ("text/csv;q=0.9, application/json;q=0.1", 200, "text/csv; charset=utf-8; header=present"),
        ("image/png", 406, "application/problem+json"),
    ] {
        let answer = web.get_with(LISTING, &[("accept", accept)]);
        assert_eq!((answer.status, answer.header("content-type")), (status, Some(kind)), "{accept}");
        assert!(status != 200 || answer.header("vary") == Some("accept"));
    }
    for path in [FIRST, RELATED] {
        assert_eq!(web.get_with(path, &[("accept", "text/csv")]).status, 406, "{path}");
    }
    // A user has one page.
    for path in [FIRST, RELATED] {
        let page = web.get_with(path, &[("accept", "text/html,*/*;q=0.8")]);
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
        assert!(page.body.contains("<h1>admin</h1>") && page.body.contains(">guest</a>"), "{}", page.body);
        let json = web.get(path);
        assert_eq!(json.header("content-type"), Some("application/json"));
        assert_eq!((page.header("vary"), json.header("vary")), (Some("accept"), Some("accept")));
    }
    assert_eq!(web.get(FIRST).body, r#"{"id":1,"username":"admin","email":"admin@example.com"}"#);
    let missing = web.get_with(listing!("/99"), &[("accept", "text/html")]);
    assert_eq!((missing.status, missing.header("content-type")), (404, Some("text/html; charset=utf-8")));
    let refused = web.get_with(LISTING, &[("accept", "image/png")]).json();
    assert_eq!(refused["detail"], "this resource is available as application/json, application/x-ndjson, text/csv");
}

/// JSON allows Unicode line breaks inside a string, but some line readers split at them.
fn a_user_is_one_line_of_json_to_every_reader(database: &Database) {
    const BREAKS: [char; 3] = ['\u{85}', '\u{2028}', '\u{2029}'];
    let web = Web::seeded(database);
    let name = "M\u{fc}ller \u{20ac}\u{85}a\u{2028}\u{2029}b";
    let mut sql = database.sql();
    sql.execute(&format!("INSERT INTO users (username, email) VALUES ('{name}', 'x\u{2028}@example.com')"));
    sql.execute("INSERT INTO friends (user_id, friend_id) VALUES (2, 3)");
    let sent = [LISTING, NDJSON, listing!("/3"), related!(2)].map(|path| web.get(path).body);
    for json in sent.into_iter().chain([migrated(database, &["export", "-", "--format", "ndjson"])]) {
        assert!(!json.contains(BREAKS), "{json:?}");
        assert!(json.contains("M\u{fc}ller \u{20ac}\\u0085a\\u2028\\u2029b"), "{json:?}");
        let last: Value = serde_json::from_str(json.lines().last().unwrap()).unwrap();
        let mut user = if let Value::Array(users) = &last { users.last().unwrap().clone() } else { last };
        // Only a friend has it.
        user.as_object_mut().unwrap().remove("since");
        assert_eq!(user, json!({"id": 3, "username": name, "email": "x\u{2028}@example.com"}));
    }
    let problem = web.get(listing!("?%C2%85%E2%80%A8=1"));
    assert_eq!((problem.status, problem.body.contains(BREAKS)), (400, false), "{}", problem.body);
}

/// A spreadsheet may skip blanks, split a cell at a line break or at another separator, and treat a full-width operator
/// like the ASCII operator (OWASP, "CSV Injection").
fn no_cell_of_csv_is_a_formula(database: &Database) {
    let web = Web::seeded(database);
    let names = [
        "=1+1",
        "+1+1",
        "-1+1",
        "@SUM(1)",
        "＝1+1",
        "＋1+1",
        "－1+1",
        "＠SUM(1)",
        "\t=1",
        "\r=1",
        "\n=1",
        " =1",
        "\u{a0}＝1",
        "a\n=1",
        "a\r\n＝1",
        "a\r=1",
        "a\t=1",
        "a\n\t =1",
        "a =1",
        "a,=1",
        "a;=1",
        "a|=1",
        "a\"=1",
        "a\",\"=1",
    ];
    let rows =
        (0..).zip(names).map(|(n, name)| format!("('{name}', '={n}@example.com')")).collect::<Vec<_>>().join(", ");
    database.sql().execute(&format!("INSERT INTO users (username, email) VALUES {rows}"));
    let csv = web.get(CSV).body;
    let pieces = csv.split([',', ';', '|', '\t', '\r', '\n', '"']).map(|piece| piece.trim_matches([' ', '\u{a0}']));
    for piece in pieces {
        assert!(!piece.starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠']), "{piece:?} of {csv}");
    }
    // Without the apostrophes, the values are those of the table.
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let read: Vec<String> = reader.records().skip(2).map(|row| row.unwrap()[1].replace('\'', "")).collect();
    assert_eq!(read, names);
}

/// A page of fifty users and all that it loads are below 14 KB without compression, which a server may send in its first
/// round trip (RFC 6928). The ids and the names are longer than those of a million samples are on average.
fn pages_are_light(database: &Database) {
    migrated(database, &["up"]);
    let users = (999_900..1_000_000).map(|id| {
        let name = format!("grace.hopper{}", id % 1000);
        format!("{id},{name},{name}@example.com\n")
    });
    let csv = format!("id,username,email\n1,admin,admin@example.com\n{}", users.collect::<String>());
    assert_eq!(code(&import_csv(database, &csv)), 0);
    let web = Web::start(database, &[]);
    let icon = web.get("/favicon.ico");
    assert_eq!((icon.status, icon.header("content-type")), (200, Some("image/svg+xml")));
    for path in ["/", "/?sort=-email&limit=50", "/?sort=-email&limit=50&before=ZW0"] {
        let page = web.get_with(path, &[("accept", "text/html")]);
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
        let all = page.body.len() + web.get(&style_of(&page)).body.len() + icon.body.len();
        assert!(all < 14_000, "{path}: {all} bytes");
        assert!(!page.body.contains("<script") && !page.body.contains("style="), "{}", page.body);
    }
    assert_eq!(web.get("/").body.matches("<tr><td>").count(), 50);
}

/// A page, and what it shows of its listing.
struct Shown {
    answer: Answer,
    names: Vec<String>,
    /// Such as `1–50 of 120`.
    position: String,
}

impl Shown {
    fn of(web: &Web, path: &str) -> Self {
        let answer = web.get_with(path, &[("accept", "text/html")]);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        let cells = answer.body.split("<th scope=row>").skip(1);
        let names = cells.map(|cell| cell.split(['<', '>']).nth(2).unwrap().to_owned()).collect();
        let position = answer.body.split_once("id=\"shown\">").map_or("", |(_, rest)| rest);
        let position =
            ["<small>", "<bdi>", "</bdi>"].into_iter().fold(position.to_owned(), |text, tag| text.replace(tag, ""));
        let position = position.split("</").next().unwrap();
        let position = position.split_once(' ').map_or("", |(_, position)| position).to_owned();
        Self { answer, names, position }
    }

    /// The path of another page, if there is such a link. Each is given before the rows and after them.
    fn link(&self, rel: &str) -> Option<String> {
        let links = self.answer.body.lines().filter(|line| line.contains(&format!(" rel=\"{rel}\"")));
        let links: Vec<_> = links.map(|line| line.split('"').nth(1).unwrap().replace("&#38;", "&")).collect();
        assert!(links.is_empty() || links.len() == 2 && links[0] == links[1], "{links:?}");
        let url = self.answer.url.join(links.first()?).unwrap();
        Some(format!("{}?{}", url.path(), url.query().unwrap_or_default()))
    }

    fn follow(&self, web: &Web, rel: &str) -> Self {
        Self::of(web, &self.link(rel).unwrap())
    }
}

/// The previous page has the same rows as when it was visited before its next page.
fn pages_link_in_both_directions(database: &Database) {
    migrated(database, &["up"]);
    migrated(database, &["seed", "120"]);
    database.sql().execute("DELETE FROM friends WHERE user_id = 1");
    // Several friendships began at the same moment.
    let since =
        if database.engine.family() == Family::Sqlite { "'2020-01-01T00:00:00Z'" } else { "'2020-01-01 00:00:00'" };
    database.sql().execute(&format!(
        "INSERT INTO friends (user_id, friend_id, since) SELECT 1, id, {since} FROM users WHERE id > 1 AND id < 40"
    ));
    let web = Web::start(database, &[]);
    for path in [
        "/",
        "/?limit=7",
        "/?limit=40&sort=-username",
        "/?limit=3&sort=email",
        "/?limit=2&q=A",
        "/?limit=2&q=a&sort=-username",
        related!(1, "?limit=10"),
        related!(1, "?limit=10&sort=-id"),
        related!(1, "?limit=10&sort=since"),
        related!(1, "?limit=10&sort=-since"),
        listing!("/1?limit=13"),
    ] {
        let mut pages = vec![Shown::of(&web, path)];
        while pages.last().unwrap().link("next").is_some() {
            pages.push(pages.last().unwrap().follow(&web, "next"));
        }
        let (limit, total) = (pages[0].names.len(), pages.iter().map(|page| page.names.len()).sum::<usize>());
        let first_name = pages[0].names[0].clone();
        assert!(pages.len() > 2, "{path}");
        for (n, page) in pages.iter().enumerate() {
            let (first, last) = (n * limit + 1, n * limit + page.names.len());
            let range = if first == last { first.to_string() } else { format!("{first}–{last}") };
            assert!(page.position.ends_with(&format!("{range} of {total}")), "{path}: {}", page.position);
        }
        assert_eq!((pages[0].link("first"), pages[0].link("prev")), (None, None), "{path}");
        let mut page = pages.pop().unwrap();
        while let Some(before) = pages.pop() {
            let first = page.follow(&web, "first");
            assert_eq!((&first.names[0], first.link("prev")), (&first_name, None), "{path}");
            page = page.follow(&web, "prev");
            assert_eq!((&page.names, &page.position), (&before.names, &before.position), "{path}");
            assert_eq!(page.link("prev").is_some(), !pages.is_empty(), "{path}");
            assert_eq!(page.link("first").is_some(), !pages.is_empty(), "{path}");
            assert_eq!(page.link("next"), before.link("next"), "{path}");
        }
    }
    // Behind the last row, and before the first.
    for path in ["/?after=aQAAAAAAAAPo", "/?before=aQAAAAAAAAAB"] {
        let page = web.get(path).body;
        assert!(page.contains("There are no more users.") && page.contains("href=\"?\""), "{page}");
    }
    for (query, detail) in [
        ("before=forged", "before: expected a cursor"),
        ("before=aQAAAAAAAAAB&sort=email", "before: expected a cursor"),
        ("before=aQAAAAAAAAAB&after=aQAAAAAAAAAB", "before: cannot be combined with after; remove one of them"),
    ] {
        let refused = web.get(&format!("/?{query}"));
        assert_eq!(refused.status, 400);
        assert!(refused.json()["detail"].as_str().unwrap().starts_with(detail), "{}", refused.body);
    }
}

/// The position of a page is known as long as its beginning is within what was counted.
fn a_total_is_counted_up_to_a_thousand(database: &Database) {
    migrated(database, &["up"]);
    migrated(database, &["seed", "1000"]);
    let web = Web::start(database, &[]);
    assert_eq!(Shown::of(&web, "/").position, "1–50 of 1,000");
    // As in a cursor, that of the user whose number this is.
    let cursor = |id: i64| URL_SAFE_NO_PAD.encode([&b"i"[..], &id.to_be_bytes()].concat());
    assert_eq!(Shown::of(&web, &format!("/?after={}", cursor(950))).position, "951–1,000 of 1,000");
    migrated(database, &["seed", "1200"]);
    for (query, position) in [
        (String::new(), "1–50 of 1,000+"),
        (format!("?after={}", cursor(950)), "951–1,000 of 1,000+"),
        (format!("?after={}", cursor(1000)), "1,001–1,050 of 1,000+"),
        (format!("?after={}", cursor(1001)), "50 shown of 1,000+"),
        (format!("?before={}", cursor(1001)), "951–1,000 of 1,000+"),
        (format!("?before={}", cursor(1002)), "50 shown of 1,000+"),
        ("?sort=-id&limit=1".to_owned(), "1 of 1,000+"),
        (format!("?sort=-id&before={}", cursor(1100)), "51–100 of 1,000+"),
    ] {
        let shown = Shown::of(&web, &format!("/{query}"));
        // Row 1,001 is the last that is counted, so the page before it or behind it may be the last whose position is known.
        assert_eq!(shown.position, position, "{query}");
    }
    let found = Shown::of(&web, "/?q=ada");
    assert!(found.position.ends_with(&format!("1–{0} of {0}", found.names.len())), "{}", found.position);
}

/// A mail program reads the header fields after a `?` (RFC 6068).
fn an_address_is_a_link_and_nothing_else(database: &Database) {
    let web = Web::seeded(database);
    for (email, link) in [
        ("a.b-c_d@x-y.org", "<a href=\"mailto:a.b-c_d@x-y.org\">a.b-c_d<wbr>@x-y.org</a>"),
        ("a?cc=b&c@x", "<a href=\"mailto:a%3Fcc%3Db%26c@x\">a?cc=b&#38;c<wbr>@x</a>"),
        ("50%/\"<b>@x", "<a href=\"mailto:50%25%2F%22%3Cb%3E@x\">50%/&#34;&#60;b&#62;<wbr>@x</a>"),
        (
            "j\u{f6}rg@m\u{fc}ller.example",
            "<a href=\"mailto:j%C3%B6rg@m%C3%BCller.example\">j\u{f6}rg<wbr>@m\u{fc}ller.example</a>",
        ),
        ("a@b@x?y", "<a href=\"mailto:a%40b@x%3Fy\">a@b<wbr>@x?y</a>"),
        ("javascript:", "<td>javascript:"),
    ] {
        database.sql().execute(&format!("UPDATE users SET email = '{email}' WHERE id = 2"));
        for path in ["/", RELATED] {
            let page = web.get_with(path, &[("accept", "text/html")]).body;
            assert!(page.contains(link), "{link}: {page}");
        }
    }
}

fn an_empty_page_has_instructions(database: &Database) {
    migrated(database, &["up"]);
    let web = Web::start(database, &[]);
    let page = web.get("/").body;
    assert!(page.contains("<code>migrate seed 200</code>") && page.contains("docs#create_user"), "{page}");
    assert!(web.get("/docs").body.contains("id=\"create_user\""));
    let page = web.get("/?q=%3Cnobody%3E").body;
    assert!(page.contains("begins with “<bdi>&#60;nobody&#62;</bdi>”. <a href=\"./\">Show all users</a>"), "{page}");
}

fn every_page_names_the_release(database: &Database) {
    let html = [("accept", "text/html")];
    for (variables, release) in [(&[][..], ""), (&[("RELEASE_ID", "v7<b>")], " · release v7&#60;b&#62;")] {
        let web = Web::start(database, variables);
        migrated(database, &["up"]);
        migrated(database, &["seed"]);
        for path in ["/", FIRST, RELATED, "/docs", "/nowhere"] {
            let footer = format!("<footer>roster {}{release}</footer>", env!("CARGO_PKG_VERSION"));
            let page = web.get_with(path, &html).body;
            assert!(page.contains(&footer), "{path}: {page}");
        }
    }
}

fn bad_input_is_named(database: &Database) {
    let web = Web::seeded(database);
    let long = format!("{LISTING}?q={}", "a".repeat(121));
    let endless = format!("{LISTING}?q={}", "a".repeat(10_000));
    for (path, status, detail) in [
        (listing!("?limit=0"), 400, "limit: expected an integer from 1 to 1000, got \"0\""),
        (listing!("?limit=1001"), 400, "limit: expected an integer"),
        (listing!("?limit=abc"), 400, "limit: expected an integer"),
        (listing!("?limit=1&limit=2"), 400, "limit: given twice"),
        (listing!("?after=forged"), 400, "after: expected a cursor"),
        (listing!("?after=aQAAAAAAAAAB&sort=email"), 400, "after: expected a cursor"),
        (
            listing!("?sort=password"),
            400,
            "sort: expected one of id, -id, username, -username, email, -email, got \"password\"",
        ),
        (listing!("?q=a&sort=email"), 400, "sort: a listing with this q is ordered by username"),
        (listing!("?q=a%00b"), 400, "q: expected text in UTF-8, without U+0000"),
        (listing!("?q=%ff"), 400, "q: expected text in UTF-8, without U+0000"),
        (listing!("?page=2"), 400, "page: unknown parameter; this resource supports limit, after, sort, q"),
        (related!(1, "?sort=email"), 400, "sort: expected one of id, -id, since, -since, got \"email\""),
        (related!(1, "?q=a"), 400, "q: unknown parameter; this resource supports limit, after, sort"),
        (listing!("/1?limit=1"), 400, "limit: unknown parameter; this resource supports none"),
        (listing!("/99999999999999999999"), 400, "id: expected an integer from 1 to 9007199254740991"),
        (listing!("/abc"), 400, "id: expected an integer"),
        (listing!("/3"), 404, "there is no user with this id"),
        (related!(3), 404, "there is no user with this id"),
        ("/groups", 404, "there is nothing here"),
        (long.as_str(), 400, "q: expected at most 120 characters, got 121"),
        (endless.as_str(), 414, "the URI is longer than 8192 bytes"),
    ] {
        let answer = web.get(path);
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        let problem = answer.json();
        assert!(problem["detail"].as_str().unwrap().starts_with(detail), "{path}: {problem}");
        assert_eq!(problem["status"], status);
        assert_eq!(problem["instance"].as_str(), answer.header("x-request-id"));
    }
    let refused = web.send("PUT", FIRST, &[]);
    assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD, PATCH, DELETE, OPTIONS")));
    let html = [("accept", "text/html,*/*;q=0.1")];
    let page = web.get_with("/?limit=0", &html);
    assert_eq!((page.status, page.header("content-type")), (400, Some("text/html; charset=utf-8")));
    assert_eq!(web.get(LISTING).status, 200);
}
