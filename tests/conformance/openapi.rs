//! Schemathesis compares the service with its OpenAPI description.

use std::path::Path;

use libtest_mimic::Trial;
use tempfile::TempDir;

use crate::support::engine::{Database, Engine};
use crate::support::process::{TOKEN, Web, sampled};
use crate::support::tool::Tool;
use crate::support::{Tests, tests};

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!())
        // Each rejects values of clients that another accepts.
        .with_tool(
            Tool::Schemathesis,
            &[Engine::Sqlite, Engine::MariaDb, Engine::Postgres],
            tests![the_service_does_what_it_describes],
        )
        .trials()
}

fn the_service_does_what_it_describes(database: &Database) {
    sampled(database, "200");
    let web = Web::writable(database, &[]);
    let scratch = TempDir::with_prefix("roster-conformance-").unwrap();
    let mut schemathesis = Tool::Schemathesis.command();
    let done = schemathesis
        .args(["run", &web.url("/openapi.json"), "--checks", "all"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance"))
        .env("HYPOTHESIS_STORAGE_DIRECTORY", scratch.path())
        .env("API_TOKEN", TOKEN)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
    assert!(web.events().len() > 1000, "it asked");
}
