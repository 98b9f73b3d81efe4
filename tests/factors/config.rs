//! III. Config: stored in the environment, and nowhere else.

use std::fs;
use std::path::Path;

use libtest_mimic::Trial;
use roster::config::{Config, LogFormat};

use crate::support::Factor;
use crate::support::process::{code, migrate_command, stderr, web};

pub(crate) fn tests() -> Vec<Trial> {
    Factor::new("config")
        .once("without_a_database_nothing_starts", without_a_database_nothing_starts)
        .once("defaults_are_those_of_the_readme", defaults_are_those_of_the_readme)
        .once("every_variable_is_read", every_variable_is_read)
        .once("every_problem_is_told_at_once", every_problem_is_told_at_once)
        .once("an_empty_variable_is_unset", an_empty_variable_is_unset)
        .once("a_url_is_checked_before_anything_starts", a_url_is_checked_before_anything_starts)
        .once("the_url_may_be_in_a_file", the_url_may_be_in_a_file)
        .once("no_secret_is_shown", no_secret_is_shown)
        .tests()
}

fn read(vars: &[(&str, &str)]) -> Result<Config, String> {
    let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::from_vars(vars).map_err(|problems| problems.to_string())
}

fn without_a_database_nothing_starts() {
    for done in [web(&[], &[]), web(&["check"], &[]), migrate_command(&["status"], &[]).output().unwrap()] {
        assert_eq!(code(&done), 78);
        assert!(stderr(&done).contains("DATABASE_URL: required"), "{}", stderr(&done));
        assert!(done.stdout.is_empty());
    }
}

fn defaults_are_those_of_the_readme() {
    let done = web(&["check"], &[("DATABASE_URL", "sqlite:a.db")]);
    assert_eq!(code(&done), 0);
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let printed = String::from_utf8(done.stdout).unwrap();
    assert!(printed.lines().count() > 10);
    for line in printed.lines() {
        let (name, value) = line.split_once('=').unwrap();
        let row = readme.lines().find(|row| row.starts_with(&format!("| `{name}` |")));
        let row = row.unwrap_or_else(|| panic!("README.md does not explain {name}"));
        let shown = match name {
            "DATABASE_URL" => "required",
            "WEB_CONCURRENCY" => "processors",
            _ => value,
        };
        assert!(row.split('|').nth(2).unwrap().contains(shown), "the default of {name} is {value}: {row}");
    }
}

fn every_variable_is_read() {
    let config = read(&[
        ("DATABASE_URL", "postgres://u:p@db.internal:6543/app"),
        ("DATABASE_MAX_CONNECTIONS", "3"),
        ("DATABASE_ACQUIRE_TIMEOUT_MS", "4"),
        ("DATABASE_QUERY_TIMEOUT_MS", "5"),
        ("PORT", "6"),
        ("HOST", "::1"),
        ("WEB_CONCURRENCY", "7"),
        ("SHUTDOWN_TIMEOUT_MS", "8"),
        ("LOG_FORMAT", "text"),
        ("RUST_LOG", "warn,roster=debug"),
        ("AUTO_MIGRATE", "true"),
        ("AUTO_SEED", "9"),
        ("RELEASE_ID", "0.1.0.10"),
        ("MAX_IN_FLIGHT", "11"),
        ("REQUEST_TIMEOUT_MS", "12"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
        ("REUSE_PORT", "true"),
        ("DRAIN_DELAY_MS", "13"),
    ])
    .unwrap();
    assert_eq!(config.database_url.address(), "db.internal:6543");
    assert_eq!(config.database_max_connections.get(), 3);
    assert_eq!(config.database_acquire_timeout_ms.get(), 4);
    assert_eq!(config.database_query_timeout_ms.get(), 5);
    assert_eq!(config.port, 6);
    assert_eq!(config.host.to_string(), "::1");
    assert_eq!(config.web_concurrency.get(), 7);
    assert_eq!(config.shutdown_timeout_ms.get(), 8);
    assert_eq!(config.log_format, LogFormat::Text);
    assert_eq!(config.rust_log, "warn,roster=debug");
    assert!(config.auto_migrate);
    assert_eq!(config.auto_seed, 9);
    assert_eq!(config.release_id.as_deref(), Some("0.1.0.10"));
    assert_eq!(config.max_in_flight.get(), 11);
    assert_eq!(config.request_timeout_ms.get(), 12);
    assert!(config.reuse_port);
    assert_eq!(config.drain_delay_ms, 13);
    assert_eq!(config.otel_exporter_otlp_endpoint.as_deref(), Some("http://collector:4318"));
}

fn every_problem_is_told_at_once() {
    let wrong = [
        ("DATABASE_URL", "oracle://somewhere"),
        ("PORT", "99999"),
        ("HOST", "everywhere"),
        ("WEB_CONCURRENCY", "0"),
        ("DATABASE_MAX_CONNECTIONS", "99999"),
        ("DATABASE_QUERY_TIMEOUT_MS", "2s"),
        ("LOG_FORMAT", "xml"),
        ("RUST_LOG", "roster=loud"),
        ("AUTO_MIGRATE", "maybe"),
        ("AUTO_SEED", "many"),
    ];
    let done = web(&["check"], &wrong);
    assert_eq!(code(&done), 78);
    let told = stderr(&done);
    for (name, _) in wrong {
        assert_eq!(told.matches(&format!("\n  {name}: ")).count(), 1, "{name} in {told}");
    }
    // The same for the server itself and for the admin tasks.
    assert_eq!(stderr(&web(&[], &wrong)), told);
    let migrate = migrate_command(&["status"], &wrong).output().unwrap();
    assert_eq!(stderr(&migrate).replace("migrate: ", "web: "), told);
}

fn an_empty_variable_is_unset() {
    let config = read(&[("DATABASE_URL", "sqlite:a.db"), ("PORT", ""), ("RELEASE_ID", ""), ("DATABASE_URL_FILE", "")]);
    let config = config.unwrap();
    assert_eq!(config.port, 5000);
    assert_eq!(config.release_id, None);
    assert!(read(&[("DATABASE_URL", "")]).unwrap_err().contains("DATABASE_URL: required"));
}

fn a_url_is_checked_before_anything_starts() {
    for (url, reason) in [
        ("oracle://db/app", "unknown scheme; use sqlite:, mysql://, mariadb://, postgres:// or postgresql://"),
        ("roster.db", "unknown scheme"),
        ("sqlite::memory:", "dies with its last connection"),
        ("sqlite://a.db?mode=memory", "dies with its last connection"),
        ("sqlite:", "names no file"),
        ("sqlite:a.db?mode=fast", "mode"),
        ("mysql://db", "names no database"),
        ("mysql:app", "write it as mysql://user:password@host/database"),
        ("postgres://db:port/app", "not a URL: invalid port number"),
        ("postgres://db/app?sslmode=maybe", "maybe"),
    ] {
        let told = read(&[("DATABASE_URL", url)]).unwrap_err();
        assert!(told.contains("DATABASE_URL: ") && told.contains(reason), "{url}: {told}");
    }
    for url in ["sqlite:a.db", "mysql://u@h/d", "mariadb://u@h/d", "postgres://u@h/d", "postgresql://u@h/d"] {
        assert!(read(&[("DATABASE_URL", url)]).is_ok(), "{url}");
    }
}

fn the_url_may_be_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("url");
    fs::write(&file, "mysql://u:secret@db/app\n").unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(read(&[("DATABASE_URL_FILE", file)]).unwrap().database_url.address(), "db:3306");

    fs::write(file, "\n").unwrap();
    let empty = read(&[("DATABASE_URL_FILE", file)]).unwrap_err();
    assert!(empty.contains("DATABASE_URL_FILE: unknown scheme"), "{empty}");

    let both = read(&[("DATABASE_URL_FILE", file), ("DATABASE_URL", "sqlite:a.db")]).unwrap_err();
    assert!(both.contains("DATABASE_URL_FILE: DATABASE_URL is set as well"), "{both}");
    let missing = read(&[("DATABASE_URL_FILE", "/does/not/exist")]).unwrap_err();
    assert!(missing.contains("DATABASE_URL_FILE: cannot read /does/not/exist"), "{missing}");
    assert!(!missing.contains("required"), "{missing}");
}

fn no_secret_is_shown() {
    for url in [
        "postgres://user:canary@db:5432/app?password=canary",
        "mysql://user:canary@db/app?ssl-key=canary",
        "postgres://user:canary@db:port/app",
        "postgres://user:canary@db/app?sslmode=wrong",
        "user:canary@db/app",
        "mysql:canary",
    ] {
        let done = web(&["check"], &[("DATABASE_URL", url)]);
        assert!(!String::from_utf8_lossy(&done.stdout).contains("canary"), "{url}");
        assert!(!stderr(&done).contains("canary"), "{url}: {}", stderr(&done));
        if let Ok(config) = read(&[("DATABASE_URL", url)]) {
            assert!(!format!("{config:?} {config:#?} {config}").contains("canary"), "{url}");
            assert!(config.to_string().contains("user:***@db"), "{config}");
        }
    }
}
