//! The documents link to files and headings of the checkout, and every tool runs the checks of CI.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

pub(super) fn links_lead_to_files_and_headings() {
    let documents = documents();
    let mut broken = Vec::new();
    let mut count = 0;
    for document in &documents {
        for target in links(&fs::read_to_string(document).unwrap()) {
            let (path, heading) = target.split_once('#').unwrap_or((&target, ""));
            let file = if path.is_empty() { document.clone() } else { document.parent().unwrap().join(path) };
            let is_found = match heading {
                "" => file.exists(),
                heading => fs::read_to_string(&file).is_ok_and(|text| headings(&text).contains(heading)),
            };
            if !is_found {
                broken.push(format!("{}: {target}", document.display()));
            }
            count += 1;
        }
    }
    assert!(documents.len() > 10 && count > 50, "{count} links in {documents:?}");
    // The guides name files that do not exist yet.
    for document in documents.iter().filter(|document| !document.parent().unwrap().ends_with("guide")) {
        let missing = paths(&fs::read_to_string(document).unwrap())
            .into_iter()
            .filter(|path| !Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists());
        broken.extend(missing.map(|path| format!("{}: `{path}`", document.display())));
    }
    assert!(broken.is_empty(), "these links and paths lead nowhere: {broken:#?}");

    let example = "# A `b_c`, and D\n[a](x.md#y) `[b](z)`\n```sh\n# no heading\n[c](d)\n```\n";
    assert_eq!(links(example), ["x.md#y"]);
    assert_eq!(paths("`src/a.rs` src/b.rs `src/*.rs`, `bin/release 1`\n```\n`src/c.rs`\n```\n`/d`"), ["src/a.rs"]);
    assert_eq!(headings(example), BTreeSet::from(["a-b_c-and-d".to_owned()]));
}

/// .ci/run is the only list of checks. Other files run it, its scripts, or commands of its scripts.
pub(super) fn every_tool_runs_the_checks_of_ci() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    let (lint, run) = (read(".ci/lint"), read(".ci/run"));
    let has_line = |text: &str, line: &str| text.lines().any(|other| other.trim() == line);
    assert!(has_line(&run, ".ci/lint") && run.lines().any(|line| line.ends_with(" cargo test --locked")));
    assert!(has_line(&read(".github/workflows/ci.yml"), "- run: .ci/run"));
    assert!(has_line(&read("justfile"), ".ci/run") && has_line(&read("justfile"), ".ci/lint"));

    let hooks = read(".pre-commit-config.yaml");
    let entries: Vec<_> = hooks.lines().filter_map(|line| line.trim().strip_prefix("entry: ")).collect();
    assert!(!entries.is_empty());
    for entry in entries {
        assert!(has_line(&lint, entry), ".ci/lint does not have the hook {entry:?}");
    }
    // CI runs each script.
    let run = programs(&run);
    let folders =
        ["tests/chaos", "tests/containers", "tests/docs", "tests/guide", "tests"].map(|folder| root.join(folder));
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        for script in files(folder).iter().filter(|script| is_command(script)) {
            let path = script.strip_prefix(root).unwrap().to_str().unwrap();
            assert!(run.contains(path), ".ci/run does not run {path}");
        }
    }

    let example = "# a b\nN=1 c d\nif $e; then f g; else h; fi\nfor what in i j; do\n  k/$what\ndone\nl $what\n";
    let names = ["c", "f", "h", "k/i", "k/j", "l"].map(str::to_owned);
    assert!(BTreeSet::from(names).is_subset(&programs(example)), "{:?}", programs(example));
    assert!(["a", "b", "d", "g", "i", "j"].iter().all(|name| !programs(example).contains(*name)));
}

/// The programs that a script runs. `$what` stands for each value of the loop around it.
fn programs(script: &str) -> BTreeSet<String> {
    let mut values = vec!["$what"];
    let mut found = BTreeSet::new();
    for line in script.lines() {
        if let Some(list) = line.trim().strip_prefix("for what in ") {
            values = list.trim_end_matches("; do").split(' ').collect();
        } else if line.trim() == "done" {
            values = vec!["$what"];
        }
        for command in line.split(';') {
            let is_before =
                |word: &&str| matches!(*word, "if" | "then" | "else" | "in_container") || word.contains('=');
            let program = command.split_whitespace().find(|word| !is_before(word)).unwrap_or_default();
            found.extend(values.iter().map(|value| program.replace("$what", value)));
        }
    }
    found
}

/// The toolchain of the image, of GitHub's workflow, of the development container and of the README is the oldest one that Cargo.toml supports.
pub(super) fn the_version_of_rust_is_the_same_everywhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let version = env!("CARGO_PKG_RUST_VERSION");
    for (path, text) in [
        ("Dockerfile", format!("ARG RUST_VERSION={version}\n")),
        (".github/workflows/ci.yml", format!("library/rust:{version}-bookworm\n")),
        (".devcontainer/devcontainer.json", format!("rustup default {version} &&")),
        ("README.md", format!("[Rust](https://rustup.rs) {version} or later")),
        ("README.md", format!("badge/Rust-{version}-")),
    ] {
        assert!(fs::read_to_string(root.join(path)).unwrap().contains(&text), "{path} does not have {text:?}");
    }
}

/// A script that is started, not one that another script includes.
fn is_command(file: &Path) -> bool {
    file.extension().is_none() && fs::read_to_string(file).is_ok_and(|text| text.starts_with("#!"))
}

/// The Markdown files of the root, of docs/ and of docs/guide/.
fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = [files(root), files(&root.join("docs")), files(&root.join("docs/guide"))].concat();
    documents.retain(|file| file.extension().is_some_and(|extension| extension == "md"));
    documents
}

fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect()
}

/// The targets of `[text](target)` outside of code, without those of other hosts. A path like `../../actions/` is one of
/// the repository's host.
fn links(document: &str) -> Vec<String> {
    let text = without_blocks(document);
    let prose: String = text.split('`').step_by(2).collect();
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    let is_file = |target: &&str| !target.contains("://") && !target.starts_with("../../actions/");
    targets.filter(is_file).map(str::to_owned).collect()
}

/// The paths between backquotes, outside of code blocks. Patterns, commands and generated secrets are left out.
fn paths(document: &str) -> Vec<String> {
    const FOLDERS: [&str; 10] =
        [".ci/", ".github/", "benches/", "bin/", "deploy/", "docs/", "migrations/", "src/", "templates/", "tests/"];
    let text = without_blocks(document);
    let spans = text.split('`').skip(1).step_by(2);
    let is_path = |span: &&str| {
        FOLDERS.iter().any(|folder| span.starts_with(folder))
            && !span.contains([' ', '*', '{', '<', '…', '\n'])
            && !span.contains("/secrets/")
    };
    spans.filter(is_path).map(str::to_owned).collect()
}

/// The anchors of the headings, as GitHub makes them.
fn headings(document: &str) -> BTreeSet<String> {
    let text = without_blocks(document);
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let anchor = |heading: &str| {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    };
    headings.map(anchor).collect()
}

/// The document without its code blocks.
fn without_blocks(document: &str) -> String {
    let mut is_code = false;
    let mut text = String::new();
    for line in document.lines() {
        if line.starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}
