//! systemd-analyze checks the units.

use std::fs;
use std::path::Path;

use libtest_mimic::Trial;
use tempfile::TempDir;

use crate::support::engine::{Database, Engine};
use crate::support::process::PROGRAMS;
use crate::support::tool::Tool;
use crate::support::{Tests, tests};

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!())
        .with_tool(Tool::SystemdAnalyze, &[Engine::any()], tests![the_systemd_units_are_tight])
        .trials()
}

/// Valid, and each process with few rights: systemd counts its exposure in tenths, and most services come to 92.
fn the_systemd_units_are_tight(_: &Database) {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd");
    for (name, program) in PROGRAMS {
        let folder = TempDir::with_prefix("roster-systemd-").unwrap();
        let unit = if *name == "web" { "roster.service".to_owned() } else { format!("roster-{name}.service") };
        // The program is not installed where the tests run.
        let text = fs::read_to_string(units.join(&unit)).unwrap();
        let here = text.replace(&format!("/usr/local/bin/{name}"), program);
        assert_ne!(here, text);
        let (service, socket) = (folder.path().join(unit), folder.path().join("roster.socket"));
        fs::write(&service, &here).unwrap();
        fs::copy(units.join("roster.socket"), &socket).unwrap();
        let analyze = |arguments: &[&str]| {
            let done = Tool::SystemdAnalyze.command().args(arguments).arg(&service).output().unwrap();
            (done.status.success(), String::from_utf8(done.stderr).unwrap() + &String::from_utf8(done.stdout).unwrap())
        };
        let both = ["verify", socket.to_str().unwrap()];
        let (is_valid, told) = analyze(if name.is_empty() { &both } else { &both[..1] });
        assert!(is_valid && told.is_empty(), "{told}");
        let (is_tight, told) = analyze(&["security", "--offline=true", "--threshold=15"]);
        assert!(is_tight, "{told}");

        // Both would tell.
        fs::write(&service, here.replace("DynamicUser=yes", "DynamicUsers=yes")).unwrap();
        assert!(analyze(&["verify"]).1.contains("Unknown key"));
        assert!(!analyze(&["security", "--offline=true", "--threshold=15"]).0);
    }
}
