//! Copies this project as a new one, with a name of its own and the engines that it needs: `bin/new`.
//!
//! The sources need no placeholders. The name of the original is replaced wherever it occurs, in lower case, in upper case
//! and capitalised. What mentions a removed engine is removed: files,
//! Rust items and match arms, entries of YAML, sections and sentences of documents. Lines between `[only NAME]` and
//! `[end]` are for one engine, for `servers`, for `several` engines, for the application (`users`), or for the `original`,
//! where these rules are not enough.

mod application;
mod blocks;
mod prose;
mod rust;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, ValueEnum};
use regex::Regex;

use prose::Prose;
use rust::Source;

/// Copies this project as a new one.
#[derive(Parser)]
#[command(name = "bin/new", bin_name = "bin/new")]
struct Arguments {
    /// The name of the new service: a lower-case letter, then 1 to 14 lower-case letters or digits
    name: String,
    /// The folder to create
    path: PathBuf,
    /// The databases that the new service supports
    #[arg(long, value_enum, default_value_t = Engine::All)]
    engine: Engine,
    /// Leave out the application: the copy is a service without users and friends
    #[arg(long)]
    empty: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Engine {
    All,
    Sqlite,
    Mysql,
    Postgres,
}

/// What a copy has or does not have, by its engine.
struct Part {
    /// The name in markers.
    name: &'static str,
    /// The engines whose copies have it, besides those for all engines.
    engines: &'static [Engine],
    /// A pattern of what mentions it.
    words: &'static str,
    /// Its files whose paths do not mention it.
    paths: &'static [&'static str],
}

const PARTS: [Part; 5] = [
    Part {
        name: "mysql",
        engines: &[Engine::Mysql],
        words: "mysql|mariadb|galera|wsrep|innodb|my_?sql",
        paths: &["tests/factors/dev_prod_parity/mysql.rs"],
    },
    Part {
        name: "postgres",
        engines: &[Engine::Postgres],
        words: "postgres|pgbouncer|patroni|pgbench|libpq|psql|pg_[a-z]|pgpass|\\bpg",
        paths: &["tests/support/pooler.rs"],
    },
    Part {
        name: "servers",
        engines: &[Engine::Mysql, Engine::Postgres],
        words: r"kubernetes|kubectl|\bcompose|make-secrets|ssl[-_]?(?:mode|(?:root)?cert|ca\b|key)|database servers?\b|database user",
        paths: &[
            "src/config/database_url/server.rs",
            "src/config/database_url/tls.rs",
            "src/config/database_url/protection.rs",
            "tests/support/fault_proxy.rs",
            "tests/support/step_proxy.rs",
        ],
    },
    // Only a copy that supports all engines has more than one.
    Part { name: "several", engines: &[], words: "three engines|same on each engine", paths: &[] },
    Part { name: "sqlite", engines: &[Engine::Sqlite], words: "sqlite", paths: &[] },
];

/// Names that only the code for these engines uses. They do not mention the engines.
const USED_BY: [(&[Engine], &str); 5] = [
    (&[Engine::Sqlite], "[Pp]acked|^(Embedded|OneOf)$"),
    (&[Engine::Mysql], "^(SocketPath|socket_path|Collation|interrupted)$"),
    (&[Engine::Postgres], "^(HostOrFolder|host_or_folder|IpAddress|Pooler|is_host_given|Statement|not_undone)$"),
    (&[Engine::Sqlite, Engine::Postgres], "^of_step$"),
    (&[Engine::Mysql, Engine::Postgres], "^(ReadOnlyServer|SERVERS)$|it has no server"),
];

/// What a copy does not have: what is about the original alone, its results and pictures, the profile of its release,
/// and the tests under load of the service that carries the application.
const OMITTED: [&str; 31] = [
    "CHANGELOG.md",
    "LICENSE",
    "benches/harness",
    "benches/instructions.json",
    "benches/jobs",
    "benches/load.lua",
    "benches/peers",
    "benches/results.json",
    "benches/run",
    "benches/writes",
    "benches/writes.lua",
    "bin/build.profdata.gz",
    "bin/new",
    "docs/guide/drop-engine.md",
    "docs/guide/upgrade.md",
    "docs/performance.md",
    "docs/pictures",
    "template",
    "tests/chaos",
    "tests/containers/compose",
    "tests/containers/docker",
    "tests/containers/kubernetes",
    "tests/containers/logs",
    "tests/containers/releases",
    "tests/containers/rolling",
    "tests/containers/stand-ins",
    "tests/containers/systemd",
    "tests/docs",
    "tests/guide",
    "tests/platform/push",
    "tests/template",
];

/// What mentions the omitted files.
const MENTIONS: &str = r"CHANGELOG\.md|\(LICENSE\)|benches/(?:run|harness|jobs|writes|peers|results)|`benches/`|build\.profdata|bin/new|performance\.md|(?:drop-engine|upgrade)\.md|docs/pictures|template/|tests/(?:chaos|docs|guide|platform/push|template|containers/[^bi ]|containers/`)|\(#speed\)|cargo bench";

/// Texts that name one engine, and what they are in a copy without it.
const REPLACED: [(&str, &str, &str, &str); 10] = [
    ("sqlite", ".cargo/config.toml", "sqlite:roster.db?mode=rwc", "{url}"),
    ("sqlite", "bin/release", "sqlite:stand-in", "{url}"),
    ("sqlite", "justfile", "engine=\"sqlite\"", "engine=\"{engine}\""),
    ("mysql", ".devcontainer/devcontainer.json", " mariadb-server", ""),
    ("mysql", "deploy/compose/make-secrets", "{1:-mariadb}", "{1:-postgres}"),
    ("postgres", ".devcontainer/devcontainer.json", " postgresql", ""),
    (
        "servers",
        ".devcontainer/devcontainer.json",
        "sudo apt-get update && sudo apt-get install --yes --no-install-recommends",
        "cargo --version",
    ),
    ("sqlite", "README.md", "cargo run                         # then open http://localhost:5000\n", ""),
    (
        "sqlite",
        "README.md",
        "In a checkout, `.cargo/config.toml`",
        "For development, `docker compose --file deploy/compose/databases.yaml up --detach --wait {service}` starts a\ndatabase. \
         Without Docker, create one as below.\n\nIn a checkout, `.cargo/config.toml`",
    ),
    ("sqlite", "README.md", "To change the database, change its URL. The user", "The user"),
];

/// The names that documents enumerate.
const NAMES: &str = r"sqlite|mysql|mariadb|galera|postgres(?:ql)?(?:18)?|pgbouncer|patroni";

/// Names that guides change, also where nothing uses them.
const GUIDES_USE: [&str; 5] = ["LATEST_TABLE", "LATEST_QUERY", "SAMPLES", "TABLES", "migrate_from"];

/// A pattern that no text has.
const NOTHING: &str = r"[^\s\S]";

const ORIGINAL: &str = "roster";

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bin/new: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let (name, target) = (&*arguments.name, &*arguments.path);
    let is_name = Regex::new("^[a-z][a-z0-9]{1,14}$")?.is_match(name);
    ensure!(
        is_name,
        "the name {name:?} is not valid; expected a lower-case letter, then 1 to 14 lower-case letters or digits"
    );
    let folder = target.display();
    ensure!(!target.exists(), "{folder} exists; name a folder to create");
    // cargo sets it, also if the checkout was moved after it was compiled.
    let manifest = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").context("run bin/new")?);
    let root = manifest.parent().context("the checkout has no folder")?;
    let parent = std::path::absolute(target)?.ancestors().find_map(|folder| folder.canonicalize().ok());
    let is_inside = parent.is_some_and(|parent| parent.starts_with(root));
    ensure!(!is_inside, "{folder} is in the checkout of {ORIGINAL}; name a folder outside");
    let engines = arguments.engine;
    let removed: Vec<_> =
        PARTS.iter().filter(|part| engines != Engine::All && !part.engines.contains(&engines)).collect();
    let words = removed.iter().map(|part| part.words).chain([NOTHING]).collect::<Vec<_>>().join("|");
    let of_removed = Regex::new(&format!("(?i){words}"))?;

    let (mut files, mut dropped, mut spaced) = (BTreeMap::new(), HashSet::new(), HashSet::new());
    for path in output(Command::new("git").args(["ls-files", "-z"]).current_dir(root))?.split_terminator('\0') {
        if OMITTED.iter().any(|omitted| Path::new(path).starts_with(omitted)) {
            continue;
        }
        let file = File::read(&root.join(path))?;
        if !of_removed.is_match(path) && !removed.iter().any(|part| part.paths.contains(&path)) {
            if file.text().is_some_and(|text| text.contains("\n\n\n")) {
                spaced.insert(path.to_owned());
            }
            files.insert(path.to_owned(), file);
        } else if let (true, Some(text)) = (path.ends_with(".rs"), file.text()) {
            dropped.extend(names(text));
        }
    }
    let kept = |marker: &str| {
        let is_of_removed_engine = removed.iter().any(|part| part.name == marker);
        marker != "original" && !(marker == "users" && arguments.empty) && !is_of_removed_engine
    };
    let marker = Regex::new(r"^\s*(?:#|//|--|<!--) \[(?:only (\w+)|end)\](?: -->)?$")?;
    for (path, file) in &mut files {
        if let Some(text) = file.text_mut() {
            let (rest, without) = without_markers(text, &marker, &kept).with_context(|| path.clone())?;
            dropped.extend(names(&without));
            *text = rest;
        }
    }
    if arguments.empty {
        application::remove(&mut files)?;
    }
    let word = Regex::new(&format!(r"(?i)\b{name}\b"))?;
    for (path, file) in &files {
        if let Some(line) = file.text().and_then(|text| text.lines().find(|line| word.is_match(line))) {
            bail!("the name {name:?} already occurs in {path}: {:?}; choose another name", line.trim());
        }
    }
    // The description contains the license, which is for the owner of the copy to choose.
    let license = Regex::new(r#"(?s) *"license": \{.*?\},\n"#)?;
    if let Some(text) = files.get_mut("openapi.json").and_then(File::text_mut) {
        *text = license.replace(text, "").into_owned();
    }
    let mentions = Prose::new(&Regex::new(MENTIONS)?, NAMES);
    for (path, file) in &mut files {
        let Some(text) = file.text_mut() else { continue };
        match Path::new(path).extension().and_then(|extension| extension.to_str()) {
            Some("md") => *text = mentions.document(text, 120),
            Some("rs") => *text = mentions.comments(text, "//"),
            None | Some("sh" | "yml" | "yaml") => *text = mentions.comments(text, "#"),
            Some(_) => {}
        }
    }
    for (_, path, from, to) in REPLACED.iter().filter(|(part, ..)| removed.iter().any(|removed| removed.name == *part))
    {
        let Some(text) = files.get_mut(*path).and_then(File::text_mut) else { continue };
        ensure!(text.contains(from), "{path} does not contain {from:?}");
        let url = if engines == Engine::Mysql { "mysql" } else { "postgres" };
        let to = to
            .replace("{url}", &format!("{url}://{ORIGINAL}:secret@localhost/{ORIGINAL}"))
            .replace("{engine}", url)
            .replace("{service}", if url == "mysql" { "mariadb" } else { url });
        *text = text.replace(from, &to);
    }
    let unused = USED_BY.iter().filter(|(users, _)| engines != Engine::All && !users.contains(&engines));
    let unused = unused.map(|(_, names)| *names).chain([NOTHING]).collect::<Vec<_>>().join("|");
    prune(&mut files, &of_removed, &Regex::new(&format!("(?i:{words})|{unused}"))?, dropped)?;
    let gap = Regex::new(r"\n{3,}")?;
    let mut copy = BTreeMap::new();
    for (path, mut file) in files {
        if let Some(text) = file.text_mut() {
            *text = renamed(text, name);
            // What was removed leaves the empty lines before and after it.
            if !spaced.contains(&path) {
                *text = gap.replace_all(text, "\n\n").into_owned();
            }
        }
        copy.insert(renamed(&path, name), file);
    }
    copy.insert(format!("LICENSE-{ORIGINAL}"), File::read(&root.join("LICENSE"))?);

    let last = target.file_name().context("the path has no name")?.to_string_lossy();
    // No part of a copy is in the way of the next attempt.
    let partial = target.with_file_name(format!(".{last}.{}", std::process::id()));
    let made = write(&copy, &partial).and_then(|()| commit(name, root, &partial)).and_then(|changes| {
        fs::rename(&partial, target).with_context(|| format!("{folder} cannot be created"))?;
        Ok(changes)
    });
    let changes = made.inspect_err(|_| _ = fs::remove_dir_all(&partial))?;
    let run = "cargo run     # http://localhost:5000";
    let server = |server: &str| {
        format!("docker compose --file deploy/compose/databases.yaml up --detach --wait {server}\n    {run}")
    };
    let start = match engines {
        Engine::All | Engine::Sqlite => format!("{run}\n    cargo test"),
        Engine::Mysql => server("mariadb"),
        Engine::Postgres => server("postgres"),
    };
    println!("{name} is in {folder}{changes}. Next:\n\n    cd '{folder}'\n    {start}");
    Ok(())
}

fn write(files: &BTreeMap<String, File>, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("{} cannot be created", folder.display()))?;
    for (path, file) in files {
        file.write(&folder.join(path)).with_context(|| format!("{path} cannot be written"))?;
    }
    Ok(())
}

/// Formats the sources, and makes the first commit. Its message names the commit that was copied. Returns a note about
/// changes that are not in that commit.
fn commit(name: &str, root: &Path, folder: &Path) -> Result<&'static str> {
    let run =
        |program: &str, arguments: &[&str]| output(Command::new(program).args(arguments).current_dir(folder)).map(drop);
    run("cargo", &["fmt"])?;
    // The name of the package, and the packages of removed engines.
    for manifest in ["Cargo.toml", "fuzz/Cargo.toml"] {
        run("cargo", &["update", "--quiet", "--workspace", "--manifest-path", manifest])?;
    }
    run("git", &["init", "--quiet", "--initial-branch", "main"])?;
    // Files that the user's own settings ignore belong to the copy, too.
    run("git", &["add", "--all", "--force"])?;
    let original = |arguments: &[&str]| output(Command::new("git").args(arguments).current_dir(root));
    let is_changed = !original(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    let changes = if is_changed { ", with uncommitted changes" } else { "" };
    let message =
        format!("all: begin {name}\n\nCopied from commit {}{changes}", original(&["rev-parse", "HEAD"])?.trim());
    // The user's hooks and keys are not for this commit.
    let mut arguments = vec!["-c", "core.hooksPath=/dev/null", "-c", "commit.gpgsign=false"];
    if run("git", &["var", "GIT_COMMITTER_IDENT"]).is_err() {
        arguments.extend(["-c", "user.name=nobody", "-c", "user.email=nobody@localhost"]);
    }
    arguments.extend(["commit", "--quiet", "--message", &message]);
    run("git", &arguments)?;
    Ok(changes)
}

/// The words of a removed engine, removed from all files.
fn prune(files: &mut BTreeMap<String, File>, words: &Regex, in_code: &Regex, dropped: HashSet<String>) -> Result<()> {
    let prose = Prose::new(words, NAMES);
    let mut sources = HashMap::new();
    for (path, file) in files.iter_mut() {
        let Some(text) = file.text_mut() else { continue };
        let extension = Path::new(path).extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        match extension {
            "rs" => {
                let mut source = Source::new(prose.comments(text, "//"));
                source.remove(in_code).with_context(|| path.clone())?;
                sources.insert(path.clone(), source);
            }
            "md" => *text = prose.document(text, 120),
            "yaml" | "yml" | "toml" if prose.mentions(text) => {
                *text = blocks::indented(&prose.comments(text, "#"), words)
            }
            "lock" | "json" | "html" | "css" | "sql" | "txt" | "svg" => {}
            _ if prose.mentions(text) => *text = blocks::script(&prose.comments(text, "#"), words, &prose),
            _ => {}
        }
    }
    remove_unused(&mut sources, files, dropped)?;
    application::remove_private(&mut sources, files)?;
    for (path, source) in sources {
        files.insert(path.clone(), File { mode: files[&path].mode, content: Content::Text(source.text) });
    }
    Ok(())
}

/// Removes items and imports that only the removed code used, such as those named in the dropped files.
fn remove_unused(
    sources: &mut HashMap<String, Source>,
    files: &BTreeMap<String, File>,
    dropped: HashSet<String>,
) -> Result<()> {
    let declaration = Regex::new(r"(?m)^\s*(?:pub(?:\([^)]*\))? )?mod (\w+);")?;
    loop {
        let mut modules = HashSet::new();
        let before: usize = sources.values().map(|source| source.text.len()).sum();
        let mut candidates: HashSet<String> =
            sources.values().flat_map(|source| &source.removed).chain(&dropped).cloned().collect();
        // Modules without a file.
        for (path, source) in sources.iter_mut() {
            let folder = Path::new(path).with_extension("");
            let folder = if folder.ends_with("mod") || folder.ends_with("main") || folder.ends_with("lib") {
                folder.parent().unwrap_or(Path::new("")).to_owned()
            } else {
                folder
            };
            let declared = declaration.captures_iter(&source.text).map(|found| found[1].to_owned());
            let (present, missing): (HashSet<_>, HashSet<_>) = declared.partition(|name| {
                let file = folder.join(name);
                let inner = file.join("mod.rs");
                files.contains_key(&format!("{}.rs", file.display()))
                    || files.contains_key(&inner.display().to_string())
                    || source.text.contains("#[path")
            });
            modules.extend(present);
            candidates.extend(missing.iter().cloned());
            source.remove_items(&missing)?;
        }
        for source in sources.values_mut() {
            source.remove_variables(&candidates)?;
            source.remove_imports(&candidates)?;
        }
        let mut counts: HashMap<String, usize> = HashMap::new();
        for source in sources.values() {
            for name in source.names()? {
                *counts.entry(name).or_default() += 1;
            }
        }
        let is_unused =
            |name: &String| counts.get(name) == Some(&1) && !modules.contains(name) && !GUIDES_USE.contains(&&**name);
        let unused: HashSet<_> = candidates.into_iter().filter(is_unused).collect();
        for source in sources.values_mut() {
            source.remove_items(&unused)?;
        }
        if sources.values().map(|source| source.text.len()).sum::<usize>() == before {
            return Ok(());
        }
    }
}

/// The words of a Rust source.
fn names(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').map(str::to_owned)
}

/// The lines without those between `[only NAME]` and `[end]` of a name that is not kept, and without these markers. The
/// second text has the other lines.
fn without_markers(text: &str, marker: &Regex, kept: &dyn Fn(&str) -> bool) -> Result<(String, String)> {
    let (mut result, mut without, mut open) = (String::with_capacity(text.len()), String::new(), None);
    for line in text.split_inclusive('\n') {
        if let Some(found) = marker.captures(line.trim_end()) {
            let name = found.get(1).map(|name| kept(name.as_str()));
            ensure!(open.is_some() != name.is_some(), "a marker has no counterpart: {line:?}");
            open = name;
        } else if open == Some(false) {
            without.push_str(line);
        } else {
            result.push_str(line);
        }
    }
    ensure!(open.is_none(), "[end] is missing");
    Ok((result, without))
}

/// The text with another name.
fn renamed(text: &str, name: &str) -> String {
    let title = name[..1].to_uppercase() + &name[1..];
    text.replace(ORIGINAL, name).replace("Roster", &title).replace("ROSTER", &name.to_uppercase())
}

struct File {
    mode: u32,
    content: Content,
}

enum Content {
    Text(String),
    Bytes(Vec<u8>),
    Link(PathBuf),
}

impl File {
    fn read(path: &Path) -> Result<Self> {
        let metadata = path.symlink_metadata().with_context(|| path.display().to_string())?;
        let content = if metadata.is_symlink() {
            Content::Link(fs::read_link(path)?)
        } else {
            String::from_utf8(fs::read(path)?).map_or_else(|error| Content::Bytes(error.into_bytes()), Content::Text)
        };
        Ok(Self { mode: metadata.permissions().mode(), content })
    }

    fn text(&self) -> Option<&str> {
        if let Content::Text(text) = &self.content { Some(text) } else { None }
    }

    fn text_mut(&mut self) -> Option<&mut String> {
        if let Content::Text(text) = &mut self.content { Some(text) } else { None }
    }

    fn write(&self, path: &Path) -> Result<()> {
        fs::create_dir_all(path.parent().context("a file has a folder")?)?;
        match &self.content {
            Content::Text(text) => fs::write(path, text)?,
            Content::Bytes(bytes) => fs::write(path, bytes)?,
            Content::Link(target) => return Ok(symlink(target, path)?),
        }
        Ok(fs::set_permissions(path, fs::Permissions::from_mode(self.mode))?)
    }
}

/// The standard output of a command that succeeds.
fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done = command.output().with_context(|| format!("{name} cannot be run"))?;
    ensure!(done.status.success(), "{name} failed: {}", String::from_utf8_lossy(&done.stderr).trim());
    Ok(String::from_utf8(done.stdout)?)
}
