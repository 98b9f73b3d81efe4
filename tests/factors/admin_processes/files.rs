//! `migrate import` and `migrate export` with files, pipes and devices. Both stop at the first signal.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;

use libtest_mimic::Trial;
use tempfile::TempDir;

use crate::support::engine::{Database, Engine, Family, Server};
use crate::support::process::{
    Web, code, import_csv, migrate, migrate_command, migrate_from, migrated, signal, stderr,
};
use crate::support::resource::{LISTING, wide_rows};
use crate::support::sql::{Sql, waits};
use crate::support::{Tests, eventually, tests};

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!())
        .any(tests![
            spreadsheets_are_imported,
            an_import_stops_while_it_reports,
            an_import_takes_constant_memory,
            an_export_writes_to_devices,
            an_export_replaces_the_file_behind_a_link,
            an_export_keeps_the_mode_of_a_file,
            exports_at_once_leave_one_of_them,
            a_failed_export_leaves_the_file_as_it_was,
            an_export_fills_a_file_that_is_mounted,
            an_export_goes_directly_to_what_is_no_file
        ])
        // SQLite alone has one writer at a time, and files that an export could replace.
        .on(&[Engine::Sqlite], tests![an_import_waits_for_another_writer, an_export_never_replaces_its_database])
        .each(tests![
            white_space_around_a_value_makes_no_second_user,
            a_second_import_uses_up_no_ids,
            ids_need_not_be_in_every_row,
            an_import_stops_while_it_reads,
            an_export_stops_while_it_writes
        ])
        .on(
            &Engine::SERVERS,
            tests![
                known_users_cost_one_query_a_batch,
                a_user_who_arrives_meanwhile_is_named,
                the_documented_rights_suffice,
                a_task_stops_while_a_lock_is_held
            ],
        )
        // [only servers]
        .once(tests![secrets_are_made_once_and_at_once])
        // [end]
        .trials()
}

fn spreadsheets_are_imported(database: &Database) {
    migrated(database, &["up"]);
    let folder = TempDir::new().unwrap();
    for (name, content) in [
        ("a.CSV", "\u{feff}UserName;EMail\r\na;a@x\r\n\r\n".replace("EMail", "Email")),
        ("b.Csv", "sep=;\r\n\"ID\"\t;username;email;\r\n;b;b@x;\r\n".replace('\t', "")),
        ("c.NDJSON", "\u{feff}{\"username\":\"c\",\"email\":\"c@x\"}\r\n".to_owned()),
        ("d.JsonL", "\n{\"username\":\"d\",\"email\":\"d@x\"}".to_owned()),
        ("e.csv", "email\tusername\n\ne@x\te\n  \n".to_owned()),
    ] {
        let file = folder.path().join(name);
        fs::write(&file, content).unwrap();
        assert_eq!(
            migrated(database, &["import", file.to_str().unwrap()]),
            "1 user imported, 0 rows left out\n",
            "{name}"
        );
    }
    assert_eq!(migrated(database, &["export", folder.path().join("f.CSV").to_str().unwrap()]), "5 users exported\n");
    for (format, input) in [("ndjson", ""), ("csv", "username,email\r\n")] {
        let done = migrate_from(database, &["import", "-", "--format", format], input);
        assert_eq!(code(&done), 0, "{}", stderr(&done));
        assert_eq!(String::from_utf8(done.stdout).unwrap(), "0 users imported, 0 rows left out\n");
    }
    // As Excel has it: its lines end with CRLF, and so does the one in a cell.
    let bad = "\u{feff}username;email\r\n\r\nx;x@x\r\n\"y\r\ny\";y@x\r\n\r\nz;z\r\n";
    let refused = import_csv(database, bad);
    assert_eq!(code(&refused), 65);
    assert!(stderr(&refused).contains("line 4: username has a control character (U+000D)\n"), "{}", stderr(&refused));
    assert!(
        stderr(&refused).contains("line 7: email is not of the form name@domain: it has no @\n"),
        "{}",
        stderr(&refused)
    );
}

/// The tables distinguish ` alice ` from `alice`. An import inserts only the latter.
fn white_space_around_a_value_makes_no_second_user(database: &Database) {
    migrated(database, &["up"]);
    let file = "username,email\nalice,a@x.org\n alice ,b@x.org\nbob,\"a@x.org \"\n\u{a0}carol\u{3000},\tc@x.org\nd\u{200b}an,d@x.org\neve,e\u{2028}@x\n";
    let done = migrate_from(database, &["import", "-", "--format", "csv", "--skip-bad"], file);
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    let log = stderr(&done);
    for reason in [
        "line 3: username is taken, in the table or by an earlier line",
        "line 4: email is taken, in the table or by an earlier line",
        "line 5: email has a control character (U+0009)",
        "line 6: username has an invisible character (U+200B)",
        "line 7: email has a line separator (U+2028)",
    ] {
        assert!(log.contains(reason), "{reason}: {log}");
    }
    let done = import_csv(database, "username,email\n\u{a0}carol\u{3000}, c@x.org\u{2009}\n");
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    assert_eq!(database.sql().texts("SELECT username FROM users ORDER BY id"), ["alice", "carol"]);
    assert_eq!(database.sql().texts("SELECT email FROM users ORDER BY id"), ["a@x.org", "c@x.org"]);
    for values in ["(' alice ', 'x@x')", "('alice ', 'y@x')"] {
        database.sql().execute(&format!("INSERT INTO users (username, email) VALUES {values}"));
    }
}

/// A file of users whose names contain their numbers.
fn numbered(numbers: impl Iterator<Item = usize>) -> String {
    let rows: Vec<String> = numbers.map(|n| format!("u{n},u{n}@example.com\r\n")).collect();
    format!("username,email\r\n{}", rows.concat())
}

/// On the servers, each attempt to insert a row uses an id. So the ids show that there was no attempt.
fn a_second_import_uses_up_no_ids(database: &Database) {
    migrated(database, &["up"]);
    assert_eq!(code(&import_csv(database, &numbered(0..2500))), 0);
    let again = import_csv(database, &numbered(0..2500));
    assert_eq!(code(&again), 65);
    let reason = "username is taken and email is taken, in the table or by an earlier line\n";
    assert_eq!(stderr(&again).matches(&format!(": {reason}")).count(), 100);
    assert!(stderr(&again).contains(&format!("  2,400  {reason}")), "{}", stderr(&again));
    // Every second user exists.
    let mixed = numbered((0..2500).flat_map(|n| [n, n + 2500]));
    let again = import_csv(database, &mixed);
    assert_eq!(code(&again), 65);
    assert!(stderr(&again).contains("2500 of 5000 rows cannot be imported"), "{}", stderr(&again));
    let done = migrate_from(
        database,
        &["import", "-", "--format", "csv", "--skip-bad"],
        "username,email\nu1,x@x\nnext,next@x\n",
    );
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    let (id, used) = (database.sql().number("SELECT MAX(id) FROM users"), 2501);
    // The servers do not take back the ids of the mixed file, whose new users were inserted and rolled back.
    let rolled_back = if database.engine == Engine::Sqlite { 0 } else { 2500 };
    assert_eq!(id, used + rolled_back);
    let done = migrate_from(database, &["import", "-", "--format", "csv", "--skip-bad"], &mixed);
    assert_eq!(String::from_utf8(done.stdout).unwrap(), "2500 users imported, 2500 rows left out\n");
}

/// The number of statements that a server has executed.
fn statements(server: &Server, engine: Engine) -> i64 {
    match engine {
        Engine::Sqlite => unreachable!("it has no server"),
        Engine::MariaDb => server.admin().number(
            "SELECT CAST(VARIABLE_VALUE AS SIGNED) FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'QUESTIONS'",
        ),
        Engine::MySql => server.admin().number(
            "SELECT CAST(VARIABLE_VALUE AS SIGNED) FROM performance_schema.global_status WHERE VARIABLE_NAME = 'Questions'",
        ),
        Engine::Postgres | Engine::Postgres18 => {
            let log = fs::read_to_string(server.socket().with_file_name("log")).unwrap();
            let count = log.lines().filter(|line| line.contains("execute ") || line.contains("statement: ")).count();
            i64::try_from(count).unwrap()
        }
    }
}

fn known_users_cost_one_query_a_batch(database: &Database) {
    let engine = database.engine;
    let server = Server::start(engine);
    server.admin().execute("CREATE DATABASE roster");
    if engine.family() == Family::Postgres {
        server.admin().execute("ALTER SYSTEM SET log_statement = 'all'");
        server.admin().execute("SELECT pg_reload_conf()");
        eventually("statements are logged", || {
            server.admin().execute("SELECT 1");
            statements(&server, engine) > 0
        });
    }
    let url = server.url("roster");
    let run = |arguments: &[&str], input: &str| {
        let mut command = migrate_command(arguments, &[("DATABASE_URL", &url)]);
        fed(&mut command, input)
    };
    assert_eq!(code(&run(&["up"], "")), 0);
    assert_eq!(code(&run(&["import", "-", "--format", "csv"], &numbered((0..6000).filter(|n| n % 2 == 0)))), 0);
    let known = (0..6000).filter(|n| n % 2 == 0);
    // New users for two batches, known ones for two, and so on.
    let by_turns = (0..6000).map(|n| if n / 1800 % 2 == 0 { n + 10_000 } else { n / 2 * 2 });
    for input in [numbered(known), numbered(0..6000), numbered(by_turns)] {
        for arguments in [&["import", "-", "--format", "csv"][..], &["import", "-", "--format", "csv", "--skip-bad"]] {
            let before = statements(&server, engine);
            let done = run(arguments, &input);
            assert_eq!(code(&done), if arguments.len() > 4 { 0 } else { 65 });
            let statements = statements(&server, engine) - before;
            // Seven batches at most, of a query, an INSERT and its savepoint, once more where the table refuses one.
            assert!(statements < 120, "{statements} statements");
        }
    }
}

/// Runs a command with this input, as `migrate_from` does.
fn fed(command: &mut Command, input: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let done = child.wait_with_output().unwrap();
    writer.join().unwrap();
    done
}

/// No query shows the uncommitted rows of another session. Only the constraints reject a duplicate.
fn a_user_who_arrives_meanwhile_is_named(database: &Database) {
    migrated(database, &["up"]);
    let mut holder = database.sql();
    holder.execute(if database.engine.family() == Family::MySql { "START TRANSACTION" } else { "BEGIN" });
    holder.execute(
        "INSERT INTO users (id, username, email) VALUES (10, 'x', 'x@x'), (11, 'known', 'y@x'), (12, 'z', 'known@x')",
    );
    let file = "id,username,email\n1,a,a@x\n10,b,b@x\n2,KNOWN,c@x\n3,d,Known@x\n4,e,e@x\n,f,f@x\n";
    let mut command = migrate_command(&["import", "-", "--format", "csv"], &[("DATABASE_URL", &database.url)]);
    let import = thread::spawn(move || fed(&mut command, file));
    let mut sql = database.sql();
    eventually("the import waits", || waits(&mut sql, database.engine));
    holder.execute("COMMIT");
    let refused = import.join().unwrap();
    assert_eq!(code(&refused), 65, "{}", stderr(&refused));
    for (line, column) in [(3, "id"), (4, "username"), (5, "email")] {
        let reason = format!("line {line}: {column} is taken, in the table or by an earlier line\n");
        assert!(stderr(&refused).contains(&reason), "{reason}: {}", stderr(&refused));
    }
    assert!(stderr(&refused).contains("3 of 6 rows cannot be imported"), "{}", stderr(&refused));
    assert_eq!(sql.number("SELECT COUNT(*) FROM users"), 3);
}

fn ids_need_not_be_in_every_row(database: &Database) {
    migrated(database, &["up"]);
    let id = |n: usize| if n.is_multiple_of(2) { (5000 - n).to_string() } else { String::new() };
    let rows: Vec<String> = (0..2000).map(|n| format!("{},u{n},u{n}@x\n", id(n))).collect();
    let done = import_csv(database, &format!("id,username,email\n{}", rows.concat()));
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    assert_eq!(database.sql().number("SELECT COUNT(*) FROM users"), 2000);
    assert_eq!(database.sql().number("SELECT id FROM users WHERE username = 'u1000'"), 4000);
    assert_eq!(database.sql().number("SELECT COUNT(*) FROM users WHERE id > 5000"), 1000);
}

fn an_import_waits_for_another_writer(database: &Database) {
    migrated(database, &["up"]);
    for task in [&["import", "-", "--format", "csv"][..], &["seed", "10"]] {
        let mut holder = database.sql();
        holder.execute("BEGIN IMMEDIATE");
        holder.execute("DELETE FROM users");
        let mut command = migrate_command(task, &[("DATABASE_URL", &database.url)]);
        let done = thread::spawn(move || fed(&mut command, &numbered(0..10)));
        // Probably long enough to wait for the lock. The test also passes if it is not.
        thread::sleep(std::time::Duration::from_millis(500));
        holder.execute("COMMIT");
        let done = done.join().unwrap();
        assert_eq!(code(&done), 0, "{}", stderr(&done));
    }
}

/// The statements between a line and the next that ends them.
fn between<'t>(text: &'t str, begin: &str, end: &str) -> &'t str {
    text.split_once(begin).and_then(|(_, rest)| rest.split_once(end)).unwrap_or_else(|| panic!("no {begin}")).0
}

/// Executes the statements of the documents and scripts, and then each task with the rights of `web`.
fn the_documented_rights_suffice(database: &Database) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let family = database.engine.family();
    let run_all = |sql: &mut Sql, statements: &str| {
        for statement in statements.split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
            sql.execute(statement);
        }
    };
    let script = |engine: &str| {
        let folder = TempDir::new().unwrap();
        for user in ["migrate", "web"] {
            fs::write(
                folder.path().join(format!("database_{user}")),
                format!("{engine}://roster_{user}:secret@db/roster\n"),
            )
            .unwrap();
        }
        let script = fs::read_to_string(root.join(format!("deploy/compose/{engine}-users.sh"))).unwrap();
        let script = script.replace("/run/secrets", folder.path().to_str().unwrap());
        let made = Command::new("bash")
            .args(["-euc", &format!("docker_process_sql() {{ cat; }}\n{script}")])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", stderr(&made));
        String::from_utf8(made.stdout).unwrap()
    };
    let mut servers = Vec::new();
    let server = Server::start(database.engine);
    server.admin().execute("CREATE DATABASE roster");
    run_all(
        &mut Sql::connect(&server.url("roster")),
        &script(match family {
            Family::Sqlite => unreachable!("it has no server"),
            Family::MySql => "mariadb",
            Family::Postgres => "postgres",
        }),
    );
    servers.push(server);
    let page = fs::read_to_string(root.join("docs/kubernetes.md")).unwrap();
    let server = Server::start(database.engine);
    match family {
        Family::Sqlite => unreachable!("it has no server"),
        Family::MySql => {
            run_all(&mut server.admin(), between(&page, "For MySQL and MariaDB:\n\n```sql\n", "```"));
            for user in ["migrate", "web"] {
                server.admin().execute(&format!("ALTER USER roster_{user} IDENTIFIED BY 'secret'"));
            }
        }
        Family::Postgres => {
            let statements = between(&page, "For PostgreSQL:\n\n```sql\n", "```");
            let (before, after) = statements.split_once("\\connect roster\n").unwrap();
            run_all(&mut server.admin(), before);
            run_all(&mut Sql::connect(&server.url("roster")), after);
            for user in ["migrate", "web"] {
                server.admin().execute(&format!("ALTER ROLE roster_{user} PASSWORD 'secret'"));
            }
        }
    }
    servers.push(server);
    for server in servers {
        let run = |user: &str, arguments: &[&str], input: &str| {
            let url = server.url_of(&format!("roster_{user}:secret"), "roster");
            fed(&mut migrate_command(arguments, &[("DATABASE_URL", &url)]), input)
        };
        let up = run("migrate", &["up"], "");
        assert_eq!(code(&up), 0, "{}", stderr(&up));
        for (arguments, input) in [
            (&["status"][..], ""),
            (&["import", "-", "--format", "csv"], "id,username,email\n41,a,a@x\n"),
            (&["import", "-", "--format", "csv"], "username,email\nb,b@x\n"),
            (&["seed", "10"], ""),
            (&["export", "-", "--format", "ndjson"], ""),
        ] {
            for user in ["web", "migrate"] {
                // Each has users of its own.
                let done = run(
                    user,
                    arguments,
                    &input
                        .replace("a,a@x", &format!("a{user},a{user}@x"))
                        .replace("b,b@x", &format!("b{user},b{user}@x"))
                        .replace("41", if user == "web" { "41" } else { "51" }),
                );
                assert_eq!(code(&done), 0, "{user} {arguments:?}: {}", stderr(&done));
            }
        }
        assert_eq!(Sql::connect(&server.url("roster")).number("SELECT id FROM users WHERE username = 'bweb'"), 52);
        let refused = run("web", &["down", "--yes"], "");
        assert_ne!(code(&refused), 0);
        let web =
            Web::start_at(&server.url_of("roster_web:secret", "roster"), &[("DATABASE_ACQUIRE_TIMEOUT_MS", "20000")]);
        assert_eq!(web.all(LISTING).len(), 14);
    }
}

/// Whether a child has begun to read or to write, which it does on a thread of its own.
fn blocks(child: &Child) -> bool {
    fs::read_dir(format!("/proc/{}/task", child.id())).is_ok_and(|tasks| tasks.count() > 1)
}

fn ends_with(child: &mut Child, name: &str, expected: i32) {
    signal(child, name);
    eventually("it stops at the first signal", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(expected));
}

fn fifo(folder: &TempDir, name: &str) -> String {
    let path = folder.path().join(name).to_str().unwrap().to_owned();
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    path
}

fn an_import_stops_while_it_reads(database: &Database) {
    migrated(database, &["up"]);
    let folder = TempDir::new().unwrap();
    let silent = fifo(&folder, "silent.csv");
    let unopened = fifo(&folder, "unopened.csv");
    // Opened for both, so that neither side waits for the other.
    let mut writer = OpenOptions::new().read(true).write(true).open(&silent).unwrap();
    let start = |arguments: &[&str]| {
        let mut command = migrate_command(arguments, &[("DATABASE_URL", &database.url)]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        eventually("it reads", || blocks(&child));
        child
    };
    ends_with(&mut start(&["import", &unopened]), "TERM", 143);
    ends_with(&mut start(&["import", &silent]), "INT", 130);
    ends_with(&mut start(&["import", "-", "--format", "csv"]), "TERM", 143);
    // In the middle of the file, with rows that are inserted but not committed.
    let mut child = start(&["import", &silent]);
    writer.write_all(numbered(0..2000).as_bytes()).unwrap();
    ends_with(&mut child, "TERM", 143);
    assert_eq!(database.sql().number("SELECT COUNT(*) FROM users"), 0);
    let done = import_csv(database, &numbered(0..10));
    assert_eq!(code(&done), 0, "{}", stderr(&done));
}

fn an_export_stops_while_it_writes(database: &Database) {
    migrated(database, &["up"]);
    assert_eq!(code(&import_csv(database, &wide_rows())), 0);
    let folder = TempDir::new().unwrap();
    let unopened = fifo(&folder, "unopened.csv");
    let link = standard_output(&folder);
    for (arguments, has_begun) in [
        (&["export", "-", "--format", "csv"][..], true),
        (&["export", &link, "--format", "ndjson"], true),
        (&["export", &unopened], false),
    ] {
        for (name, expected) in [("TERM", 143), ("INT", 130)] {
            let mut command = migrate_command(arguments, &[("DATABASE_URL", &database.url)]);
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
            if has_begun {
                let mut beginning = [0; 100];
                child.stdout.as_mut().unwrap().read_exact(&mut beginning).unwrap();
            } else {
                eventually("it opens the FIFO", || blocks(&child));
            }
            ends_with(&mut child, name, expected);
        }
    }
}

/// Standard error and standard output are one pipe without a reader.
fn an_import_stops_while_it_reports(database: &Database) {
    migrated(database, &["up"]);
    let (reader, writer) = std::io::pipe().unwrap();
    let arguments = ["import", "-", "--format", "csv", "--bad-rows", "-"];
    let mut command = migrate_command(&arguments, &[("DATABASE_URL", &database.url)]);
    let writer: OwnedFd = writer.into();
    command.stdin(Stdio::piped()).stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut stdin = child.stdin.take().unwrap();
    let bad = format!("username,email\n{}", "bad,bad\n".repeat(100_000));
    // It ends when the import does.
    let feeder = thread::spawn(move || drop(stdin.write_all(bad.as_bytes())));
    let mut file = File::from(OwnedFd::from(reader));
    let mut beginning = [0; 100];
    file.read_exact(&mut beginning).unwrap();
    assert!(beginning.starts_with(b"line 2: "), "{beginning:?}");
    ends_with(&mut child, "TERM", 143);
    feeder.join().unwrap();
    assert_eq!(database.sql().number("SELECT COUNT(*) FROM users"), 0);
}

fn a_task_stops_while_a_lock_is_held(database: &Database) {
    migrated(database, &["up"]);
    migrated(database, &["seed"]);
    let mut sql = database.sql();
    for arguments in [&["seed", "10"][..], &["import", "-", "--format", "csv"]] {
        let mut holder = database.sql();
        holder.execute(if database.engine.family() == Family::MySql { "START TRANSACTION" } else { "BEGIN" });
        let name = if arguments[0] == "seed" { "ada.abbott" } else { "u1" };
        holder.execute("DELETE FROM friends");
        holder.execute(&format!("INSERT INTO users (username, email) VALUES ('{name}', 'held@x')"));
        let mut command = migrate_command(arguments, &[("DATABASE_URL", &database.url)]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(numbered(0..10).as_bytes()).unwrap();
        eventually("it waits for the lock", || waits(&mut sql, database.engine));
        ends_with(&mut child, "TERM", 143);
        holder.execute("ROLLBACK");
    }
    eventually("what was stopped is undone", || sql.number("SELECT COUNT(*) FROM users") == 2);
}

/// Neither the file nor one of its rows is held in memory.
fn an_import_takes_constant_memory(database: &Database) {
    migrated(database, &["up"]);
    for (format, piece) in
        [("ndjson", "x".to_owned()), ("csv", "\"x".to_owned()), ("csv", "username,email\n\"x".to_owned())]
    {
        let mut command = migrate_command(&["import", "-", "--format", format], &[("DATABASE_URL", &database.url)]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(piece.as_bytes()).unwrap();
        let megabyte = "x".repeat(1 << 20);
        for _ in 0..100 {
            if stdin.write_all(megabyte.as_bytes()).is_err() {
                break;
            }
        }
        let peak = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let peak = peak.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        // A process that has already rejected the file has no status.
        if let Some(peak) = peak {
            let kilobytes: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
            assert!(kilobytes < 80 * 1024, "{kilobytes} kB");
        }
        drop(stdin);
        assert_eq!(code(&child.wait_with_output().unwrap()), 65);
    }
}

const TWO_USERS: &str = "id,username,email\r\n1,admin,admin@example.com\r\n2,guest,guest@example.com\r\n";

fn an_export_goes_directly_to_what_is_no_file(database: &Database) {
    migrated(database, &["up"]);
    migrated(database, &["seed"]);
    let folder = TempDir::new().unwrap();

    let path = fifo(&folder, "users.csv");
    let reader = path.clone();
    let reader = thread::spawn(move || fs::read_to_string(reader).unwrap());
    assert_eq!(migrated(database, &["export", &path]), "2 users exported\n");
    assert_eq!(reader.join().unwrap(), TWO_USERS);

    let link = standard_output(&folder);
    for name in [&*link, "/dev/fd/1", "/proc/self/fd/1"] {
        assert_eq!(migrated(database, &["export", name, "--format", "csv"]), TWO_USERS, "{name}");
        // The shell's own output stays before it.
        let file = folder.path().join("output");
        let output = File::create(&file).unwrap();
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "echo before; \"$@\"; echo behind",
            "sh",
            env!("CARGO_BIN_EXE_migrate"),
            "export",
            name,
            "--format",
            "csv",
        ]);
        command.env_clear().env("DATABASE_URL", &database.url).stdout(output);
        assert!(command.status().unwrap().success());
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("before\n{TWO_USERS}behind\n"), "{name}");
    }
    // What a shell makes of >(command).
    let mut command = Command::new("bash");
    command.args([
        "-c",
        "\"$@\" 3>&1 >/dev/null",
        "bash",
        env!("CARGO_BIN_EXE_migrate"),
        "export",
        "/dev/fd/3",
        "--format",
        "csv",
    ]);
    let done = command.env_clear().env("DATABASE_URL", &database.url).output().unwrap();
    assert_eq!(String::from_utf8(done.stdout.clone()).unwrap(), TWO_USERS, "{}", stderr(&done));

    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());

    for (path, reason) in [
        (folder.path().to_str().unwrap(), "is a directory"),
        ("/no/such/users.csv", "cannot write /no/such/users.csv: No such file or directory"),
    ] {
        let refused = migrate(database, &["export", path, "--format", "csv"]);
        assert_eq!(code(&refused), 74, "{path}: {}", stderr(&refused));
        assert!(stderr(&refused).contains(reason), "{}", stderr(&refused));
    }
    assert!(!fs::symlink_metadata(&path).unwrap().is_file());
}

/// The devices are mounted on files of the test, which nothing can replace, because a fault must not replace those of the
/// machine.
fn an_export_writes_to_devices(database: &Database) {
    migrated(database, &["up"]);
    migrated(database, &["seed"]);
    let folder = TempDir::new().unwrap();
    for (device, expected, output) in
        [("null", 0, "2 users exported\n"), ("full", 74, "cannot write: No space left on device")]
    {
        fs::write(folder.path().join(device), "").unwrap();
        let commands =
            format!("mount --bind /dev/{device} \"$2/{device}\"; \"$1\" export \"$2/{device}\" --format csv");
        let Some(done) = with_mounts(&commands, database, folder.path()) else { return };
        assert_eq!(code(&done), expected, "{device}: {}", stderr(&done));
        let printed = String::from_utf8(done.stdout.clone()).unwrap() + &stderr(&done);
        assert!(printed.contains(output), "{printed}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing temporary is left");
}

/// A link to standard output as `/dev/stdout` is one. A fault that replaces it must not replace that of the machine.
fn standard_output(folder: &TempDir) -> String {
    let link = folder.path().join("stdout");
    symlink("/proc/self/fd/1", &link).unwrap();
    link.to_str().unwrap().to_owned()
}

fn an_export_replaces_the_file_behind_a_link(database: &Database) {
    migrated(database, &["up"]);
    migrated(database, &["seed"]);
    let folder = TempDir::new().unwrap();
    let in_folder = |name: &str| folder.path().join(name);
    fs::create_dir(in_folder("real")).unwrap();
    fs::write(in_folder("real/users.csv"), "old").unwrap();
    symlink("real/users.csv", in_folder("first.csv")).unwrap();
    symlink(in_folder("first.csv"), in_folder("second.csv")).unwrap();
    symlink("real/new.csv", in_folder("dangling.csv")).unwrap();
    symlink("loop.csv", in_folder("loop.csv")).unwrap();
    // A predictable name of a temporary file would be a security risk.
    fs::write(in_folder("victim"), "kept").unwrap();
    symlink("victim", in_folder("second.csv.partial")).unwrap();
    for name in ["second.csv", "dangling.csv"] {
        let path = in_folder(name);
        assert_eq!(migrated(database, &["export", path.to_str().unwrap()]), "2 users exported\n");
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink(), "{name}");
        assert_eq!(fs::read_to_string(&path).unwrap(), TWO_USERS);
    }
    let refused = migrate(database, &["export", in_folder("loop.csv").to_str().unwrap()]);
    assert_eq!(code(&refused), 74);
    assert!(stderr(&refused).contains("too many levels of symbolic links"), "{}", stderr(&refused));
    assert!(fs::symlink_metadata(in_folder("first.csv")).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(in_folder("victim")).unwrap(), "kept");
    assert_eq!(fs::read_dir(in_folder("real")).unwrap().count(), 2, "nothing temporary is left");
}

/// The target is a file of the database itself, by any path.
fn an_export_never_replaces_its_database(database: &Database) {
    migrated(database, &["up"]);
    migrated(database, &["seed"]);
    let file = database.file();
    let folder = file.parent().unwrap();
    let in_folder = |name: &str| folder.join(name);
    symlink(&file, in_folder("link.csv")).unwrap();
    fs::hard_link(&file, in_folder("hard.csv")).unwrap();
    let with_suffix = |suffix: &str| PathBuf::from(format!("{}{suffix}", file.display()));
    let mut targets = vec![file.clone(), in_folder("link.csv"), in_folder("hard.csv")];
    targets.extend(["-wal", "-shm", "-journal"].map(with_suffix));
    for target in &targets {
        let refused = migrate(database, &["export", "--format", "csv", target.to_str().unwrap()]);
        assert_eq!(code(&refused), 74, "{}: {}", target.display(), stderr(&refused));
        assert!(stderr(&refused).contains("it is a file of the database; choose another one"), "{}", stderr(&refused));
    }
    for target in ["-", "/dev/stdout", "/dev/fd/1"] {
        let output = OpenOptions::new().append(true).open(&file).unwrap();
        let mut command = migrate_command(&["export", "--format", "csv", target], &[("DATABASE_URL", &database.url)]);
        let refused = command.stdout(output).output().unwrap();
        assert_eq!(code(&refused), 74, "{target}: {}", stderr(&refused));
    }
    assert_eq!(database.sql().texts("PRAGMA integrity_check"), ["ok"]);
    assert_eq!(database.sql().number("SELECT COUNT(*) FROM users"), 2);
}

fn an_export_keeps_the_mode_of_a_file(database: &Database) {
    migrated(database, &["up"]);
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("users.csv");
    let mode = || fs::metadata(&file).unwrap().permissions().mode() & 0o7777;
    for umask in ["077", "022", "002"] {
        let _ = fs::remove_file(&file);
        let mut command = Command::new("sh");
        command
            .args(["-c", "umask \"$1\"; shift; \"$@\"", "sh", umask, env!("CARGO_BIN_EXE_migrate"), "export"])
            .arg(&file);
        let done = command.env_clear().env("DATABASE_URL", &database.url).output().unwrap();
        assert!(done.status.success(), "{}", stderr(&done));
        assert_eq!(mode(), 0o666 & !u32::from_str_radix(umask, 8).unwrap(), "{umask}");
        for kept in [0o600, 0o640, 0o664, 0o444] {
            fs::set_permissions(&file, Permissions::from_mode(kept)).unwrap();
            let is_root = fs::metadata(&file).unwrap().uid() == 0;
            if is_root {
                chown(&file, Some(1234), Some(4321)).unwrap();
            }
            migrated(database, &["export", file.to_str().unwrap()]);
            assert_eq!(mode(), kept);
            let metadata = fs::metadata(&file).unwrap();
            assert!(!is_root || (metadata.uid(), metadata.gid()) == (1234, 4321));
            if is_root {
                chown(&file, Some(0), Some(0)).unwrap();
            }
        }
    }
}

fn exports_at_once_leave_one_of_them(database: &Database) {
    migrated(database, &["up"]);
    migrated(database, &["seed", "3000"]);
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("users.csv");
    let expected = migrated(database, &["export", "-", "--format", "csv"]);
    for _ in 0..3 {
        let exports: Vec<Child> = (0..6)
            .map(|_| {
                let mut command =
                    migrate_command(&["export", file.to_str().unwrap()], &[("DATABASE_URL", &database.url)]);
                command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
            })
            .collect();
        for mut export in exports {
            assert!(export.wait().unwrap().success());
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), expected);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing temporary is left");
    }
}

fn a_failed_export_leaves_the_file_as_it_was(database: &Database) {
    migrated(database, &["up"]);
    assert_eq!(code(&import_csv(database, &wide_rows())), 0);
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("users.csv");
    fs::write(&file, "old").unwrap();
    // The export is larger than the limit of the file size.
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -f 100; trap '' XFSZ; \"$@\"", "sh", env!("CARGO_BIN_EXE_migrate"), "export"])
        .arg(&file);
    let failed = command.env_clear().env("DATABASE_URL", &database.url).output().unwrap();
    assert_eq!(code(&failed), 74, "{}", stderr(&failed));
    assert!(stderr(&failed).contains("cannot write: File too large"), "{}", stderr(&failed));
    assert_eq!(fs::read_to_string(&file).unwrap(), "old");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing temporary is left");
}

/// Runs a shell's commands as root of a mount namespace of its own, where the system permits it.
fn with_mounts(commands: &str, database: &Database, folder: &Path) -> Option<Output> {
    let namespace = |commands: &str| {
        let mut command = Command::new("unshare");
        command
            .args(["--map-root-user", "--mount", "sh", "-euc", commands, "sh", env!("CARGO_BIN_EXE_migrate")])
            .arg(folder);
        command.env("DATABASE_URL", &database.url);
        command
    };
    let is_permitted = namespace("mount --bind \"$2\" \"$2\"").output().is_ok_and(|done| done.status.success());
    is_permitted.then(|| namespace(commands).output().unwrap())
}

/// A single file of the host can be mounted into a container.
fn an_export_fills_a_file_that_is_mounted(database: &Database) {
    migrated(database, &["up"]);
    migrated(database, &["seed"]);
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("in")).unwrap();
    for name in ["host.csv", "in/users.csv"] {
        fs::write(folder.path().join(name), "old, and longer than what replaces it".repeat(10)).unwrap();
    }
    let mounted = "mount --bind \"$2/host.csv\" \"$2/in/users.csv\"; ";
    // The second folder cannot hold a temporary file.
    let read_only = "mount --bind \"$2/in\" \"$2/in\"; mount -o remount,ro,bind \"$2/in\"; mount --bind \"$2/host.csv\" \"$2/in/users.csv\"; ";
    for mounts in [mounted, read_only] {
        fs::write(folder.path().join("host.csv"), "old, and longer than what replaces it".repeat(10)).unwrap();
        let Some(done) = with_mounts(&format!("{mounts}\"$1\" export \"$2/in/users.csv\""), database, folder.path())
        else {
            return;
        };
        assert!(done.status.success(), "{}", stderr(&done));
        assert_eq!(fs::read_to_string(folder.path().join("host.csv")).unwrap(), TWO_USERS);
        assert!(fs::read_to_string(folder.path().join("in/users.csv")).unwrap().starts_with("old"));
        assert_eq!(fs::read_dir(folder.path().join("in")).unwrap().count(), 1, "nothing temporary is left");
    }
    let nowhere = format!("{read_only}export TMPDIR=/no/such; \"$1\" export \"$2/in/users.csv\"");
    let refused = with_mounts(&nowhere, database, folder.path()).unwrap();
    assert_eq!(code(&refused), 74);
    assert!(stderr(&refused).contains("its folder is read-only"), "{}", stderr(&refused));
    assert_eq!(fs::read_to_string(folder.path().join("host.csv")).unwrap(), TWO_USERS);
}

fn secrets_are_made_once_and_at_once() {
    let folder = TempDir::new().unwrap();
    let compose = folder.path().join("deploy/compose");
    fs::create_dir_all(&compose).unwrap();
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/compose/make-secrets"), compose.join("make-secrets"))
        .unwrap();
    let make = || Command::new("bash").arg(compose.join("make-secrets")).output().unwrap();
    // A link that leads nowhere is in the way as well.
    symlink("elsewhere", folder.path().join(".env")).unwrap();
    assert_ne!(code(&make()), 0);
    assert!(!folder.path().join("elsewhere").exists());
    assert_eq!(fs::read_dir(&compose).unwrap().count(), 1, "no secret is left");
    fs::remove_file(folder.path().join(".env")).unwrap();

    let runs = (0..4).map(|_| {
        let mut command = Command::new("bash");
        command.arg(compose.join("make-secrets")).stderr(Stdio::null()).spawn().unwrap()
    });
    let runs: Vec<Child> = runs.collect();
    let successes = runs.into_iter().map(|mut run| run.wait().unwrap()).filter(ExitStatus::success);
    assert_eq!(successes.count(), 1, "one of them makes the secrets");
    let secrets = compose.join("secrets");
    assert_eq!(fs::metadata(&secrets).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::read_dir(&secrets).unwrap().count(), 3);
    assert_eq!(fs::read_dir(&compose).unwrap().count(), 2, "nothing temporary is left");
    assert!(
        fs::read_to_string(folder.path().join(".env")).unwrap().contains("ROSTER_SECRETS=./deploy/compose/secrets")
    );
    assert_eq!(code(&make()), 73);
}
