//! II. Dependencies: explicitly declared and isolated.

use std::path::Path;
use std::process::Command;

use libtest_mimic::Trial;
use serde_json::Value;

use crate::support::{Tests, tests};

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!()).once(tests![the_lock_file_declares_every_dependency]).trials()
}

fn the_lock_file_declares_every_dependency() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--format-version", "1", "--manifest-path"])
        .arg(manifest)
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 50, "all of them are listed");
    for package in packages.iter().filter(|package| package["name"] != "roster") {
        let source = package["source"].as_str().unwrap_or("a folder of this machine");
        assert!(source.starts_with("registry+"), "{} comes from {source}", package["name"]);
    }
}
