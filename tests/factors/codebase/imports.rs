//! Which files of `src/` import which, and which modules ARCHITECTURE.md allows them to import.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// What each file or module imports.
type Imports = BTreeMap<String, BTreeSet<String>>;

pub(super) fn no_two_files_import_each_other() {
    let example: Imports = [("a", "b"), ("b", "c"), ("c", "b"), ("d", "d")]
        .map(|(from, to)| (from.to_owned(), BTreeSet::from([to.to_owned()])))
        .into();
    assert_eq!(cycles(&example), [["b", "c", "b"], ["c", "b", "c"]]);

    let files = files();
    assert!(files.len() > 50 && files["src/server.rs"].contains("src/http.rs"), "{files:?}");
    let found = cycles(&files);
    assert!(found.is_empty(), "these files import each other: {found:#?}");

    let mut modules = Imports::new();
    for (file, imports) in files {
        let module = module_of(&file).to_owned();
        let imports = imports.iter().map(|file| module_of(file)).filter(|imported| *imported != module);
        let imports: BTreeSet<_> = imports.map(str::to_owned).collect();
        modules.entry(module).or_default().extend(imports);
    }
    let found = cycles(&modules);
    assert!(found.is_empty(), "these modules import each other: {found:#?}");
}

/// The last column of ARCHITECTURE.md's table names the modules that the files of its first column import.
pub(super) fn imports_are_those_of_the_architecture() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let mut rows: Vec<(&str, BTreeSet<&str>)> = Vec::new();
    for line in document.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let allowed: BTreeSet<_> = cells[cells.len() - 1].split(", ").collect();
        let paths = cells[0].split('`').filter(|path| path.starts_with("src/"));
        rows.extend(paths.map(|path| (path, allowed.clone())));
    }
    let mut refused = Vec::new();
    for (file, imports) in files() {
        let module = module_of(&file);
        // The row of a file precedes that of its folder, which has the file of the same name, too.
        let is_in = |folder: &str| file.starts_with(folder) || file == format!("{}.rs", folder.trim_end_matches('/'));
        let row = rows.iter().filter(|(path, _)| file == *path || path.ends_with('/') && is_in(path));
        let allowed = row.max_by_key(|(path, _)| path.len()).map(|(_, allowed)| allowed);
        let is_allowed = |other: &str| {
            other == module || allowed.is_some_and(|allowed| allowed.contains("everything") || allowed.contains(other))
        };
        let others = imports.iter().map(|file| module_of(file)).filter(|other| !is_allowed(other));
        refused.extend(others.map(|other| format!("{file}: {other}")));
    }
    assert!(refused.is_empty(), "ARCHITECTURE.md does not allow these imports: {refused:#?}");
}

/// The module beneath `src/` that a file belongs to.
fn module_of(file: &str) -> &str {
    file.strip_prefix("src/").unwrap_or(file).split(['/', '.']).next().unwrap_or_default()
}

/// The shortest way from each file through others back to itself, if there is one.
fn cycles(imports: &Imports) -> Vec<Vec<String>> {
    let cycle = |start: &String| {
        let mut seen = BTreeSet::new();
        let mut ways = VecDeque::from([vec![start]]);
        while let Some(way) = ways.pop_front() {
            for next in
                imports.get(way[way.len() - 1]).into_iter().flatten().filter(|next| way.len() > 1 || *next != start)
            {
                let way = [&way[..], &[next]].concat();
                if next == start {
                    return Some(way.into_iter().cloned().collect());
                }
                if seen.insert(next) {
                    ways.push_back(way);
                }
            }
        }
        None
    };
    imports.keys().filter_map(cycle).collect()
}

/// The files that each file imports: by `use`, or by a path in its code. A path leads to the file of the longest module in
/// it, so `use super::Item` leads to the file of the parent. `mod child;` imports nothing. Unit tests do not count.
fn files() -> Imports {
    let mut sources = BTreeMap::new();
    read_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &[], &mut sources);
    let file = |module: &[String]| match module {
        [] => "src/lib.rs".to_owned(),
        names => format!("src/{}.rs", names.join("/")),
    };
    let mut imports = Imports::new();
    for (module, source) in &sources {
        let code = source.split("\nmod tests {").next().unwrap_or_default();
        let mut tokens = Vec::new();
        flatten(code.parse().unwrap(), &mut tokens);
        let found = imports.entry(file(module)).or_default();
        for path in paths(&tokens) {
            let mut target = match path[0] {
                "crate" | "roster" => Vec::new(),
                "super" => module[..module.len() - 1].to_vec(),
                "self" => module.clone(),
                child if sources.contains_key(&[&module[..], &[child.to_owned()]].concat()) => {
                    [&module[..], &[child.to_owned()]].concat()
                }
                _ => continue,
            };
            for name in &path[1..] {
                if *name == "super" {
                    target.pop();
                    continue;
                }
                target.push((*name).to_owned());
                if !sources.contains_key(&target) {
                    target.pop();
                    break;
                }
            }
            if target != *module {
                found.insert(file(&target));
            }
        }
    }
    imports
}

/// The source of each module in a folder.
fn read_folder(folder: &Path, parent: &[String], sources: &mut BTreeMap<Vec<String>, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let module = match &*name {
            "lib" => Vec::new(),
            "mod" => parent.to_vec(),
            _ => [parent, &[name]].concat(),
        };
        if path.is_dir() {
            read_folder(&path, &module, sources);
        } else {
            sources.insert(module, fs::read_to_string(path).unwrap());
        }
    }
}

/// The words and signs of code, without comments and literals.
fn flatten(code: TokenStream, tokens: &mut Vec<String>) {
    for token in code {
        match token {
            TokenTree::Group(group) => {
                let (open, close) = if group.delimiter() == Delimiter::Brace { ("{", "}") } else { ("(", ")") };
                tokens.push(open.to_owned());
                flatten(group.stream(), tokens);
                tokens.push(close.to_owned());
            }
            TokenTree::Ident(name) => tokens.push(name.to_string()),
            TokenTree::Punct(sign) => tokens.push(sign.to_string()),
            TokenTree::Literal(_) => tokens.push("0".to_owned()),
        }
    }
}

/// The paths of two names or more: `use a::{b, c::D};` has two. The scope of `pub(in path)` is none.
fn paths(tokens: &[String]) -> Vec<Vec<&str>> {
    let mut paths = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if is_name(&tokens[at])
            && tokens.get(at + 1).is_some_and(|next| next == ":")
            && (at == 0 || tokens[at - 1] != "in")
        {
            at = tree(tokens, at, &[], &mut paths);
        }
        at += 1;
    }
    paths.retain(|path: &Vec<_>| path.len() > 1);
    paths
}

/// Reads the path at this token, behind what precedes a group of paths. Returns the index of its last token.
fn tree<'a>(tokens: &'a [String], mut at: usize, before: &[&'a str], paths: &mut Vec<Vec<&'a str>>) -> usize {
    let mut path = before.to_vec();
    path.push(&tokens[at]);
    while let [first, second, next, ..] = &tokens[at + 1..]
        && first == ":"
        && second == ":"
    {
        if next == "{" {
            at += 4;
            while tokens[at] != "}" {
                if is_name(&tokens[at]) && tokens[at - 1] != "as" {
                    at = tree(tokens, at, &path, paths);
                }
                at += 1;
            }
            return at;
        }
        if !is_name(next) {
            break;
        }
        path.push(next);
        at += 3;
    }
    paths.push(path);
    at
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_') && token != "as"
}
