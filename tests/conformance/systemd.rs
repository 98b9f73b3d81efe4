//! systemd-analyze checks the units.

use std::fs;
use std::path::Path;

use libtest_mimic::Trial;
use tempfile::TempDir;

use crate::support::engine::{Database, Engine};
use crate::support::tool::Tool;
use crate::support::{Tests, tests};

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!())
        .with_tool(Tool::SystemdAnalyze, &[Engine::any()], tests![the_systemd_unit_is_tight])
        .trials()
}

/// Valid, and its process with few rights: systemd counts its exposure in tenths, and most services come to 92.
fn the_systemd_unit_is_tight(_: &Database) {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd");
    let folder = TempDir::with_prefix("roster-systemd-").unwrap();
    // The program is not installed where the tests run.
    let service = fs::read_to_string(units.join("roster.service")).unwrap();
    let here = service.replace("/usr/local/bin/web", env!("CARGO_BIN_EXE_web"));
    assert_ne!(here, service);
    let (service, socket) = (folder.path().join("roster.service"), folder.path().join("roster.socket"));
    fs::write(&service, &here).unwrap();
    fs::copy(units.join("roster.socket"), &socket).unwrap();
    let analyze = |arguments: &[&str]| {
        let done = Tool::SystemdAnalyze.command().args(arguments).arg(&service).output().unwrap();
        (done.status.success(), String::from_utf8(done.stderr).unwrap() + &String::from_utf8(done.stdout).unwrap())
    };
    let (is_valid, told) = analyze(&["verify", socket.to_str().unwrap()]);
    assert!(is_valid && told.is_empty(), "{told}");
    let (is_tight, told) = analyze(&["security", "--offline=true", "--threshold=15"]);
    assert!(is_tight, "{told}");

    // Both would tell.
    fs::write(&service, here.replace("DynamicUser=yes", "DynamicUsers=yes")).unwrap();
    assert!(analyze(&["verify"]).1.contains("Unknown key"));
    assert!(!analyze(&["security", "--offline=true", "--threshold=15"]).0);
}
