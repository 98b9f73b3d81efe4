//! `git push` to a platform that builds in its checkout and runs the Procfile's commands there.
//!
//! The platform is the hook `tests/platform/pre-receive`. Its `cargo` is a script that puts scripts where cargo would put
//! programs. They run this build's programs. `tests/platform/push` does the same with cargo itself.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use libtest_mimic::Trial;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::engine::{Database, program};
use crate::support::process::stderr;
use crate::support::{Port, Tests, eventually, tests};

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!())
        .each(tests![
            a_push_to_a_buildpack_platform_replaces_the_process,
            a_push_to_a_plain_platform_replaces_the_process
        ])
        .once(tests![a_checkout_runs_its_newest_build])
        .trials()
}

fn a_push_to_a_buildpack_platform_replaces_the_process(database: &Database) {
    pushes_replace(database, "buildpack", "bash");
}

fn a_push_to_a_plain_platform_replaces_the_process(database: &Database) {
    pushes_replace(database, "plain", "sh");
}

fn pushes_replace(database: &Database, build: &str, shell: &str) {
    let mut platform = Platform::new(database, build, shell);
    platform.commit("first", |_| {});
    platform.push("1").expect("the first push is deployed");
    eventually("the first release serves", || platform.release().is_some_and(|id| id == "1"));
    assert_eq!(platform.status("/readyz"), Some(200), "the release phase applied the migrations");

    platform.commit("second", |_| {});
    platform.push("2").expect("the second push is deployed");
    let code = fs::read_to_string(platform.folder.path().join("platform/old-exit-code")).unwrap();
    assert_eq!(code, "0\n", "SIGTERM reaches web through the platform's shell");
    eventually("the second release serves", || platform.release().is_some_and(|id| id == "2"));

    let pid = platform.pid().unwrap();
    platform.commit("fails to compile", |checkout| fs::write(checkout.join("broken"), "").unwrap());
    let refused = platform.push("3").expect_err("a failed build is refused");
    assert!(refused.contains("could not compile"), "{refused}");
    platform.commit("fails to release", |checkout| {
        fs::remove_file(checkout.join("broken")).unwrap();
        fs::write(checkout.join("Procfile"), "web: ./bin/web\nrelease: ./bin/migrate up --to 99\n").unwrap();
    });
    let refused = platform.push("4").expect_err("a failed release phase is refused");
    assert!(refused.contains("99"), "{refused}");
    assert_eq!((platform.pid().unwrap(), platform.release().unwrap()), (pid, "2".to_owned()));
    assert_eq!(platform.status("/readyz"), Some(200));
}

/// The newest build runs, whether it is a debug or a release build.
fn a_checkout_runs_its_newest_build() {
    let checkout = TempDir::with_prefix("roster-checkout-").unwrap();
    copy_checkout(checkout.path());
    let run =
        || Command::new("./bin/web").arg("x").current_dir(checkout.path()).env_remove("CARGO_TARGET_DIR").output();
    let none = run().unwrap();
    assert_eq!(none.status.code(), Some(127));
    assert!(stderr(&none).contains("run cargo build --release"), "{}", stderr(&none));
    for (build, seconds) in [("debug", 100), ("release", 200), ("debug", 300), ("programs", 400)] {
        let program = checkout.path().join("target").join(build).join("web");
        write_script(&program, &format!("#!/bin/sh\necho {build} \"$@\"\n"));
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        fs::File::options().write(true).open(&program).unwrap().set_modified(time).unwrap();
        assert_eq!(String::from_utf8(run().unwrap().stdout).unwrap(), format!("{build} x\n"));
    }
}

/// Copies the files that a platform needs besides the sources.
pub(crate) fn copy_checkout(folder: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::create_dir_all(folder.join("bin")).unwrap();
    for file in ["Procfile", "rust-toolchain.toml", "bin/web"] {
        fs::copy(root.join(file), folder.join(file)).unwrap();
    }
    // The commands of the other process types.
    for entry in fs::read_dir(root.join("bin")).unwrap() {
        let path = entry.unwrap().path();
        if let Ok(target) = fs::read_link(&path) {
            symlink(target, folder.join("bin").join(path.file_name().unwrap())).unwrap();
        }
    }
}

fn write_script(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A bare repository with the hook, and a checkout that is pushed to it.
struct Platform {
    folder: TempDir,
    port: Port,
    environment: Vec<(&'static str, String)>,
    agent: ureq::Agent,
}

impl Platform {
    fn new(database: &Database, build: &str, shell: &str) -> Self {
        let folder = TempDir::with_prefix("roster-platform-").unwrap();
        let port = Port::reserve();
        let binaries = Path::new(env!("CARGO_BIN_EXE_web")).parent().unwrap();
        let cargo = format!(
            "#!/bin/sh\n\
             set -eu\n\
             [ \"$1\" = build ]\n\
             [ ! -e broken ] || {{ echo 'error: could not compile' >&2; exit 101; }}\n\
             case $* in *--release*) build=release ;; *) build=debug ;; esac\n\
             folder=${{CARGO_TARGET_DIR:-target}}/$build\n\
             mkdir -p \"$folder\"\n\
             for name in web worker clock migrate; do\n\
             printf '#!/bin/sh\\nexec {}/%s \"$@\"\\n' $name >\"$folder/$name\"\n\
             chmod +x \"$folder/$name\"\n\
             done\n",
            binaries.display()
        );
        write_script(&folder.path().join("tools/cargo"), &cargo);
        let platform = folder.path().join("platform");
        fs::create_dir(&platform).unwrap();
        let environment = vec![
            ("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", folder.path().join("tools").display())),
            ("GIT_CONFIG_GLOBAL", "/dev/null".to_owned()),
            ("PLATFORM", platform.display().to_string()),
            ("PLATFORM_BUILD", build.to_owned()),
            ("PLATFORM_SHELL", program(shell).unwrap().display().to_string()),
            ("DATABASE_URL", database.url.clone()),
            ("HOST", "127.0.0.1".to_owned()),
            ("PORT", port.number.to_string()),
        ];
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let platform = Self { folder, port, environment, agent };
        let bare = platform.folder.path().join("bare");
        platform.git(&["init", "--quiet", "--bare", bare.to_str().unwrap()]);
        let hook = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/platform/pre-receive");
        symlink(hook, bare.join("hooks/pre-receive")).unwrap();
        fs::create_dir(platform.checkout()).unwrap();
        platform.git(&["init", "--quiet", "."]);
        copy_checkout(&platform.checkout());
        platform
    }

    fn checkout(&self) -> PathBuf {
        self.folder.path().join("checkout")
    }

    fn run(&self, release: &str, arguments: &[&str]) -> Output {
        let folder = if self.checkout().exists() { self.checkout() } else { self.folder.path().to_owned() };
        let mut git = Command::new(program("git").unwrap());
        git.current_dir(folder).env_clear().envs(self.environment.iter().cloned()).env("RELEASE_ID", release);
        git.args(["-c", "user.name=roster", "-c", "user.email=roster@example.com"]).args(arguments).output().unwrap()
    }

    fn git(&self, arguments: &[&str]) {
        let done = self.run("", arguments);
        assert!(done.status.success(), "{arguments:?}: {}", stderr(&done));
    }

    fn commit(&self, subject: &str, change: impl FnOnce(&Path)) {
        change(&self.checkout());
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", subject]);
    }

    /// Pushes the checkout as this release. Returns the platform's output if the push is rejected.
    fn push(&mut self, release: &str) -> Result<(), String> {
        let done = self.run(release, &["push", "--quiet", "../bare", "HEAD:refs/heads/main"]);
        if done.status.success() { Ok(()) } else { Err(stderr(&done)) }
    }

    fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut answer = self.agent.get(format!("http://127.0.0.1:{}{path}", self.port.number)).call().ok()?;
        Some((answer.status().as_u16(), answer.body_mut().read_to_string().ok()?))
    }

    fn status(&self, path: &str) -> Option<u16> {
        self.get(path).map(|(status, _)| status)
    }

    /// The release that serves.
    fn release(&self) -> Option<String> {
        let version: Value = serde_json::from_str(&self.get("/version")?.1).unwrap();
        version["release_id"].as_str().map(str::to_owned)
    }

    fn pid(&self) -> Option<String> {
        fs::read_to_string(self.folder.path().join("platform/pid")).ok().map(|pid| pid.trim().to_owned())
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            let _ = Command::new("kill").args(["-KILL", &pid]).status();
        }
    }
}
