//! Removes the application, so that a copy begins with the service alone.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context as _, Result, ensure};
use regex::{Captures, Regex};
use serde_json::Value;

use crate::prose::Prose;
use crate::rust::Source;
use crate::{Content, File, NAMES, remove_unused};

/// The files of the application alone, and the documents about it.
const OMITTED: &str = r"^src/(?:users|friends)/|^templates/(?:users\.|friends\.|row\.|email\.|mail/)|^migrations/\w+/\d+_(?:users|friends)|^tests/conformance/(?:hooks\.py|schemathesis)|^tests/(?:http/users|http/writes|jobs/mail)\.rs$|^docs/guide/(?:backing-service|drop-worker|job|setting|write)\.md$";

/// What mentions the application in `src/resources.rs`, in tests, and in documents.
const IN_LIST: &str = "^(?:users|Users|User|UserChanges|NewUser|friends|Friend|FRIENDSHIPS|welcome|Method)$";
const IN_TESTS: &str = r#"[Ff]riend|(?:^|[^a-z_-])[Uu]sers(?:[^a-z-]|$)|[Uu]sername|welcome|^(?:Deploy|mail_settings|explain|explain_select|kept_plan|style_of|seed)$|^"(?:seed|import|export)"$"#;
const IN_DOCUMENTS: &str = r"(?i)friend|[/`]users\b|users\.(?:csv|html|ndjson)|sample users|guide/(?:job|setting)\.md|\b(?:backing-service|drop-worker|write)\.md|welcome|migrate(?: --)? seed|users_id_seq|username_key|tests/(?:http/users|http/writes|jobs/mail)";

/// Scripts with lines about its rows.
const IN_SCRIPTS: [&str; 2] = [".ci/run", "tests/containers/image"];

/// Texts, and what they are without the application.
const REPLACED: [(&str, &str, &str); 11] = [
    ("ARCHITECTURE.md", "mail, users, friends |", "mail |"),
    ("ARCHITECTURE.md", "listing, jobs → users → friends → resources", "listing, jobs → resources"),
    (
        "src/resources.rs",
        r#"config.service(at("/").with_page().get(users::pages::list));"#,
        r#"config.service(at("/").get(documentation::page));"#,
    ),
    ("src/resources.rs", "fn application(config: &Config)", "fn application(_: &Config)"),
    (
        "tests/main.rs",
        "mod support;",
        "#[expect(dead_code, reason = \"the tests of a resource use the rest of it\")]\nmod support;",
    ),
    ("tests/factors/concurrency.rs", " Connection as _, Execute as _,", ""),
    ("tests/factors/concurrency.rs", "db::{Dialect as _, ", "db::{"),
    (
        "README.md",
        "an HTML page of users (50 by default), with search, sorting, paging in both directions, and links to CSV and NDJSON of what it lists; the total is counted up to 1,000; it needs no JavaScript",
        "the same page as `GET /docs`",
    ),
    ("README.md", "A list of users from a database, as a [twelve-factor]", "A [twelve-factor]"),
    ("README.md", "; a mail to each new user", ""),
    (
        "docs/files.md",
        "; of users: `username`, `email`, and `id` to keep ids; of friends: `user_id`, `friend_id`, and `since` to keep times",
        "",
    ),
];

/// The number of its migrations, which are the first.
const MIGRATIONS: u32 = 3;

pub(crate) fn remove(files: &mut BTreeMap<String, File>) -> Result<()> {
    let omitted = Regex::new(OMITTED)?;
    files.retain(|path, _| !omitted.is_match(path));
    for (path, from, to) in REPLACED {
        let text = files.get_mut(path).and_then(File::text_mut).with_context(|| format!("{path} is missing"))?;
        ensure!(text.contains(from), "{path} does not contain {from:?}");
        *text = text.replace(from, to);
    }
    let samples = files.get_mut("src/resources/samples.rs").context("the samples are missing")?;
    samples.content = Content::Text(include_str!("../empty/samples.rs").to_owned());

    let description = files.get_mut("openapi.json").and_then(File::text_mut).context("openapi.json is missing")?;
    *description = described(description)?;

    let prose = Prose::new(&Regex::new(IN_DOCUMENTS)?, NAMES);
    let mut sources = HashMap::new();
    for (path, file) in files.iter_mut() {
        let Some(text) = file.text_mut() else { continue };
        if path.ends_with(".md") {
            *text = prose.document(text, 120);
        } else if path.ends_with(".rs") {
            sources.insert(path.clone(), Source::new(prose.comments(text, "//")));
        } else if IN_SCRIPTS.contains(&&**path) {
            let is_kept = |line: &&str| !["/users", "migrate seed"].iter().any(|it| line.contains(it));
            *text = text.split_inclusive('\n').filter(is_kept).collect();
        }
    }
    let list = sources.get_mut("src/resources.rs").context("the list of resources is missing")?;
    list.remove(&Regex::new(IN_LIST)?)?;
    let mut tests: BTreeMap<_, _> = sources.iter_mut().filter(|(path, _)| path.starts_with("tests/")).collect();
    remove_tests(&mut tests)?;
    remove_modules(&mut sources, files)?;
    // The rest of the service is kept, also what only the application used.
    let (mut tests, others): (HashMap<_, _>, _) =
        sources.into_iter().partition::<HashMap<_, _>, _>(|(path, _)| path.starts_with("tests/"));
    let (mut lists, others): (HashMap<_, _>, HashMap<_, _>) =
        others.into_iter().partition(|(path, _)| ["src/lib.rs", "src/resources.rs"].contains(&&**path));
    remove_unused(&mut tests, files, HashSet::new())?;
    remove_unused(&mut lists, files, HashSet::new())?;
    for (path, source) in tests.into_iter().chain(lists).chain(others) {
        files.insert(path.clone(), File { mode: files[&path].mode, content: Content::Text(source.text) });
    }
    let number = Regex::new(r"(\b000|REQUIRED_SCHEMA: i64 = )(\d)([_;])")?;
    *files = std::mem::take(files).into_iter().map(|(path, file)| renumbered(&number, &path, file)).collect();
    Ok(())
}

/// The description of the API without the operations of the application, and without the schemas that only these use.
fn described(text: &str) -> Result<String> {
    const OF_SERVICE: &str = "service";
    let mut api: Value = serde_json::from_str(text)?;
    let paths = api["paths"].as_object_mut().context("openapi.json has no paths")?;
    paths.retain(|_, path| path["get"]["tags"][0] == OF_SERVICE);
    api["tags"].as_array_mut().context("openapi.json has no tags")?.retain(|tag| tag["name"] == OF_SERVICE);
    let used = api.to_string();
    let schemas = api["components"]["schemas"].as_object_mut().context("openapi.json has no schemas")?;
    schemas.retain(|name, _| used.contains(&format!("schemas/{name}\"")) || used.contains(&format!("schemas/{name}_")));
    Ok(serde_json::to_string_pretty(&api)? + "\n")
}

/// Removes each test that requests the application, and what only such tests use.
fn remove_tests(tests: &mut BTreeMap<&String, &mut Source>) -> Result<()> {
    let all: String = tests.values().map(|source| source.text.as_str()).collect();
    // A name of several functions does not show which one is called, unless that is in the same file.
    let is_unique = |name: &str| all.matches(&format!("fn {name}(")).count() < 2;
    // Names of what was removed, each with the beginning of the paths of the files that may use it.
    let mut removed: HashSet<(String, String)> = HashSet::new();
    let words = |path: &str, removed: &HashSet<(String, String)>| {
        let names = removed.iter().filter(|(scope, _)| path.starts_with(scope)).map(|(_, name)| regex::escape(name));
        let names = names.chain(["-".to_owned()]).collect::<Vec<_>>().join("|");
        Regex::new(&format!(r"{IN_TESTS}|^(?:{names})$|\{{(?:{names})[:}}]"))
    };
    loop {
        let before = removed.len();
        for (path, source) in tests.iter_mut() {
            let own = scope(path);
            let names = source.remove_mentioning(&words(path, &removed)?)?;
            for (mut name, is_public) in names {
                if !is_unique(&name) {
                    if is_public {
                        continue;
                    }
                    name.push('(');
                }
                removed.insert((if is_public { "tests/" } else { own }.to_owned(), name));
            }
        }
        if removed.len() == before {
            break;
        }
    }
    for (path, source) in tests {
        for (_, name) in removed.iter().filter(|(_, name)| name.ends_with('!')) {
            let name = name.trim_end_matches('!');
            source.text = source.text.replace(&format!("pub(crate) use {name};\n"), "");
            let import = Regex::new(&format!(r"(use crate::support::resource::(?:\{{[^}}]*?)?)\b{name}\b,?"))?;
            source.text = import.replace(&source.text, "${1}").replace("use crate::support::resource::;\n", "");
        }
        source.remove(&words(path, &removed)?)?;
    }
    Ok(())
}

/// Removes the private items of tests that nothing uses.
pub(crate) fn remove_private(sources: &mut HashMap<String, Source>, files: &BTreeMap<String, File>) -> Result<()> {
    loop {
        let before: usize = sources.values().map(|source| source.text.len()).sum();
        let is_test = |path: &&String| path.starts_with("tests/") && !path.starts_with("tests/support/");
        for path in sources.keys().filter(is_test).cloned().collect::<Vec<_>>() {
            let scope = scope(&path).to_owned();
            let mut others = HashSet::from(["main".to_owned()]);
            for (_, other) in sources.iter().filter(|(other, _)| **other != path && other.starts_with(&scope)) {
                others.extend(other.names()?);
            }
            sources.get_mut(&path).context("it is a test")?.remove_private(&others)?;
        }
        remove_unused(sources, files, HashSet::new())?;
        if sources.values().map(|source| source.text.len()).sum::<usize>() == before {
            return Ok(());
        }
    }
}

/// The beginning of the paths of a module and its children, which may use its private items.
fn scope(path: &str) -> &str {
    path.trim_end_matches("mod.rs").trim_end_matches(".rs")
}

/// Removes the modules of tests without a test.
fn remove_modules(sources: &mut HashMap<String, Source>, files: &mut BTreeMap<String, File>) -> Result<()> {
    let is_left =
        |text: &str| !text.contains("fn tests()") || ["tests![", "::tests()"].iter().any(|it| text.contains(it));
    let mut names = Vec::new();
    for (path, source) in sources.iter().filter(|(path, _)| path.starts_with("tests/")) {
        if !is_left(&source.text) {
            files.remove(path);
            names.push(path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned());
        }
    }
    sources.retain(|path, _| files.contains_key(path));
    names.extend(["users", "writes", "mail"].map(str::to_owned));
    let names = names.join("|");
    let call = Regex::new(&format!(r"\s*\.and\((?:{names})::tests\(\)\)|\b(?:{names})::tests\(\),?"))?;
    for (_, source) in sources.iter_mut().filter(|(path, _)| path.starts_with("tests/")) {
        source.text = call.replace_all(&source.text, "").into_owned();
    }
    Ok(())
}

/// The file with the numbers of the migrations that remain.
fn renumbered(number: &Regex, path: &str, mut file: File) -> (String, File) {
    let renumber = |text: &str| {
        let lower = |found: &Captures<'_>| {
            let number = found[2].parse::<u32>().unwrap_or_default();
            format!("{}{}{}", &found[1], number.checked_sub(MIGRATIONS).unwrap_or(number), &found[3])
        };
        number.replace_all(text, lower).into_owned()
    };
    if let Some(text) = file.text_mut() {
        *text = renumber(text);
    }
    (renumber(path), file)
}
