//! Passes the git commit, for `/version`, the hashes of the stylesheets, and the migrations to the crate.

#[path = "src/db/migrations/folder.rs"]
mod folder;

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    commit();
    styles();
    migrations();
}

/// Writes a table of the migrations. An incomplete folder is an error of the build.
fn migrations() {
    const FOLDER: &str = "migrations";
    println!("cargo::rerun-if-changed={FOLDER}");
    match folder::table(Path::new(FOLDER)) {
        Ok(table) => {
            let output = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
            std::fs::write(output.join("migrations.rs"), table).expect("cargo's folder can be written to");
        }
        Err(problem) => println!("cargo::error={problem}"),
    }
}

/// The address of a stylesheet changes with its content.
fn styles() {
    for (variable, file) in [("STYLE_HASH", "templates/style.css"), ("DOCS_STYLE_HASH", "templates/docs.css")] {
        println!("cargo::rerun-if-changed={file}");
        let style = std::fs::read(file).expect("the stylesheets are beside the templates");
        println!("cargo::rustc-env={variable}={:016x}", xxhash_rust::xxh3::xxh3_64(&style));
    }
}

/// The git commit.
fn commit() {
    // An image and the slug of a platform are built without the repository. A variable contains the commit.
    const GIVEN: [&str; 2] = ["GIT_COMMIT", "SOURCE_VERSION"];
    for name in GIVEN {
        println!("cargo::rerun-if-env-changed={name}");
    }
    // cargo treats a missing file as a changed one.
    let head = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|head| Path::new(head).exists());
    println!("cargo::rerun-if-changed={}", head.as_deref().unwrap_or("build.rs"));
    let given = GIVEN.iter().filter_map(|name| std::env::var(name).ok()).find(|commit| !commit.is_empty());
    let commit = given.or_else(|| git(&["rev-parse", "HEAD"]));
    println!("cargo::rustc-env=ROSTER_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
}

/// What git prints, if this folder is a checkout.
fn git(arguments: &[&str]) -> Option<String> {
    // Without a .git folder here, git would use a repository of a parent folder.
    Path::new(".git").exists().then_some(())?;
    let git = Command::new("git").args(arguments).output().ok()?;
    let output = String::from_utf8(git.stdout).ok()?;
    git.status.success().then(|| output.trim().to_owned())
}
