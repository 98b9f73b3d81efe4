//! What starts, watches and ends processes: the operating system's managers, by the files that the project has for them.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::factors::build_release_run::push::copy_checkout;
use libtest_mimic::Trial;
use roster::db::migrations::LATEST;

use crate::support::engine::{Database, Engine, program};
use crate::support::process::{Web, migrated, stderr};
use crate::support::tool::Tool;
use crate::support::{Port, Tests, eventually, tests};

/// The process types of the Procfile.
const TYPES: &[&str] = &["web", "worker", "clock"];

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!())
        .with_tool(Tool::Honcho, &Engine::ALL, tests![the_procfile_runs])
        .each(tests![the_procfile_runs_without_a_shell])
        .with_tool(Tool::Runsv, &Engine::SERVERS, tests![runit_starts_a_killed_process_again])
        .trials()
}

/// The folder of this build's binaries, and where else programs are.
fn program_path() -> String {
    let binaries = Path::new(env!("CARGO_BIN_EXE_web")).parent().unwrap();
    format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin", binaries.display())
}

/// In a checkout with a build by cargo. The programs are not on the PATH.
fn the_procfile_runs(database: &Database) {
    let checkout = TempDir::with_prefix("roster-checkout-").unwrap();
    copy_checkout(checkout.path());
    fs::create_dir(checkout.path().join("target")).unwrap();
    let binaries = Path::new(env!("CARGO_BIN_EXE_web")).parent().unwrap();
    symlink(binaries, checkout.path().join("target/debug")).unwrap();
    let honcho = |arguments: &[&str]| {
        let mut command = Tool::Honcho.command();
        command.current_dir(checkout.path()).args(arguments);
        command.env_clear().envs([("PATH", "/usr/bin:/bin"), ("DATABASE_URL", &database.url)]);
        command.env("PYTHONUNBUFFERED", "1");
        command
    };
    let release = honcho(&["start", "release"]).output().unwrap();
    let told = String::from_utf8(release.stdout).unwrap();
    assert!(release.status.success() && told.contains(&format!("migrations 1 to {LATEST} applied")), "{told}");
    assert_eq!(migrated(database, &["up"]), "nothing to do: no migration applied\n");

    let port = Port::reserve();
    let mut web = Web::launch(honcho(&["start", "--port", &port.number.to_string(), "web"]));
    assert_eq!(web.get("/readyz").status, 200);
    web.signal("TERM");
    // The manager's code is its own: that of its signal.
    assert_eq!(web.exit_code(), 143);
    eventually("both say so", || ["\"stopped\"", "web.1 stopped (rc=0)"].iter().all(|told| web.log().contains(told)));

    // Each process type has a port of its own.
    let ports = Port::reserve();
    let mut all = Web::launch(honcho(&[&["start", "--port", &ports.number.to_string()], TYPES].concat()));
    eventually("all are ready", || all.log().matches("\"ready\"").count() == TYPES.len());
    all.signal("TERM");
    assert_eq!(all.exit_code(), 143);
    for name in TYPES {
        let stopped = format!("{name}.1 stopped (rc=0)");
        eventually("each stops", || all.log().contains(&stopped));
    }
}

/// The files are those of the image. The platform splits each command into words and executes it.
fn the_procfile_runs_without_a_shell(database: &Database) {
    let root = TempDir::with_prefix("roster-image-").unwrap();
    let binaries = root.path().join("usr/local/bin");
    fs::create_dir_all(&binaries).unwrap();
    for name in ["web", "worker", "clock", "migrate", "exec"] {
        symlink(env!("CARGO_BIN_EXE_roster"), binaries.join(name)).unwrap();
    }
    symlink("usr/local/bin", root.path().join("bin")).unwrap();
    let procfile = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Procfile")).unwrap();
    let command = |name: &str| {
        let line = procfile.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap();
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().unwrap());
        command.args(words).current_dir(root.path()).env_clear().env("PATH", &binaries);
        command.envs([("DATABASE_URL", database.url.as_str()), ("HOST", "127.0.0.1"), ("PORT", "0")]);
        command
    };
    let release = command("release").output().unwrap();
    assert!(release.status.success(), "{}", stderr(&release));
    for name in TYPES {
        let mut process = Web::launch(command(name));
        assert_eq!(process.get("/readyz").status, 200);
        process.signal("TERM");
        assert_eq!(process.exit_code(), 0, "{name} replaced the process that started it");
    }

    for (arguments, code, reason) in
        [(&["./bin/wbe"][..], 127, "exec: ./bin/wbe: No such file"), (&[], 2, "exec: the command is missing")]
    {
        let failed = Command::new(binaries.join("exec")).args(arguments).output().unwrap();
        assert_eq!(failed.status.code(), Some(code));
        assert!(stderr(&failed).starts_with(reason), "{}", stderr(&failed));
    }
}

fn runit_starts_a_killed_process_again(database: &Database) {
    migrated(database, &["up"]);
    // Beside the file, runit keeps its own; without rights, the process reads what is everybody's.
    let folder = TempDir::with_prefix("roster-runit-").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let service = folder.path().join("web");
    fs::create_dir_all(service.join("env")).unwrap();
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/runit/web/run"), service.join("run")).unwrap();
    let binary = folder.path().join("bin");
    fs::create_dir(&binary).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_web"), binary.join("web")).unwrap();
    let path = format!("{}:{}", binary.display(), program_path());
    let port = Port::reserve();
    for (name, value) in [("DATABASE_URL", &database.url), ("PORT", &port.number.to_string()), ("PATH", &path)] {
        fs::write(service.join("env").join(name), value).unwrap();
    }

    let mut runsv = Tool::Runsv.command();
    runsv.arg(&service).env_clear().env("PATH", &path);
    let mut web = Web::launch(runsv);
    let pid = || fs::read_to_string(service.join("supervise/pid")).unwrap().trim().to_owned();
    let first = pid();
    assert_eq!(web.get("/readyz").status, 200);
    let status = fs::read_to_string(format!("/proc/{first}/status")).unwrap();
    let user = status.lines().find_map(|line| line.strip_prefix("Uid:\t")).unwrap();
    assert!(!user.starts_with("0\t"), "it is nobody of importance: {user}");

    assert!(Command::new("kill").args(["-KILL", &first]).status().unwrap().success());
    eventually("it is started again", || !["", &first].contains(&pid().as_str()));
    eventually("it serves again", || web.log().matches("serving at").count() == 2);
    assert_eq!(web.get("/readyz").status, 200);

    let down = Command::new(program("sv").unwrap()).arg("down").arg(&service).stdout(Stdio::null()).status().unwrap();
    assert!(down.success());
    eventually("it drains", || web.log().contains("\"stopped\""));
    web.signal("TERM");
    assert_eq!(web.exit_code(), 0);
}
