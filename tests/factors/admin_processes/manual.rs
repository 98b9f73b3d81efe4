//! Manual pages, and completions for shells, made of the command lines of the programs. `just manual` writes them to
//! `target/manual`. The generators are dependencies of the tests, so they are in no program.

use std::fs;
use std::path::PathBuf;

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use libtest_mimic::Trial;
use tempfile::TempDir;

use crate::support::{Tests, tests};

#[expect(dead_code, reason = "only the command line is used")]
#[path = "../../../src/bin/clock.rs"]
mod clock;
#[expect(dead_code, reason = "only the command line is used")]
#[path = "../../../src/bin/migrate.rs"]
mod migrate;
#[expect(dead_code, reason = "only the command line is used")]
#[path = "../../../src/bin/web.rs"]
mod web;
#[expect(dead_code, reason = "only the command line is used")]
#[path = "../../../src/bin/worker.rs"]
mod worker;

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!()).once(tests![the_manual_has_every_command]).trials()
}

/// The names of a command and of all below it, such as `migrate-jobs-list`.
fn names(command: &Command, before: &str) -> Vec<String> {
    let name = format!("{before}{}", command.get_name());
    let below = command.get_subcommands().flat_map(|command| names(command, &format!("{name}-")));
    below.chain([name.clone()]).collect()
}

/// `MANUAL` names the folder that keeps the result.
fn the_manual_has_every_command() {
    let temporary = TempDir::new().unwrap();
    let folder = std::env::var_os("MANUAL").map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    let pages = folder.join("man1");
    fs::create_dir_all(&pages).unwrap();
    for mut command in [
        clock::Arguments::command(),
        migrate::Arguments::command(),
        web::Arguments::command(),
        worker::Arguments::command(),
    ] {
        let program = command.get_name().to_owned();
        clap_mangen::generate_to(command.clone(), &pages).unwrap();
        for name in names(&command, "") {
            let page = fs::read_to_string(pages.join(format!("{name}.1"))).unwrap();
            assert!(page.contains(".SH SYNOPSIS"), "{name}: {page}");
        }
        for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
            let completions = folder.join(shell.to_string());
            fs::create_dir_all(&completions).unwrap();
            let file = clap_complete::generate_to(shell, &mut command, &program, completions).unwrap();
            let script = fs::read_to_string(file).unwrap();
            assert!(script.contains("version"), "{program}: {script}");
            assert_eq!(program == "migrate", script.contains("skip-bad"), "{program}: {script}");
        }
    }
    let page = |name: &str| fs::read_to_string(pages.join(name)).unwrap().replace('\\', "");
    assert!(page("web.1").contains("DATABASE_MAX_CONNECTIONS [4]"), "{}", page("web.1"));
    assert!(page("migrate-down.1").contains("--yes"), "{}", page("migrate-down.1"));
}
