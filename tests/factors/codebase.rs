//! I. Codebase: one codebase tracked in revision control, many deploys.

use std::path::Path;
use std::process::Command;

use libtest_mimic::Trial;

use crate::support::Factor;
use crate::support::engine::{Database, Engine};
use crate::support::process::{Web, migrate_command, web};

pub(crate) fn tests() -> Vec<Trial> {
    Factor::new("codebase")
        .once("both_binaries_are_of_one_version", both_binaries_are_of_one_version)
        .on(&[Engine::Sqlite], "version_names_the_commit", version_names_the_commit)
        .tests()
}

fn both_binaries_are_of_one_version() {
    let version = env!("CARGO_PKG_VERSION");
    let web = web(&["--version"], &[]);
    assert_eq!(String::from_utf8(web.stdout).unwrap(), format!("web {version}\n"));
    let migrate = migrate_command(&["--version"], &[]).output().unwrap();
    assert_eq!(String::from_utf8(migrate.stdout).unwrap(), format!("migrate {version}\n"));
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
