//! I. Codebase: one codebase tracked in revision control, many deploys.

mod documents;
mod imports;
mod service;

use std::path::Path;
use std::process::Command;

use documents::{
    every_tool_runs_the_checks_of_ci, links_lead_to_files_and_headings, the_version_of_rust_is_the_same_everywhere,
};
use imports::{imports_are_those_of_the_architecture, no_two_files_import_each_other};
use libtest_mimic::Trial;
use service::{the_service_carries_another_application, the_service_names_no_resource};
use tempfile::TempDir;

use crate::support::engine::Database;
use crate::support::process::{PROGRAMS, Web, migrate_command};
use crate::support::{Tests, tests};

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!())
        .once(tests![
            all_binaries_are_of_one_version,
            a_clone_has_the_committed_bytes,
            no_two_files_import_each_other,
            imports_are_those_of_the_architecture,
            the_service_names_no_resource,
            the_service_carries_another_application,
            links_lead_to_files_and_headings,
            every_tool_runs_the_checks_of_ci,
            the_version_of_rust_is_the_same_everywhere
        ])
        .any(tests![version_names_the_commit])
        .trials()
}

fn all_binaries_are_of_one_version() {
    let version = env!("CARGO_PKG_VERSION");
    let migrate = migrate_command(&["--version"], &[]).output().unwrap();
    assert_eq!(String::from_utf8(migrate.stdout).unwrap(), format!("migrate {version}\n"));
    for (name, program) in PROGRAMS {
        let done = Command::new(program).arg("--version").output().unwrap();
        assert_eq!(String::from_utf8(done.stdout).unwrap(), format!("{name} {version}\n"));
    }
}

fn version_names_the_commit(database: &Database) {
    let answer = Web::start(database, &[]).get("/version").json();
    let commit = answer["commit"].as_str().unwrap();
    assert_eq!(answer["version"], env!("CARGO_PKG_VERSION"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if root.join(".git").exists() {
        // The binary may be a commit older than the last one; it is never of another repository.
        let known = Command::new("git").args(["cat-file", "-t", commit]).current_dir(root).output().unwrap();
        assert_eq!(String::from_utf8(known.stdout).unwrap().trim(), "commit", "{commit}");
    } else {
        assert!(!commit.is_empty());
    }
}

/// The bytes do not depend on the settings of git. Migrations are compared by checksum, and scripts are executed.
fn a_clone_has_the_committed_bytes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if !root.join(".git").exists() {
        return;
    }
    for settings in [["core.autocrlf=true", "core.eol=native"], ["core.autocrlf=false", "core.eol=crlf"]] {
        let folder = TempDir::with_prefix("roster-clone-").unwrap();
        let git = |arguments: &[&str]| {
            let mut git = Command::new("git");
            git.current_dir(folder.path()).args(settings.iter().flat_map(|setting| ["-c", setting]));
            let done = git.args(arguments).output().unwrap();
            assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
            String::from_utf8(done.stdout).unwrap()
        };
        git(&["clone", "--quiet", root.to_str().unwrap(), "."]);
        let index = git(&["ls-files", "--stage"]);
        // "100644 <hash> 0<tab><path>"; 120000 is a symbolic link.
        let files = index.lines().filter(|line| line.starts_with("100"));
        let entries: Vec<_> = files.map(|line| line.split_once('\t').unwrap()).collect();
        let paths: Vec<_> = entries.iter().map(|(_, path)| *path).collect();
        let hashes = git(&[&["hash-object", "--no-filters", "--"], &paths[..]].concat());
        let pairs = entries.iter().zip(hashes.lines());
        let changed: Vec<_> =
            pairs.filter(|((entry, _), hash)| !entry.contains(hash)).map(|((_, path), _)| path).collect();
        assert!(paths.len() > 100 && changed.is_empty(), "with {settings:?}, these differ: {changed:?}");
    }
}
