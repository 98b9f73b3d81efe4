//! III. Config: stored in the environment, and nowhere else.

use std::fs;
use std::net::{IpAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use libtest_mimic::Trial;
use roster::config::{ClientAddressHeader, Config, Endpoint, LogFormat, TokensRequired, Variable};

use crate::support::engine::{Database, Engine, Family, Server};
use crate::support::process::{self, PROGRAMS, Web, code, migrate_command, seed, stderr, web};
use crate::support::resource::LISTING;
use crate::support::{Tests, tests};

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!())
        .once(tests![
            without_a_database_nothing_starts,
            defaults_are_those_of_the_readme,
            every_variable_is_read,
            every_problem_is_told_at_once,
            an_empty_variable_is_unset,
            a_url_is_checked_before_anything_starts,
            the_url_may_be_in_a_file,
            no_secret_is_shown,
            no_part_of_a_secret_is_repeated,
            no_part_of_the_login_of_mail_is_repeated,
            an_unknown_parameter_is_refused_by_name,
            parameters_of_postgres_hosts_are_applied_or_refused,
            variables_of_libpq_are_checked_as_parameters,
            parameters_of_mysql_hosts_are_applied_or_refused,
            // [only servers]
            a_file_of_a_url_is_checked_before_anything_starts,
            the_protection_of_the_connection_is_shown,
            plain_text_to_another_machine_is_logged_once,
            // [end]
            text_around_a_url_is_rejected_by_name,
            a_wrong_scheme_is_rejected_with_the_right_one,
            a_number_out_of_range_is_refused_with_the_range,
            a_wrong_value_is_shown_with_the_accepted_ones,
            no_error_has_the_words_of_a_library,
            help_lists_the_variables_and_the_exit_codes,
            a_name_is_an_address_to_bind,
            a_log_filter_without_effect_is_refused,
            a_similar_name_is_reported,
            opentelemetry_variables_are_honoured_or_refused,
            traces_are_sent_where_the_standard_says
        ])
        .on(&Engine::SERVERS, tests![a_url_may_name_a_socket_or_an_ipv6_address])
        .each(tests![every_component_takes_the_largest_numbers])
        .trials()
}

fn read(vars: &[(&str, &str)]) -> Result<Config, String> {
    let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::from_vars(vars).map_err(|problems| problems.to_string())
}

// [only servers]
/// The schemes of servers.
const SCHEMES: [&str; 2] = ["postgres", "mysql"];
// [end]
/// A complete configuration.
const URL: (&str, &str) = ("DATABASE_URL", Engine::ALL[0].unused_url());

fn without_a_database_nothing_starts() {
    for done in [web(&[], &[]), web(&["check"], &[]), migrate_command(&["status"], &[]).output().unwrap()] {
        assert_eq!(code(&done), 78);
        assert!(stderr(&done).contains("DATABASE_URL: required"), "{}", stderr(&done));
        assert!(done.stdout.is_empty());
    }
}

fn defaults_are_those_of_the_readme() {
    let done = web(&["check"], &[URL]);
    assert_eq!(code(&done), 0);
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let rows = Config::VARIABLES
        .iter()
        .map(|Variable { name, default, meaning }| format!("| `{name}` | {default} | {meaning} |\n"));
    let table = format!("\n| variable | default | meaning |\n|---|---|---|\n{}\n", rows.collect::<String>());
    assert!(readme.contains(&table), "the table of README.md is not that of Config::VARIABLES:\n{table}");
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
        URL,
        ("DATABASE_MAX_CONNECTIONS", "3"),
        ("DATABASE_ACQUIRE_TIMEOUT_MS", "4"),
        ("DATABASE_QUERY_TIMEOUT_MS", "5"),
        ("PORT", "6"),
        ("HOST", "::1"),
        ("WEB_CONCURRENCY", "7"),
        ("SHUTDOWN_TIMEOUT_MS", "8"),
        ("LOG_FORMAT", "text"),
        ("RUST_LOG", "warn,roster=debug"),
        ("API_TOKENS", &format!("one:{}", "0".repeat(64))),
        ("API_TOKENS_REQUIRED", "all"),
        ("AUTO_MIGRATE", "true"),
        ("AUTO_SEED", "9"),
        ("RELEASE_ID", "0.1.0.10"),
        ("MAX_IN_FLIGHT", "11"),
        ("REQUEST_TIMEOUT_MS", "12"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
        ("REUSE_PORT", "true"),
        ("DRAIN_DELAY_MS", "13"),
        ("KEEP_ALIVE_MS", "14"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "15"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "16"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://collector:4318/traces"),
        ("OTEL_TRACES_EXPORTER", "otlp"),
        ("OTEL_SDK_DISABLED", "FALSE"),
        ("SMTP_URL", "smtps://user:canary@mail.internal"),
        ("MAIL_FROM", "Roster <roster@example.com>"),
        ("WORKER_CONCURRENCY", "17"),
        ("CLEANUP_SCHEDULE", "30 4 * * *"),
        ("TRUSTED_PROXIES", "10.0.0.0/8, 192.0.2.1\nfd00::/8"),
        ("CLIENT_ADDRESS_HEADER", "Forwarded"),
        ("NO_COLOR", "1"),
    ])
    .unwrap();
    assert_eq!(config.smtp_url.as_ref().unwrap().to_string(), "smtps://***@mail.internal:465");
    assert_eq!(config.worker_concurrency.get(), 17);
    let proxies = config.trusted_proxies.as_ref().unwrap();
    for (address, is_trusted) in [("10.255.0.1", true), ("192.0.2.1", true), ("fd00::1", true), ("192.0.2.2", false)] {
        assert_eq!(proxies.contains(address.parse().unwrap()), is_trusted, "{address}");
    }
    assert_eq!(config.client_address_header, ClientAddressHeader::Forwarded);
    assert_eq!(config.cleanup_schedule.next_after(0), Some(4 * 3600 + 30 * 60));
    let address = match Engine::ALL[0].family() {
        Family::Sqlite => "none.db",
        Family::MySql | Family::Postgres => "127.0.0.1:1",
    };
    assert_eq!(config.database_url.address(), address);
    assert_eq!(config.database_max_connections.get(), 3);
    assert_eq!(config.database_acquire_timeout_ms.get(), 4);
    assert_eq!(config.database_query_timeout_ms.get(), 5);
    assert_eq!(config.port, 6);
    assert_eq!(config.host.to_string(), "::1");
    assert_eq!(config.web_concurrency.get(), 7);
    assert_eq!(config.shutdown_timeout_ms.get(), 8);
    assert_eq!(config.log_format, LogFormat::Text);
    assert_eq!(format!("{:?}", config.api_tokens), r#"["one"]"#);
    assert_eq!(config.api_tokens_required, TokensRequired::All);
    assert_eq!(config.rust_log, "warn,roster=debug");
    assert!(config.auto_migrate);
    assert_eq!(config.auto_seed, 9);
    assert_eq!(config.release_id.as_deref(), Some("0.1.0.10"));
    assert_eq!(config.max_in_flight.get(), 11);
    assert_eq!(config.request_timeout_ms.get(), 12);
    assert!(config.reuse_port);
    assert_eq!(config.drain_delay_ms, 13);
    assert_eq!(config.otel_exporter_otlp_endpoint.as_ref().map(Endpoint::as_str), Some("http://collector:4318"));
    assert_eq!(config.keep_alive_ms.get(), 14);
    assert_eq!(config.traces_timeout().as_millis(), 16);
    assert_eq!(config.traces_endpoint().as_deref(), Some("http://collector:4318/traces"));
    // The list of known names is complete.
    let printed = config.to_string();
    let known: Vec<_> = Config::VARIABLES.iter().map(|variable| variable.name).collect();
    for name in known.iter().filter(|name| !name.ends_with("_FILE") && **name != "RELEASE_ID") {
        assert!(printed.contains(&format!("{name}=")), "{name} in {printed}");
    }
    let names = printed.lines().map(|line| line.split('=').next().unwrap());
    assert_eq!(names.filter(|name| !known.contains(name)).collect::<Vec<_>>(), [""; 0]);
}

fn every_problem_is_told_at_once() {
    let wrong = [
        ("DATABASE_URL", "oracle://somewhere"),
        ("PORT", "99999"),
        ("HOST", "every where"),
        ("WEB_CONCURRENCY", "0"),
        ("DATABASE_MAX_CONNECTIONS", "99999"),
        ("DATABASE_QUERY_TIMEOUT_MS", "2s"),
        ("LOG_FORMAT", "xml"),
        ("RUST_LOG", "roster=loud"),
        ("AUTO_MIGRATE", "maybe"),
        ("AUTO_SEED", "many"),
        ("SMTP_URL", "mail.example.com"),
        ("MAIL_FROM", "nobody"),
        ("WORKER_CONCURRENCY", "1001"),
        ("CLEANUP_SCHEDULE", "hourly"),
        ("TRUSTED_PROXIES", "10.0.0.0/33"),
        ("CLIENT_ADDRESS_HEADER", "x-real-ip"),
    ];
    let done = web(&["check"], &wrong);
    assert_eq!(code(&done), 78);
    let told = stderr(&done);
    for (name, _) in wrong {
        assert_eq!(told.matches(&format!("\n  {name}: ")).count(), 1, "{name} in {told}");
    }
    // The same for the processes and for the admin tasks.
    for (name, program) in PROGRAMS {
        let done = Command::new(program).env_clear().envs(wrong).output().unwrap();
        assert_eq!((code(&done), stderr(&done).replace(&format!("{name}: "), "web: ")), (78, told.clone()));
    }
    let migrate = migrate_command(&["status"], &wrong).output().unwrap();
    assert_eq!(stderr(&migrate).replace("migrate: ", "web: "), told);
}

fn an_empty_variable_is_unset() {
    let config = read(&[URL, ("PORT", ""), ("RELEASE_ID", ""), ("DATABASE_URL_FILE", "")]);
    let config = config.unwrap();
    assert_eq!(config.port, 5000);
    assert_eq!(config.release_id, None);
    assert!(read(&[("DATABASE_URL", "")]).unwrap_err().contains("DATABASE_URL: required"));
}

fn a_url_is_checked_before_anything_starts() {
    for (url, reason) in [
        ("oracle://db/app", "unknown scheme; use sqlite:, mysql://, mariadb://, postgres:// or postgresql://"),
        ("roster.db", "unknown scheme"),
        ("sqlite::memory:", "ends with its last connection"),
        ("sqlite://a.db?mode=memory", "ends with its last connection"),
        ("sqlite:", "names no file"),
        ("sqlite:folder/", "names no file"),
        ("sqlite:a.db?mode=fast", "mode: unknown value; expected one of ro, rw, rwc"),
        ("mysql://db", "names no database"),
        ("mysql:app", "write it as mysql://user:password@host/database"),
        ("postgres://db:port/app", "the port is not a number from 1 to 65535"),
        ("postgres://db:0/app", "the port is not a number from 1 to 65535"),
        ("postgres://db:65536/app", "the port is not a number from 1 to 65535"),
        ("postgres://db/app?port=0", "port: expected an integer from 1 to 65535"),
        ("postgres://u@::1/app", "an IPv6 address is written in brackets"),
        ("postgres://[::x]/app", "the IPv6 address in brackets is not valid"),
        ("postgres://one,two/app", "more than one host"),
        ("postgres://db/app?sslmode=maybe", "expected one of disable, prefer, require, verify-ca, verify-full"),
        ("mysql://db/app?ssl-mode=maybe", "expected one of DISABLED, PREFERRED, REQUIRED, VERIFY_CA, VERIFY_IDENTITY"),
    ] {
        let told = read(&[("DATABASE_URL", url)]).unwrap_err();
        assert!(told.contains("DATABASE_URL: ") && told.contains(reason), "{url}: {told}");
    }
    for url in
        ["sqlite:a.db", "sqlite:///a.db", "mysql://u@h/d", "mariadb://u@h/d", "postgres://u@h/d", "postgresql://u@h/d"]
    {
        assert!(read(&[("DATABASE_URL", url)]).is_ok(), "{url}");
        let (scheme, rest) = url.split_once(':').unwrap();
        let upper = format!("{}:{rest}", scheme.to_ascii_uppercase());
        assert!(read(&[("DATABASE_URL", &upper)]).is_ok(), "{upper}");
    }
}

fn the_url_may_be_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("url");
    let file = file.to_str().unwrap();
    // As editors and secret stores write it.
    let url = URL.1;
    let address = read(&[URL]).unwrap().database_url.address().to_owned();
    for text in [format!("{url}\n"), format!("\u{feff}{url}\r\n"), format!("  {url}")] {
        fs::write(file, &text).unwrap();
        assert_eq!(read(&[("DATABASE_URL_FILE", file)]).unwrap().database_url.address(), address, "{text:?}");
    }
    let long = vec![b'x'; 20_000];
    for (text, reason) in [
        (&b"\n"[..], "is empty"),
        (b"\xff\xfem\0y\0", "is not UTF-8"),
        (b"'scheme://u:canary@db/app'", "quotation mark"),
        (b"scheme://u:canary@db/app\nscheme://u:canary@db/app", "control character"),
        (b"DATABASE_URL=scheme://u:canary@db/app", "the name of a variable"),
        (&long, "longer than 16384 bytes"),
    ] {
        fs::write(file, text).unwrap();
        let message = read(&[("DATABASE_URL_FILE", file)]).unwrap_err();
        assert!(message.contains("DATABASE_URL_FILE: ") && message.contains(reason), "{reason}: {message}");
        assert!(!message.contains("canary"), "{message}");
    }
    let both = read(&[("DATABASE_URL_FILE", file), URL]).unwrap_err();
    assert!(both.contains("DATABASE_URL_FILE: DATABASE_URL is set as well"), "{both}");
    for (path, reason) in [("/does/not/exist", "cannot read /does/not/exist"), ("/dev/zero", "longer than 16384 bytes")]
    {
        let message = read(&[("DATABASE_URL_FILE", path)]).unwrap_err();
        assert!(message.contains("DATABASE_URL_FILE: ") && message.contains(reason), "{message}");
        assert!(!message.contains("required"), "{message}");
    }
}

fn no_secret_is_shown() {
    for url in [
        "postgres://user:canary@db:5432/app?dbname=x",
        "postgres://user@db:5432/app?password=canary",
        "mysql://user:canary@db/app?ssl-key=canary",
        "postgres://user:canary@db:port/app",
        "postgres://user:canary@db/app?sslmode=wrong",
        "postgres://user:canary@db/app",
        "mysql://user:canary@db/app",
        "user:canary@db/app",
        "oracle://user:canary@db/app",
        "mysql:canary",
    ] {
        let done = web(&["check"], &[("DATABASE_URL", url)]);
        assert!(!String::from_utf8_lossy(&done.stdout).contains("canary"), "{url}");
        assert!(!stderr(&done).contains("canary"), "{url}: {}", stderr(&done));
        if let Ok(config) = read(&[("DATABASE_URL", url)]) {
            assert!(!format!("{config:?} {config:#?} {config}").contains("canary"), "{url}");
            assert!(config.to_string().contains("user:***@db") || url.contains("password="), "{config}");
        }
    }
}

/// The standard output and standard error of a process.
fn output(done: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&done.stdout), stderr(done))
}

/// The characters that must be percent-encoded in a password of a URL, and others.
const SPECIAL: &str = "/?#@:&;=[]%+\"'\\<>^`{|} \t";

/// A special character that is not encoded moves the rest of a password into the port, the path, the parameters or the
/// fragment.
fn no_part_of_a_secret_is_repeated() {
    let mut urls = Vec::new();
    for engine in ["postgres", "mysql", "sqlite", "postgress", "jdbc:mysql"] {
        for special in SPECIAL.chars() {
            for password in [
                format!("{special}canary"),
                format!("12{special}canary"),
                format!("12{special}canary=1"),
                format!("12{special}x=canary"),
                format!("canary{special}"),
                format!("x{special}canary{special}y"),
            ] {
                for host in ["db/app", "db:5432/app?sslmode=require", "/app?host=/socket", "[::1]/app"] {
                    urls.push(format!("{engine}://user:{password}@{host}"));
                }
                // Some of these are a host, a port and a database.
                if !password.starts_with("12") {
                    urls.push(format!("{engine}://user:{password}"));
                }
            }
        }
        for url in ["user:p@db/app#canary", "user:p@db/app?a=b#canary", "user:p@db/app?sslmode=canary"] {
            urls.push(format!("{engine}://{url}"));
        }
        for url in
            ["user:p@db/app?sslrootcert=canary", "user:p@db/app;password=canary", "user:p@db/app&password=canary"]
        {
            urls.push(format!("{engine}://{url}"));
        }
        for url in [
            "user@db/app?password=p&canary",
            "user@db/app?password=p&canary=1",
            "user@db/app?password=p&options[canary]=1&options[canary]=1",
            "user:p@db/app?canary",
            "user%3Acanary@db/app",
            "user:12/canary%40db/app",
        ] {
            urls.push(format!("{engine}://{url}"));
        }
        // Of SQLite, these are files.
        if engine != "sqlite" {
            urls.extend(["user/canary%40db/app", "user/canary%40db"].map(|url| format!("{engine}://{url}")));
        }
        urls.push(format!("{engine}://user:p@db:canary/app"));
        if engine != "sqlite" {
            urls.push(format!("{engine}:canary"));
        }
    }
    urls.extend(["canary", "//user:canary@db/app", "user:canary@db/app", "canary://db/app"].map(str::to_owned));
    for (number, url) in urls.iter().enumerate() {
        let message = match read(&[("DATABASE_URL", url)]) {
            Ok(config) => {
                format!("{config:?} {config}{} {:?}", config.database_url.address(), config.warnings)
            }
            Err(problems) => problems,
        };
        assert!(!message.contains("canary"), "{url}: {message}");
        if number % 97 == 0 {
            for name in ["DATABASE_URL", "DATABASE_URL_FILE"] {
                let message = output(&web(&["check"], &[(name, url), ("RUST_LOG", "trace")]));
                assert!(!message.contains("canary"), "{name}={url}: {message}");
            }
        }
    }
    // The output and the log of the real programs, for each way to end.
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = busy.local_addr().unwrap().port().to_string();
    for (name, value) in [
        ("DATABASE_URL", "postgres://user:canary@127.0.0.1:1/app"),
        ("DATABASE_URL", "mysql://user:canary@127.0.0.1:1/app"),
        ("DATABASE_URL", "postgres://user@127.0.0.1:1/app?password=canary"),
        ("DATABASE_URL", "postgres://user:12/canary@127.0.0.1:1/app"),
        ("DATABASE_URL_FILE", "postgres://user:canary@127.0.0.1:1/app"),
        ("DATABASE_URL_FILE", "user:canary@127.0.0.1:1/app"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1?key=canary"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://canary@127.0.0.1:1"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:1/v1/traces?key=canary"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:1/#canary"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1/canary"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:1/canary/v1/traces"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "canary"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20canary"),
        // A URL in the wrong variable.
        ("RELEASE_ID", "scheme://user:canary@127.0.0.1:1/app"),
        ("RUST_LOG", "scheme://user:canary@127.0.0.1:1/app"),
        ("LOG_FORMAT", "scheme://user:canary@127.0.0.1:1/app"),
        ("AUTO_SEED", "scheme://user:canary@127.0.0.1:1/app"),
        ("OTEL_TRACES_EXPORTER", "scheme://user:canary@127.0.0.1:1/app"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "authorization=Bearer%20canary,%canary"),
    ] {
        let url = if name.starts_with("DATABASE") { &[][..] } else { &[URL] };
        let environment =
            [&[(name, value), ("RUST_LOG", "trace"), ("HOST", "127.0.0.1"), ("PORT", &port)], url].concat();
        for done in [
            web(&["check"], &environment),
            web(&["healthcheck"], &[&environment[..], &[("PORT", "1")]].concat()),
            web(&[], &environment),
            web(&[], &[&environment[..], &[("AUTO_MIGRATE", "true")]].concat()),
            migrate_command(&["up"], &environment).output().unwrap(),
        ] {
            assert!(!output(&done).contains("canary"), "{name}={value}: {}", output(&done));
        }
    }
}

/// The same for the URL of the mail server.
fn no_part_of_the_login_of_mail_is_repeated() {
    for special in SPECIAL.chars() {
        for password in ["{}canary", "12{}canary", "12{}canary=1", "12{}x=canary", "canary{}", "x{}canary{}y"] {
            for rest in ["@mail.example.com", "@mail.example.com?tls=none", "@[::1]:25", ""] {
                let url = format!("smtp://user:{}{rest}", password.replace("{}", &special.to_string()));
                // What follows an @ is the host.
                if special == '@' && rest.is_empty() {
                    continue;
                }
                let vars = [URL, ("MAIL_FROM", "a@example.com"), ("SMTP_URL", &url)];
                let message = match read(&vars) {
                    Ok(config) => format!("{config:?} {config} {:?}", config.warnings),
                    Err(problems) => problems,
                };
                assert!(!message.contains("canary"), "{url}: {message}");
            }
        }
    }
}

fn an_unknown_parameter_is_refused_by_name() {
    for (url, reason) in [
        ("postgres://u:p@h/d?sslmod=verify-full", "unknown parameter sslmod; did you mean sslmode?"),
        ("mysql://u:p@h/d?sslmod=VERIFY_IDENTITY", "unknown parameter sslmod; did you mean ssl-mode?"),
        ("postgres://u:p@h/d?sslrootcrt=/a", "did you mean sslrootcert?"),
        ("mysql://u:p@h/d?sslcca=/a", "did you mean ssl-ca?"),
        ("postgres://u:p@h/d?application_nam=x", "did you mean application_name?"),
        ("postgres://u:p@h/d?foo=x", "unknown parameter foo; expected one of sslmode, sslrootcert"),
        ("postgres://u:p@h/d?options[search_path=x", "unknown parameter options[search_path"),
        ("mysql://u:p@h/d?foo=x", "unknown parameter foo; expected one of ssl-mode, ssl-ca"),
        ("sqlite:a.db?mod=rwc", "unknown parameter mod; did you mean mode?"),
        ("sqlite:a.db?foo=x", "unknown parameter foo; expected one of mode, cache"),
        ("postgres://u:p@h/d?sslmode=require&sslmode=disable", "sslmode: it is given twice"),
        ("postgres://u:p@h/d?sslmode=require&ssl-mode=disable", "ssl-mode: it is given twice"),
        ("mysql://u:p@h/d?ssl-ca=/a&sslca=/b", "sslca: it is given twice"),
        ("postgres://u:p@h/d?dbname=e", "dbname: it is given twice"),
        ("postgres://u:p@h/d?password=q", "password: it is given twice"),
        ("postgres://u:p@h:1/d?port=2", "port: it is given twice"),
        ("sqlite:a.db?mode=ro&mode=rwc", "mode: it is given twice"),
        ("postgres://u:p@h/d?foo=1&sslmod=2", "unknown parameter sslmod"),
        // Parameters after the path without a ? would have no effect.
        ("postgres://u:p@h/d&sslmode=verify-full", "must be percent-encoded"),
        ("mysql://u:p@h/d;ssl-mode=VERIFY_IDENTITY", "must be percent-encoded"),
        ("postgres://u:p@h/d#?sslmode=verify-full", "must be percent-encoded"),
        ("postgres://u:p@h/d?sslmode=disable?sslmode=verify-full", "sslmode: unknown value"),
        ("postgres://u:p@h/d?application_name=x&amp;sslmode=verify-full", "unknown parameter"),
    ] {
        let done = web(&["check"], &[("DATABASE_URL", url)]);
        assert_eq!(code(&done), 78, "{url}");
        assert!(stderr(&done).contains(reason), "{url}: {}", stderr(&done));
    }
}

fn parameters_of_postgres_hosts_are_applied_or_refused() {
    for query in [
        "channel_binding=prefer",
        "target_session_attrs=any",
        "pgbouncer=true",
        "pgbouncer=false",
        "schema=public",
        "ssl-mode=require",
        "sslmode=VERIFY_IDENTITY",
        "sslMode=verify-full",
        "sslrootcert=system",
        "sslmode=verify-full&sslrootcert=system",
        "application_name=x",
        "options=-c%20search_path%3Dx",
        "options[search_path]=x",
        "statement-cache-capacity=0",
        "statement_cache_capacity=10",
        "client_encoding=UTF8",
        "timezone=UTC",
        "sslnegotiation=postgres",
        "hostaddr=127.0.0.1",
    ] {
        let url = format!("postgres://u:p@h/d?{query}");
        assert!(read(&[("DATABASE_URL", &url)]).is_ok(), "{:?}", read(&[("DATABASE_URL", &url)]));
    }
    let message = read(&[("DATABASE_URL", "postgres://u:p@h/d"), ("PGSSLMODE", "verify-ful")]).unwrap_err();
    assert!(message.contains("PGSSLMODE: unknown value; did you mean verify-full?"), "{message}");
    for (query, advice) in [
        ("channel_binding=require", "sslmode=verify-full"),
        ("target_session_attrs=read-write", "name the primary as the host"),
        ("pgbouncer=maybe", "expected true or false"),
        ("sslaccept=strict", "sslmode=verify-full"),
        ("sslmode=allow", "use prefer"),
        ("ssl=true", "sslmode=verify-full"),
        ("tls=true", "sslmode=verify-full"),
        ("schema=app", "options[search_path]"),
        ("connection_limit=5", "DATABASE_MAX_CONNECTIONS"),
        ("pool_max_conns=5", "DATABASE_MAX_CONNECTIONS"),
        ("connect_timeout=5", "DATABASE_ACQUIRE_TIMEOUT_MS"),
        ("pool_timeout=5", "DATABASE_ACQUIRE_TIMEOUT_MS"),
        ("statement_timeout=5", "DATABASE_QUERY_TIMEOUT_MS"),
        ("socket_timeout=5", "DATABASE_QUERY_TIMEOUT_MS"),
        ("prepareThreshold=0", "statement-cache-capacity=0"),
        ("sslmode=require&sslrootcert=system", "sslmode=verify-full"),
        ("client_encoding=LATIN1", "UTF-8"),
        ("gssencmode=require", "sslmode=verify-full"),
        ("sslpassword=x", "openssl pkey"),
        ("unix_socket=/tmp", "host=/"),
        ("keepalives=1", "not supported"),
        ("hostaddr=db", "expected an IP address"),
        ("host=a,b", "expected one host"),
        ("host=", "expected one host"),
        ("host=>canary", "expected one host"),
    ] {
        let message = read(&[("DATABASE_URL", &format!("postgres://u:p@h/d?{query}"))]).unwrap_err();
        let name = query.split(['=', '&']).next().unwrap();
        assert!(!message.contains("canary"), "{message}");
        assert!(message.contains(name) && message.contains(advice), "{query}: {message}");
    }
}

/// The driver reads them by itself, without an error for a value that has no effect.
fn variables_of_libpq_are_checked_as_parameters() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file.pem");
    fs::write(&file, "-----BEGIN CERTIFICATE-----").unwrap();
    let (file, missing) = (file.to_str().unwrap(), folder.path().join("missing.pem"));
    let missing = missing.to_str().unwrap();
    let check = |variables: &[(&str, &str)]| {
        web(&["check"], &[&[("DATABASE_URL", "postgres://u:p@db.example/d")], variables].concat())
    };
    for (variables, shown) in [
        (&[("PGSSLROOTCERT", file)][..], "encrypted, server certificate verified, host name not verified"),
        (
            &[("PGSSLROOTCERT", file), ("PGSSLMODE", "verify-full")],
            "encrypted, server certificate and host name verified",
        ),
        (&[("PGSSLMODE", "require")], "encrypted, server not verified"),
    ] {
        let done = check(variables);
        assert_eq!(code(&done), 0, "{variables:?}: {}", stderr(&done));
        assert!(output(&done).contains(shown), "{variables:?}: {}", output(&done));
    }
    for (variables, reason) in [
        (&[("PGSSLMODE", "allow")][..], "PGSSLMODE: allow is not supported; use prefer"),
        (&[("PGSSLMODE", "VERIFY_CA")], "PGSSLMODE: use a name of libpq"),
        (&[("PGSSLROOTCERT", missing)], "PGSSLROOTCERT: the file that it names cannot be read"),
        (&[("PGSSLROOTCERT", "system")], "PGSSLROOTCERT: system is supported in DATABASE_URL only"),
        (&[("PGSSLCERT", missing)], "PGSSLCERT: the file that it names cannot be read"),
        (&[("PGSSLKEY", file)], "PGSSLKEY: the file that it names has no `PRIVATE KEY-----`"),
        (&[("PGSSLROOTCERT", file), ("PGSSLMODE", "disable")], "has no effect with this sslmode"),
    ] {
        let done = check(variables);
        assert_eq!(code(&done), 78, "{variables:?}: {}", output(&done));
        assert!(stderr(&done).contains(reason), "{variables:?}: {}", stderr(&done));
    }
}

fn parameters_of_mysql_hosts_are_applied_or_refused() {
    for query in [
        "sslmode=verify-full",
        "ssl-mode=required",
        "ssl_mode=VERIFY_CA",
        "charset=utf8mb4",
        "collation=utf8mb4_bin",
        "timezone=%2B00:00",
        "time-zone=UTC",
        "ssl-ca=system",
        "unix_socket=/run/mysqld/mysqld.sock",
    ] {
        let url = format!("mysql://u:p@h/d?{query}");
        assert!(read(&[("DATABASE_URL", &url)]).is_ok(), "{:?}", read(&[("DATABASE_URL", &url)]));
    }
    for (query, advice) in [
        ("charset=latin1", "always utf8mb4"),
        ("charset=utf8", "always utf8mb4"),
        ("characterEncoding=UTF-8", "always utf8mb4"),
        ("collation=latin1_bin", "utf8mb4_bin"),
        ("timezone=Europe/Rome", "times are always UTC:"),
        ("serverTimezone=Europe/Rome", "times are always UTC:"),
        ("loc=Local", "times are always UTC:"),
        ("tls=true", "ssl-mode=VERIFY_IDENTITY"),
        ("tls=skip-verify", "ssl-mode=REQUIRED"),
        ("useSSL=true", "ssl-mode=VERIFY_IDENTITY"),
        ("sslaccept=strict", "ssl-mode=VERIFY_IDENTITY"),
        ("connection_limit=5", "DATABASE_MAX_CONNECTIONS"),
        ("connectTimeout=5", "DATABASE_ACQUIRE_TIMEOUT_MS"),
        ("user=u", "write it into the URL"),
        ("password=canary", "write it into the URL"),
        ("host=/tmp", "socket=/"),
        ("socket=mysqld.sock", "begins with /"),
        ("parseTime=true", "not supported"),
        ("pgbouncer=true", "PostgreSQL"),
    ] {
        let message = read(&[("DATABASE_URL", &format!("mysql://u:p@h/d?{query}"))]).unwrap_err();
        let name = query.split('=').next().unwrap();
        assert!(
            message.contains(name) && message.contains(advice) && !message.contains("canary"),
            "{query}: {message}"
        );
    }
}

fn a_file_of_a_url_is_checked_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file.pem");
    let shown = file.display();
    for (query, text, reason) in [
        (format!("sslmode=disable&sslrootcert={shown}"), "-----BEGIN CERTIFICATE-----", "has no effect"),
        (format!("sslmode=verify-ca&sslrootcert={shown}"), "0\u{82}", "has no `-----BEGIN CERTIFICATE-----`"),
        (format!("sslcert={shown}"), "-----BEGIN CERTIFICATE-----", "sslcert needs sslkey"),
        (format!("sslkey={shown}"), "-----BEGIN ENCRYPTED PRIVATE KEY-----", "is encrypted"),
        (format!("sslrootcert={}", folder.path().display()), "", "cannot be read"),
        ("sslrootcert=".to_owned(), "", "expected the path of a file"),
    ] {
        fs::write(&file, text).unwrap();
        for scheme in SCHEMES {
            let message = read(&[("DATABASE_URL", &format!("{scheme}://u:p@h/d?{query}"))]).unwrap_err();
            assert!(message.replace("ssl-", "ssl").contains(reason), "{scheme} {query}: {message}");
        }
    }
}

fn the_protection_of_the_connection_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    fs::write(&file, "-----BEGIN CERTIFICATE-----\n").unwrap();
    let file = file.display();
    let (verified, some) = ("encrypted, server certificate and host name verified", "host name not verified");
    let (plain, maybe) = ("not encrypted, server not verified", "encrypted only if the server supports TLS");
    for (url, shown) in [
        ("postgres://u:p@h/d?sslmode=verify-full".to_owned(), verified),
        ("mysql://u:p@h/d?ssl-mode=VERIFY_IDENTITY".to_owned(), verified),
        ("postgres://u:p@h/d?sslrootcert=system".to_owned(), verified),
        ("postgres://u:p@h/d?sslmode=verify-ca".to_owned(), some),
        // As in libpq and MySQL's client, an authority enables verification.
        (format!("postgres://u:p@h/d?sslmode=require&sslrootcert={file}"), some),
        (format!("mysql://u:p@h/d?ssl-ca={file}"), some),
        ("postgres://u:p@h/d?sslmode=require".to_owned(), "(encrypted, server not verified)"),
        ("postgres://u:p@h/d".to_owned(), maybe),
        ("mysql://u:p@h/d".to_owned(), maybe),
        ("postgres://u:p@h/d?sslmode=disable".to_owned(), plain),
        ("mysql://u:p@h/d?ssl-mode=DISABLED".to_owned(), plain),
        ("postgres://u:p@/d?host=/run&sslmode=require".to_owned(), "a Unix socket"),
        ("mysql://u:p@/d?socket=/run/sock".to_owned(), "a Unix socket"),
    ] {
        let done = web(&["check"], &[("DATABASE_URL", &url)]);
        let printed = String::from_utf8_lossy(&done.stdout).into_owned();
        let line = printed.lines().find(|line| line.starts_with("DATABASE_URL=")).unwrap();
        assert!(line.contains(shown), "{url}: {line}");
    }
}

fn plain_text_to_another_machine_is_logged_once() {
    // `web` ends before it would connect, because its port is in use.
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = busy.local_addr().unwrap().port().to_string();
    let warned = |url: &str| {
        let done = web(&[], &[("DATABASE_URL", url), ("HOST", "127.0.0.1"), ("PORT", &port)]);
        assert_eq!(code(&done), 1, "{}", output(&done));
        let log = String::from_utf8(done.stdout).unwrap();
        log.matches("is not encrypted").count()
    };
    for url in [
        "postgres://u:p@db.example/d",
        "postgres://u:p@db.example/d?sslmode=disable",
        "mysql://u:p@192.0.2.1/d",
        "mysql://u:p@[2001:db8::1]/d?ssl-mode=DISABLED",
        "postgres://u:p@localhost/d?host=db.example",
    ] {
        assert_eq!(warned(url), 1, "{url}");
    }
    for url in [
        "sqlite:a.db",
        "postgres://u:p@localhost/d",
        "postgres://u:p@127.0.0.2/d?sslmode=disable",
        "mysql://u:p@[::1]/d",
        "mysql://u:p@[::ffff:127.0.0.1]/d",
        "postgres://u:p@db.example/d?host=/run/postgresql",
        "mysql://u:p@db.example/d?socket=/run/sock",
        "postgres://u:p@db.example/d?sslmode=require",
        "mysql://u:p@db.example/d?ssl-mode=VERIFY_CA",
    ] {
        assert_eq!(warned(url), 0, "{url}");
    }
}

fn text_around_a_url_is_rejected_by_name() {
    for (url, reason) in [
        ("\"postgres://u:canary@h/d\"", "quotation mark"),
        ("'mysql://u:canary@h/d'", "quotation mark"),
        ("mysql://u:canary@h/d\"", "quotation mark"),
        ("\u{201c}postgres://u:canary@h/d\u{201d}", "quotation mark"),
        ("`postgres://u:canary@h/d`", "quotation mark"),
        (" postgres://u:canary@h/d", "begins or ends with a blank"),
        ("sqlite:canary.db ", "begins or ends with a blank"),
        ("\"sqlite:canary.db\"", "quotation mark"),
        ("mysql://u:canary@h/d\n", "begins or ends with a blank"),
        ("postgres://u:canary@h/d\u{a0}", "begins or ends with a blank"),
        ("\u{feff}postgres://u:canary@h/d", "byte order mark (U+FEFF)"),
        ("postgres://u:ca\nnary@h/d", "line break"),
        ("mysql://u:ca\tnary@h/d", "a tab"),
        ("DATABASE_URL=postgres://u:canary@h/d", "the name of a variable"),
        ("export DATABASE_URL=postgres://u:canary@h/d", "the name of a variable"),
        ("postgres://u:canary%00@h/d", "%00"),
    ] {
        let message = read(&[("DATABASE_URL", url)]).unwrap_err();
        assert!(
            message.contains("DATABASE_URL: ") && message.contains(reason) && !message.contains("canary"),
            "{url:?}: {message}"
        );
    }
}

fn a_wrong_scheme_is_rejected_with_the_right_one() {
    for (url, advice) in [
        ("postgress://u:canary@h/d", "did you mean postgres://?"),
        ("mysq://u:canary@h/d", "did you mean mysql://?"),
        ("mysql2://u:canary@h/d", "did you mean mysql://?"),
        ("sqlite3://a.db", "did you mean sqlite://?"),
        ("postgresql+asyncpg://u:canary@h/d", "remove the driver's name"),
        ("jdbc:postgresql://h/d?user=u&password=canary", "remove jdbc:"),
        ("sqlite://u:canary@h/d", "an SQLite URL has no user"),
        ("mysql://u:canary@%2Fvar%2Frun/d", "socket=/PATH"),
    ] {
        let message = read(&[("DATABASE_URL", url)]).unwrap_err();
        assert!(message.contains(advice) && !message.contains("canary"), "{url}: {message}");
    }
}

/// Forwards connections to a socket.
fn forward_to_socket(listener: TcpListener, socket: PathBuf) {
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = UnixStream::connect(&socket).unwrap();
            let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut from, &mut to).and(to.shutdown(std::net::Shutdown::Both)));
            let (mut from, mut to) = (server, client);
            thread::spawn(move || std::io::copy(&mut from, &mut to).and(to.shutdown(std::net::Shutdown::Both)));
        }
    });
}

fn a_url_may_name_a_socket_or_an_ipv6_address(database: &Database) {
    let server = Server::start(database.engine);
    server.admin().execute("CREATE DATABASE app");
    let listener = TcpListener::bind("[::1]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    forward_to_socket(listener, server.socket());
    let socket = server.socket();
    let urls = match database.engine.family() {
        Family::Sqlite => unreachable!("it has no server"),
        Family::MySql => {
            let socket = socket.display();
            [
                format!("mysql://root@[::1]:{port}/app"),
                format!("MySQL://root@/app?socket={socket}"),
                format!("mysql://root@localhost/app?unix_socket={socket}"),
                format!("mariadb://root@:1/app?socket={socket}"),
            ]
        }
        Family::Postgres => {
            let folder = socket.parent().unwrap().display().to_string();
            [
                format!("POSTGRES://postgres@[::1]:{port}/app?sslmode=disable"),
                format!("postgres://postgres@/app?host={folder}&sslmode=require"),
                format!("postgresql:///app?host={folder}&user=postgres"),
                format!("postgres://postgres@{}/app", folder.replace('/', "%2F")),
            ]
        }
    };
    for url in urls {
        let done = migrate_command(&["up"], &[("DATABASE_URL", &url)]).output().unwrap();
        assert_eq!(code(&done), 0, "{url}: {}", stderr(&done));
    }
}

const DAY: &str = "86400000";

fn every_component_takes_the_largest_numbers(database: &Database) {
    seed(&database.url);
    // Hundreds of threads are tested on one engine only.
    let workers = if database.engine == Engine::Sqlite { "512" } else { "2" };
    let web = Web::start(
        database,
        &[
            ("DATABASE_MAX_CONNECTIONS", "65535"),
            ("DATABASE_ACQUIRE_TIMEOUT_MS", DAY),
            ("DATABASE_QUERY_TIMEOUT_MS", DAY),
            ("WEB_CONCURRENCY", workers),
            ("MAX_IN_FLIGHT", "65535"),
            ("REQUEST_TIMEOUT_MS", DAY),
            ("KEEP_ALIVE_MS", DAY),
            ("DRAIN_DELAY_MS", DAY),
            ("SHUTDOWN_TIMEOUT_MS", DAY),
            ("AUTO_SEED", "100000000"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", DAY),
            ("OTEL_BSP_SCHEDULE_DELAY", DAY),
            ("OTEL_BSP_EXPORT_TIMEOUT", DAY),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "1000000"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1000000"),
        ],
    );
    for _ in 0..4 {
        assert_eq!(web.get(LISTING).status, 200);
        assert_eq!(web.get("/readyz").status, 200);
    }
    assert!(!web.log().contains("panicked"), "{}", web.log());
}

fn a_number_out_of_range_is_refused_with_the_range() {
    for (name, least, most) in [
        ("DATABASE_MAX_CONNECTIONS", 1, 65_535),
        ("DATABASE_ACQUIRE_TIMEOUT_MS", 1, 86_400_000),
        ("DATABASE_QUERY_TIMEOUT_MS", 1, 86_400_000),
        ("PORT", 0, 65_535),
        ("WEB_CONCURRENCY", 1, 512),
        ("MAX_IN_FLIGHT", 1, 65_535),
        ("REQUEST_TIMEOUT_MS", 1, 86_400_000),
        ("KEEP_ALIVE_MS", 1, 86_400_000),
        ("DRAIN_DELAY_MS", 0, 86_400_000),
        ("SHUTDOWN_TIMEOUT_MS", 1, 86_400_000),
        ("AUTO_SEED", 0, 100_000_000_u64),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", 1, 86_400_000),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", 1, 86_400_000),
        ("OTEL_BSP_MAX_QUEUE_SIZE", 1, 1_000_000),
    ] {
        let with = |value: &str| read(&[URL, (name, value)]);
        for good in [least, most] {
            assert!(with(&good.to_string()).is_ok(), "{name}={good}");
        }
        let above = (most + 1).to_string();
        for bad in [&*above, "-1", "1.5", "2s", " 1", "0x10", "18446744073709551616", "\u{661}"] {
            let message = with(bad).unwrap_err();
            let expected = format!("{name}: expected an integer from {least} to {most}, got {bad:?}");
            assert!(message.contains(&expected), "{message}");
        }
        if least > 0 {
            assert!(with("0").is_err(), "{name}");
        }
    }
}

/// The accepted values and the given one, and the most similar name.
fn a_wrong_value_is_shown_with_the_accepted_ones() {
    const HOST: &str =
        "expected an IP address, such as :: or 0.0.0.0 for every address, or a name, such as localhost, got ";
    const ID: &str = "expected an id without control characters, and without blanks around it, got ";
    const MAIL: &str = "expected an address such as roster@example.com or Roster <roster@example.com>, got ";
    const SCHEDULE: &str =
        "expected a cron expression in UTC of minute, hour, day, month and weekday, such as 17 * * * *, got ";
    const SAMPLER: &str = "expected one of always_on, always_off, traceidratio, parentbased_always_on, \
                           parentbased_always_off, parentbased_traceidratio, got ";
    for (name, value, expected) in [
        ("PORT", "abc", "expected an integer from 0 to 65535, got \"abc\""),
        ("PORT", "-1", "expected an integer from 0 to 65535, got \"-1\""),
        ("PORT", "70000", "expected an integer from 0 to 65535, got \"70000\""),
        ("PORT", "80.5", "expected an integer from 0 to 65535, got \"80.5\""),
        ("PORT", " ", "expected an integer from 0 to 65535, got \" \""),
        ("PORT", "5_000", "expected an integer from 0 to 65535, got \"5_000\""),
        ("HOST", "every where", &format!("{HOST}\"every where\"")),
        ("HOST", "1.2.3", &format!("{HOST}\"1.2.3\"")),
        ("HOST", "1.2.3.256", &format!("{HOST}\"1.2.3.256\"")),
        ("HOST", "::x", &format!("{HOST}\"::x\"")),
        ("HOST", "[::1", &format!("{HOST}\"[::1\"")),
        ("HOST", "-a", &format!("{HOST}\"-a\"")),
        ("HOST", "*", &format!("{HOST}\"*\"")),
        ("HOST", " localhost", &format!("{HOST}\" localhost\"")),
        ("HOST", "localhost:80", &format!("{HOST}\"localhost:80\"; set PORT to the port")),
        ("HOST", "http://localhost", &format!("{HOST}a URL")),
        ("REUSE_PORT", "1", "expected true or false, got \"1\""),
        ("AUTO_MIGRATE", "yes", "expected true or false, got \"yes\""),
        ("AUTO_MIGRATE", "ture", "expected true or false, got \"ture\"; did you mean true?"),
        ("AUTO_MIGRATE", "true ", "expected true or false, got \"true \"; did you mean true?"),
        ("OTEL_SDK_DISABLED", "1", "expected true or false, got \"1\""),
        ("LOG_FORMAT", "xml", "expected json or text, got \"xml\""),
        ("LOG_FORMAT", "jsno", "expected json or text, got \"jsno\"; did you mean json?"),
        ("LOG_FORMAT", "\n", "expected json or text, got \"\\n\""),
        ("API_TOKENS_REQUIRED", "write", "expected writes or all, got \"write\"; did you mean writes?"),
        ("OTEL_TRACES_EXPORTER", "otpl", "expected otlp or none, got \"otpl\"; did you mean otlp?"),
        ("OTEL_TRACES_SAMPLER", "alwayson", &format!("{SAMPLER}\"alwayson\"; did you mean always_on?")),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5", "expected a number from 0 to 1, got \"1.5\""),
        ("OTEL_TRACES_SAMPLER_ARG", "NaN", "expected a number from 0 to 1, got \"NaN\""),
        ("RELEASE_ID", " 1", &format!("{ID}\" 1\"")),
        ("RELEASE_ID", "1\n2", &format!("{ID}\"1\\n2\"")),
        ("MAIL_FROM", "nobody", &format!("{MAIL}\"nobody\"")),
        ("CLEANUP_SCHEDULE", "hourly", &format!("{SCHEDULE}\"hourly\"; did you mean @hourly?")),
        ("CLEANUP_SCHEDULE", "60 * * * *", &format!("{SCHEDULE}\"60 * * * *\"")),
        ("CLEANUP_SCHEDULE", "0 0 30 2 *", &format!("{SCHEDULE}\"0 0 30 2 *\", which has no times")),
    ] {
        let message = read(&[URL, (name, value)]).unwrap_err();
        assert_eq!(message, format!("the configuration is not valid:\n  {name}: {expected}"));
    }
    // In any case.
    let config = read(&[
        URL,
        ("LOG_FORMAT", "TEXT"),
        ("API_TOKENS_REQUIRED", "All"),
        ("AUTO_MIGRATE", "True"),
        ("OTEL_TRACES_EXPORTER", "OTLP"),
    ]);
    assert_eq!(config.unwrap().log_format, LogFormat::Text);
}

/// Every variable with every kind of wrong value: the error has its name, and no words of a parser or of a type in Rust.
fn no_error_has_the_words_of_a_library() {
    let long = "9".repeat(400);
    for Variable { name, .. } in Config::VARIABLES {
        let values = [
            " ",
            "\t",
            "abc",
            "-1",
            "1.5",
            "1e3",
            "0x10",
            "99999999999999999999",
            &long,
            "maybe",
            "a b",
            "a,b",
            "=",
            ":",
            "/",
            "://",
            "http://",
            "smtp://",
            "smtp://h:x",
            "smtp://h:70000",
            "smtp://[::x]",
            "smtp:// ",
            "http://[::x]:4318",
            "postgres://h:x/d",
            "mysql://[::x]/d",
            "sqlite:",
            "* * *",
            "61 * * * *",
            "* * * * * * * *",
            "a@",
            "@",
            "a@b c",
            "<a@b>>",
            "\u{feff}",
            "\u{fffd}",
            "\u{0}",
        ];
        for value in values {
            let vars = if *name == URL.0 { vec![(*name, value)] } else { vec![URL, (*name, value)] };
            let Err(message) = read(&vars) else { continue };
            let problem = message.strip_prefix("the configuration is not valid:\n  ").unwrap();
            assert!(
                problem.starts_with(&format!("{name}: ")) || problem.contains("MAIL_FROM: required"),
                "{name}={value}: {message}"
            );
            for words in [
                "u16",
                "u32",
                "u64",
                "target type",
                "nonzero",
                "invalid digit",
                "invalid IP",
                "relative URL",
                "empty string",
                "invalid value",
                "invalid type",
                "missing field",
                "InvalidDigit",
                "Error",
                "ParseError",
                "expected a map",
            ] {
                assert!(!problem.contains(words), "{name}={value:?}: {message}");
            }
        }
    }
}

fn help_lists_the_variables_and_the_exit_codes() {
    for (name, program) in PROGRAMS {
        let done = Command::new(program).arg("--help").env_clear().output().unwrap();
        assert_eq!(code(&done), 0);
        let help = String::from_utf8(done.stdout).unwrap();
        let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for Variable { name: variable, default, meaning } in Config::VARIABLES {
            let default = if *default == "–" { String::new() } else { format!(" [{default}]") };
            let entry = format!(" {variable}{default} {meaning}").replace('`', "");
            assert!(words.contains(&entry), "{name}: {entry}: {help}");
        }
        for code in ["0", "1", "2", "78", "130", "141", "143"] {
            assert!(help.contains(&format!("\n  {code:<4} ")), "{name}: {code}: {help}");
        }
        let mut lines = help.lines().skip_while(|line| !line.starts_with("Environment variables"));
        assert!(lines.all(|line| line.chars().count() <= 100), "{help}");
        let short = Command::new(program).arg("-h").env_clear().output().unwrap();
        assert!(short.stdout.len() < 1000, "{name}: the summary is short");
    }
}

fn a_name_is_an_address_to_bind() {
    for (host, shown) in [("localhost", "localhost"), ("db_1.example", "db_1.example"), ("[::1]", "::1")] {
        let config = read(&[URL, ("HOST", host)]).unwrap();
        assert_eq!(config.host.to_string(), shown);
    }
    let config = read(&[URL, ("HOST", "localhost")]).unwrap();
    assert!(config.host.addresses().unwrap().iter().all(IpAddr::is_loopback));
    let web = Web::start_at(URL.1, &[("HOST", "localhost")]);
    let port = web.port.to_string();
    let check = ["healthcheck", "--live"];
    let done = process::web(&check, &[URL, ("HOST", "localhost"), ("PORT", &port)]);
    assert_eq!(code(&done), 0, "{}", stderr(&done));
}

fn a_log_filter_without_effect_is_refused() {
    let with = |filter: &str| read(&[URL, ("RUST_LOG", filter)]);
    for (filter, expected) in [
        ("warning", "\"warning\" is not a level; did you mean warn?"),
        ("WARNING", "did you mean warn?"),
        ("trac", "\"trac\" is not a level; did you mean trace?"),
        ("inof", "did you mean info?"),
        ("err", "did you mean error?"),
        ("verbose", "\"verbose\" is not a level; expected one of off, error, warn, info, debug, trace"),
        ("6", "\"6\" is not a level"),
        ("info,roster=warning", "did you mean roster=warn?"),
        ("roster=loud", "\"loud\" is not a level"),
        ("roster=", "\"\" is not a level"),
        ("rosterr=debug", "no log line has the target \"rosterr\"; did you mean roster?"),
        ("info,slqx=debug", "did you mean sqlx?"),
        ("info;roster=debug", "is not a target"),
        ("[span]=debug", "is not a target"),
        (",", "expected a level or target=level"),
    ] {
        let message = with(filter).unwrap_err();
        assert!(message.contains("RUST_LOG: ") && message.contains(expected), "{filter}: {message}");
    }
    for filter in
        ["info", "WARN", "off", "3", "info,", "info, roster=debug", "roster", "roster::http=trace", "sqlx=debug"]
    {
        assert_eq!(with(filter).unwrap().warnings, [""; 0], "{filter}");
    }
    assert_eq!(with("info, roster=debug").unwrap().rust_log, "info,roster=debug");
    // A filter may be shared with other programs.
    assert_eq!(with("info,other=debug").unwrap().warnings, ["RUST_LOG: no log line has the target other"]);
}

fn a_similar_name_is_reported() {
    for (name, likely) in [
        ("DATABASE_MAX_CONNECTION", "DATABASE_MAX_CONNECTIONS"),
        ("LOGFORMAT", "LOG_FORMAT"),
        ("log_format", "LOG_FORMAT"),
        ("RUST_LOGS", "RUST_LOG"),
        ("KEEPALIVE_MS", "KEEP_ALIVE_MS"),
        ("REQUEST_TIMEOUT", "REQUEST_TIMEOUT_MS"),
        ("OTEL_EXPORTER_OTLP_ENDPOINTS", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ("OTEL_TRACE_SAMPLER", "OTEL_TRACES_SAMPLER"),
    ] {
        let config = read(&[URL, (name, "canary")]).unwrap();
        assert_eq!(config.warnings, [format!("{name} is not read; did you mean {likely}?")]);
        let done = web(&["check"], &[URL, (name, "canary")]);
        assert_eq!(code(&done), 0);
        assert!(stderr(&done).contains(likely) && !output(&done).contains("canary"), "{}", output(&done));
    }
    // Platforms set variables of their own, and Kubernetes those of its services.
    for name in [
        "DATABASE_URL_POOLED",
        "DATABASE_HOST",
        "PORT_5000_TCP",
        "ROSTER_PORT",
        "ROSTER_SERVICE_PORT_HTTP",
        "HOSTNAME",
        "port",
        "host",
        "PATH",
        "RUST_BACKTRACE",
        "OTEL_NODE_IP",
    ] {
        assert_eq!(read(&[URL, (name, "x")]).unwrap().warnings, [""; 0], "{name}");
    }
    // If the known variable is set as well, there is no warning.
    assert_eq!(read(&[URL, ("DATABASE_URI", "x")]).unwrap().warnings, [""; 0]);
    let message = read(&[("DATABASE_URI", "canary.db")]).unwrap_err();
    assert!(message.contains("DATABASE_URL: required; DATABASE_URI is set: rename it to DATABASE_URL"), "{message}");
    assert!(!message.contains("canary"), "{message}");
    // `web` writes the warning to its log.
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = busy.local_addr().unwrap().port().to_string();
    let done = web(&[], &[URL, ("LOGFORMAT", "text"), ("HOST", "127.0.0.1"), ("PORT", &port)]);
    let log = String::from_utf8(done.stdout).unwrap();
    assert_eq!(log.matches("\"level\":\"WARN\"").count(), 1, "{log}");
    assert!(log.contains("LOGFORMAT is not read; did you mean LOG_FORMAT?"), "{log}");
}

fn opentelemetry_variables_are_honoured_or_refused() {
    let with = |name: &str, value: &str| read(&[URL, (name, value)]);
    for (name, value, expected) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "only http/protobuf is supported"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", "only http/protobuf is supported"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip", "compression is not supported"),
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "zstd", "compression is not supported"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem", "only public certificate authorities"),
        ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "/key.pem", "only public certificate authorities"),
        ("OTEL_TRACES_EXPORTER", "console", "expected otlp or none"),
        ("OTEL_TRACES_EXPORTER", "otlp,console", "expected otlp or none"),
        ("OTEL_METRICS_EXPORTER", "otlp", "/metrics"),
        ("OTEL_LOGS_EXPORTER", "otlp", "standard output"),
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://h:4318", "/metrics"),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://h:4318", "standard output"),
        ("OTEL_TRACES_SAMPLER", "allways_on", "did you mean always_on?"),
        ("OTEL_TRACES_SAMPLER", "xray", "expected one of always_on"),
        ("OTEL_TRACES_SAMPLER", "parentbased_jaeger_remote", "expected one of always_on"),
        ("OTEL_TRACES_SAMPLER_ARG", "2", "expected a number from 0 to 1"),
        ("OTEL_PROPAGATORS", "b3", "only tracecontext"),
        ("OTEL_PROPAGATORS", "baggage", "only tracecontext"),
        ("OTEL_BSP_SCHEDULE_DELAY", "soon", "expected an integer from 1 to 86400000"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "-1", "expected an integer from 0 to 1000000"),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "10", "this limit is not supported"),
        ("OTEL_CONFIG_FILE", "/otel.yaml", "not supported"),
        ("OTEL_LOG_LEVEL", "debug", "RUST_LOG"),
        ("OTEL_RESOURCE_ATTRIBUTES", "team", "number 1 of its pairs is not name=value"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=b,c d=e", "number 2 of its pairs is not name=value"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=100%", "a percent sign as %25"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "expected a URL such as http://host:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://", "expected a URL such as http://host:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", " http://h", "expected a URL such as http://host:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:4318?key=canary", "OTEL_EXPORTER_OTLP_HEADERS"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://u:canary@h:4318", "OTEL_EXPORTER_OTLP_HEADERS"),
    ] {
        let message = with(name, value).unwrap_err();
        assert!(message.contains(&format!("{name}: ")) && message.contains(expected), "{name}={value}: {message}");
        assert!(!message.contains("canary"), "{message}");
    }
    let message = with("OTEL_TRACES_SAMPLER", "traceidratio").unwrap_err();
    assert!(message.contains("OTEL_TRACES_SAMPLER_ARG: required"), "{message}");
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
        ("OTEL_EXPORTER_OTLP_INSECURE", "true"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x,x-tenant=1"),
        ("OTEL_TRACES_SAMPLER", "parentbased_always_off"),
        ("OTEL_PROPAGATORS", "tracecontext,baggage"),
        ("OTEL_METRICS_EXPORTER", "none"),
        ("OTEL_LOGS_EXPORTER", "none"),
        ("OTEL_SERVICE_NAME", "songs"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.namespace=x,k8s.pod.name=y"),
    ] {
        assert_eq!(with(name, value).unwrap().warnings, [""; 0], "{name}={value}");
    }
    let unused = with("OTEL_METRIC_EXPORT_INTERVAL", "1000").unwrap();
    assert_eq!(unused.warnings, ["OTEL_METRIC_EXPORT_INTERVAL has no effect: only traces are sent"]);
    // If tracing is disabled, the variables are not checked.
    let disabled = read(&[URL, ("OTEL_SDK_DISABLED", "true"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]);
    assert!(disabled.is_ok(), "{disabled:?}");
}

fn traces_are_sent_where_the_standard_says() {
    const BASE: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:4318/");
    const WHOLE: (&str, &str) = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://t/custom");
    let endpoint = |vars: &[(&str, &str)]| {
        let vars: Vec<_> = [URL].into_iter().chain(vars.iter().copied()).collect();
        read(&vars).unwrap().traces_endpoint()
    };
    assert_eq!(endpoint(&[]), None);
    assert_eq!(endpoint(&[BASE]).as_deref(), Some("http://h:4318/v1/traces"));
    assert_eq!(endpoint(&[WHOLE]).as_deref(), Some("https://t/custom"));
    assert_eq!(endpoint(&[BASE, WHOLE]).as_deref(), Some("https://t/custom"));
    assert_eq!(endpoint(&[("OTEL_TRACES_EXPORTER", "otlp")]).as_deref(), Some("http://localhost:4318/v1/traces"));
    assert_eq!(endpoint(&[BASE, ("OTEL_TRACES_EXPORTER", "otlp")]).as_deref(), Some("http://h:4318/v1/traces"));
    assert_eq!(endpoint(&[BASE, WHOLE, ("OTEL_TRACES_EXPORTER", "none")]), None);
    assert_eq!(endpoint(&[BASE, WHOLE, ("OTEL_SDK_DISABLED", "True")]), None);
    assert_eq!(endpoint(&[BASE, ("OTEL_SDK_DISABLED", "false")]).as_deref(), Some("http://h:4318/v1/traces"));
}
