//! What the commands of `migrate` show and ask, and their exit codes.

use std::fs;
use std::io::{BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::thread;

use libtest_mimic::Trial;
use roster::db::migrations::LATEST;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::engine::{Database, Engine};
use crate::support::process::{
    code, import_csv, migrate, migrate_command, migrate_from, migrated, signal, stderr, web_command,
};
use crate::support::resource::{LATEST_TABLE, wide_rows};
use crate::support::terminal::Terminal;
use crate::support::{Tests, eventually, tests};

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!())
        .each(tests![
            status_reports_each_state_by_its_exit_code,
            down_asks_on_a_terminal,
            down_without_a_terminal_needs_yes,
            down_reverts_only_what_was_confirmed
        ])
        .any(tests![
            progress_is_shown_on_a_terminal,
            progress_is_logged_elsewhere,
            output_without_a_reader_ends_quietly,
            many_bad_rows_are_summed_up,
            text_has_colours_only_on_a_terminal
        ])
        .on(
            &[Engine::Sqlite],
            tests![
                a_list_of_bad_rows_is_complete_or_absent,
                a_list_of_bad_rows_does_not_replace_the_input,
                a_failed_list_of_bad_rows_does_not_hide_the_import,
                a_list_of_bad_rows_without_a_reader_does_not_hide_the_import,
                a_broken_standard_error_changes_no_result
            ],
        )
        .once(tests![a_command_is_required])
        .trials()
}

fn a_command_is_required() {
    let done = migrate_command(&[], &[]).output().unwrap();
    assert_eq!((code(&done), done.stdout.len()), (2, 0));
    assert!(stderr(&done).contains("Usage: migrate <COMMAND>"), "{}", stderr(&done));
    assert!(stderr(&done).contains("Applies pending migrations"), "{}", stderr(&done));
}

fn status_reports_each_state_by_its_exit_code(database: &Database) {
    let status = |expected: i32| {
        let done = migrate(database, &["status", "--exit-code"]);
        assert_eq!(code(&done), expected, "{}", stderr(&done));
        let shown = String::from_utf8(done.stdout).unwrap();
        assert_eq!(migrated(database, &["status"]), shown);
        shown
    };
    let sql = |statement: &str| database.sql().execute(statement);
    assert!(status(3).contains("pending"));
    migrated(database, &["up", "--to", "1"]);
    status(3);
    migrated(database, &["up"]);
    let shown = status(0);
    let json: Value = serde_json::from_str(&migrated(database, &["status", "--json", "--exit-code"])).unwrap();
    for migration in json.as_array().unwrap() {
        let at = migration["applied_at"].as_str().unwrap();
        let form: String = at.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(form, "0000-00-00T00:00:00Z", "{at}");
        assert!(shown.contains(at), "{shown}");
    }
    sql(
        "INSERT INTO roster_migrations (version, description, success, checksum, execution_time) VALUES (99, 'later', TRUE, '', 0)",
    );
    assert!(status(6).contains("applied by a newer release"));
    // Each is more serious than the one before.
    sql(&format!("DELETE FROM roster_migrations WHERE version = {LATEST}"));
    status(3);
    sql("UPDATE roster_migrations SET success = FALSE WHERE version = 2");
    assert!(status(4).contains("interrupted"));
    sql("UPDATE roster_migrations SET checksum = '' WHERE version = 1");
    assert!(status(5).contains("modified"));
}

/// Starts a command on a terminal.
fn on_terminal(database: &Database, arguments: &[&str]) -> (Child, Terminal) {
    // Without TERM, a terminal counts as one that cannot move its cursor.
    let mut command = migrate_command(arguments, &[("DATABASE_URL", &database.url), ("TERM", "xterm")]);
    let terminal = Terminal::attach(&mut command);
    (command.stdout(Stdio::piped()).spawn().unwrap(), terminal)
}

fn end(child: Child) -> (i32, String) {
    let done = child.wait_with_output().unwrap();
    (code(&done), String::from_utf8(done.stdout).unwrap())
}

const QUESTION: &str = "Type yes to revert: ";

fn down_asks_on_a_terminal(database: &Database) {
    migrated(database, &["up"]);
    migrated(database, &["seed"]);
    let users = || database.sql().number("SELECT COUNT(*) FROM users");
    for answer in ["no", "", "y"] {
        let (child, mut terminal) = on_terminal(database, &["down", "--to", "0"]);
        terminal.shows(QUESTION);
        terminal.type_line(answer);
        assert_eq!(end(child), (1, String::new()), "{answer}");
        let screen = terminal.into_screen();
        for shown in
            ["DROP TABLE users;", "users: 2 rows\r\n", &format!("{LATEST_TABLE}: 0 rows\r\n"), "nothing was reverted"]
        {
            assert!(screen.contains(shown), "{shown}: {screen}");
        }
    }
    let (child, terminal) = on_terminal(database, &["down"]);
    terminal.shows(QUESTION);
    signal(&child, "INT");
    assert_eq!(end(child).0, 130);
    assert_eq!(users(), 2);
    let (child, mut terminal) = on_terminal(database, &["down"]);
    terminal.shows(QUESTION);
    terminal.type_line("yes");
    assert_eq!(end(child), (0, format!("migration {LATEST} reverted\n")));
    assert!(!terminal.into_screen().contains("DROP TABLE users;"));
    migrated(database, &["down", "--yes", "--to", "0"]);
    // Without a migration there is no question.
    assert_eq!(end(on_terminal(database, &["down"]).0), (0, "nothing to do: no migration reverted\n".to_owned()));
}

fn down_without_a_terminal_needs_yes(database: &Database) {
    migrated(database, &["up"]);
    let refused = migrate(database, &["down"]);
    assert_eq!(code(&refused), 2);
    assert!(stderr(&refused).contains("pass --yes to confirm it"), "{}", stderr(&refused));
    let planned = migrated(database, &["down", "--to", "0", "--dry-run"]);
    let (newest, oldest) =
        (planned.find(&format!("TABLE {LATEST_TABLE}")), planned.find("-- 1 users\nDROP TABLE users;"));
    assert!(newest.is_some() && newest < oldest, "{planned}");
    assert_eq!(migrated(database, &["up"]), "nothing to do: no migration applied\n");
    assert_eq!(migrated(database, &["down", "--yes"]), format!("migration {LATEST} reverted\n"));
}

fn down_reverts_only_what_was_confirmed(database: &Database) {
    migrated(database, &["up"]);
    let (child, mut terminal) = on_terminal(database, &["down"]);
    terminal.shows(QUESTION);
    migrated(database, &["down", "--yes"]);
    terminal.type_line("yes");
    assert_eq!(end(child), (70, String::new()));
    let screen = terminal.into_screen();
    assert!(screen.contains("the migrations changed after the confirmation"), "{screen}");
    assert_eq!(migrated(database, &["up"]), format!("migration {LATEST} applied\n"));
}

fn progress_is_shown_on_a_terminal(database: &Database) {
    migrated(database, &["up"]);
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("users.csv");
    fs::write(&file, wide_rows()).unwrap();
    let file = file.to_str().unwrap();
    for (arguments, shown) in [
        (&["import", file][..], &["%, ", " rows, ", "/s, ", " MiB", " left"][..]),
        (&["export", file], &[" rows, ", "/s, ", " MiB"]),
        (&["seed", "10"], &["%, 10 samples, ", "/s", " left"]),
    ] {
        let (child, terminal) = on_terminal(database, arguments);
        assert_eq!(end(child).0, 0);
        let screen = terminal.into_screen();
        assert!(shown.iter().all(|shown| screen.contains(shown)), "{arguments:?}: {screen}");
        assert_eq!(stderr(&migrate(database, &["seed", "10"])), "", "without a terminal");
    }
}

fn progress_is_logged_elsewhere(database: &Database) {
    migrated(database, &["up"]);
    let arguments = ["import", "-", "--format", "csv"];
    let mut command = migrate_command(&arguments, &[("DATABASE_URL", &database.url)]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut rows = BufWriter::new(child.stdin.take().unwrap());
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = thread::spawn(move || lines.map_while(Result::ok).find(|line| line.contains("\"progress\"")));
    rows.write_all(b"username,email\n").unwrap();
    let mut count = 0;
    eventually("it logs its progress", || {
        for n in count..count + 1000 {
            writeln!(rows, "u{n},u{n}@example.com").unwrap();
        }
        count += 1000;
        line.is_finished()
    });
    drop(rows);
    assert!(child.wait().unwrap().success());
    let line: Value = serde_json::from_str(&line.join().unwrap().unwrap()).unwrap();
    for number in ["rows", "per_second", "bytes"] {
        assert!(line[number].as_u64().is_some_and(|number| number > 0), "{line}");
    }
    assert_eq!(line["unit"], "rows");
}

fn output_without_a_reader_ends_quietly(database: &Database) {
    migrated(database, &["up"]);
    assert_eq!(code(&import_csv(database, &wide_rows())), 0);
    for arguments in
        [&["export", "-", "--format", "csv"][..], &["export", "/dev/stdout", "--format", "ndjson"], &["status"]]
    {
        let mut command = migrate_command(arguments, &[("DATABASE_URL", &database.url)]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut output = child.stdout.take().unwrap();
        if arguments.len() > 1 {
            output.read_exact(&mut [0; 10]).unwrap();
        }
        drop(output);
        let done = child.wait_with_output().unwrap();
        assert_eq!((code(&done), stderr(&done)), (141, String::new()), "{arguments:?}");
    }
    for arguments in [&["check"][..], &["token", "laptop"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = web_command(&[("DATABASE_URL", &database.url)]);
        let done = command.args(arguments).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let done = done.wait_with_output().unwrap();
        assert_eq!((code(&done), stderr(&done)), (141, String::new()), "{arguments:?}");
    }
}

fn many_bad_rows_are_summed_up(database: &Database) {
    migrated(database, &["up"]);
    let bad: String = (0..2_345).map(|n| if n % 10 == 0 { "one\n" } else { "bad,bad\n" }).collect();
    let csv = format!("username,email\n{bad}good,good@example.com\n");
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("bad.txt");
    for arguments in [&[][..], &["--skip-bad"], &["--skip-bad", "--bad-rows", file.to_str().unwrap()]] {
        let arguments = [&["import", "-", "--format", "csv"], arguments].concat();
        let done = migrate_from(database, &arguments, &csv);
        let log = stderr(&done);
        assert_eq!(code(&done), if arguments.len() > 4 { 0 } else { 65 }, "{log}");
        assert_eq!(log.lines().filter(|line| line.starts_with("line ")).count(), 100, "{log}");
        assert!(log.contains("line 2: number of fields: expected 2 as in the header, got 1\nline 3: email "), "{log}");
        assert!(log.contains("\nand 2,245 more"), "{log}");
        assert!(log.contains("\n      2,020  email is not of the form name@domain: it has no @\n"), "{log}");
        assert!(log.contains("\n        225  number of fields: expected 2 as in the header, got 1\n"), "{log}");
        assert_eq!(log.contains("--bad-rows FILE"), arguments.len() < 6, "{log}");
        database.sql().execute("DELETE FROM users");
    }
    let listed = fs::read_to_string(&file).unwrap();
    assert_eq!(listed.lines().count(), 2_345);
    assert!(listed.ends_with("\nline 2346: email is not of the form name@domain: it has no @\n"), "{listed}");
}

fn a_list_of_bad_rows_is_complete_or_absent(database: &Database) {
    migrated(database, &["up"]);
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("bad.txt");
    let import = |file: &str, csv: &str| {
        let done = migrate_from(database, &["import", "-", "--format", "csv", "--bad-rows", file], csv);
        (code(&done), stderr(&done))
    };
    let path = file.to_str().unwrap();
    // Also if nothing was imported.
    assert_eq!(import(path, "username,email\nbad,bad\na,a@x\n").0, 65);
    assert!(fs::read_to_string(&file).unwrap().starts_with("line 2: "));
    // The list of an earlier run does not stay.
    assert_eq!(import(path, "username,email\nb,b@x\n").0, 0);
    assert_eq!(fs::read_to_string(&file).unwrap(), "");
    let (refused, message) = import("/does/not/exist", "username,email\nc,c@x\n");
    assert_eq!(refused, 74);
    assert!(message.contains("cannot write /does/not/exist: "), "{message}");
    let database_file = database.url.trim_start_matches("sqlite:").split('?').next().unwrap();
    let (refused, message) = import(database_file, "username,email\nd,d@x\n");
    assert!(refused == 74 && message.contains("it is a file of the database"), "{message}");
    // Standard output has the list alone.
    let csv = "username,email\nbad,bad\ne,e@x\n";
    let done = migrate_from(database, &["import", "-", "--format", "csv", "--skip-bad", "--bad-rows", "-"], csv);
    let listed = "line 2: email is not of the form name@domain: it has no @\n";
    assert_eq!((code(&done), String::from_utf8(done.stdout).unwrap()), (0, listed.to_owned()));
    assert_eq!(database.sql().texts("SELECT username FROM users"), ["b", "e"]);
}

fn a_list_of_bad_rows_does_not_replace_the_input(database: &Database) {
    migrated(database, &["up"]);
    let csv = "username,email\nbad,bad\n";
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let input = path("users.csv");
    fs::write(&input, csv).unwrap();
    std::os::unix::fs::symlink(&input, path("symbolic.csv")).unwrap();
    fs::hard_link(&input, path("hard.csv")).unwrap();
    for (file, list) in [
        (&*input, input.clone()),
        (&path("symbolic.csv"), input.clone()),
        (&input, path("./users.csv")),
        (&input, path("symbolic.csv")),
        (&input, path("hard.csv")),
        ("-", input.clone()),
    ] {
        let arguments = ["import", file, "--format", "csv", "--skip-bad", "--bad-rows", &list];
        let mut command = migrate_command(&arguments, &[("DATABASE_URL", &database.url)]);
        let done = command.stdin(fs::File::open(&input).unwrap()).output().unwrap();
        assert_eq!(fs::read_to_string(&input).unwrap(), csv, "{file} {list}");
        let message = "migrate: --bad-rows: it is the file to import; choose another one\n";
        assert_eq!((code(&done), stderr(&done)), (2, message.to_owned()), "{file} {list}");
    }
    // A device can be both.
    let arguments = ["import", "/dev/null", "--format", "ndjson", "--bad-rows", "/dev/null"];
    assert_eq!(migrated(database, &arguments), "0 users imported, 0 rows left out\n");
}

fn a_failed_list_of_bad_rows_does_not_hide_the_import(database: &Database) {
    migrated(database, &["up"]);
    let many = "bad,bad\n".repeat(100_000);
    let (imported, full) = ("1 user imported, 1 row left out\n", "the list could not be written: No space left");
    for (skip_bad, rows, expected, printed, message) in [
        (&["--skip-bad"][..], "bad,bad\na,a@x\n", 74, imported, &*format!("the rows are imported; {full}")),
        (&["--skip-bad"], &many, 74, "", "cannot write: No space left"),
        (&[], "bad,bad\nb,b@x\n", 65, "", "1 of 2 rows cannot be imported, so none was"),
        (&[], "bad,bad\nb,b@x\n", 65, "", full),
        (&[], &many, 65, "", full),
    ] {
        let arguments = [&["import", "-", "--format", "csv", "--bad-rows", "/dev/full"], skip_bad].concat();
        let done = migrate_from(database, &arguments, &format!("username,email\n{rows}"));
        let log = stderr(&done);
        assert_eq!((code(&done), String::from_utf8(done.stdout).unwrap()), (expected, printed.to_owned()), "{log}");
        assert!(log.contains(message), "{message}: {log}");
    }
    assert_eq!(database.sql().texts("SELECT username FROM users"), ["a"]);
}

fn a_list_of_bad_rows_without_a_reader_does_not_hide_the_import(database: &Database) {
    migrated(database, &["up"]);
    let folder = TempDir::new().unwrap();
    let (input, list) = (folder.path().join("users.csv"), folder.path().join("list"));
    fs::write(&input, "username,email\nbad,bad\na,a@x\n").unwrap();
    assert!(Command::new("mkfifo").arg(&list).status().unwrap().success());
    let arguments = ["import", input.to_str().unwrap(), "--skip-bad", "--bad-rows", list.to_str().unwrap()];
    let mut command = migrate_command(&arguments, &[("DATABASE_URL", &database.url)]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut sql = database.sql();
    eventually("the rows are imported", || sql.number("SELECT COUNT(*) FROM users") == 1);
    signal(&child, "TERM");
    let done = child.wait_with_output().unwrap();
    let log = stderr(&done);
    let imported = (143, "1 user imported, 1 row left out\n".to_owned());
    assert_eq!((code(&done), String::from_utf8(done.stdout).unwrap()), imported, "{log}");
    let message = "the rows are imported; the list could not be written: stopped by a signal\n";
    assert!(log.ends_with(message), "{log}");
}

/// Each batch of an import reports its bad rows.
fn a_broken_standard_error_changes_no_result(database: &Database) {
    migrated(database, &["up"]);
    let folder = TempDir::new().unwrap();
    let input = folder.path().join("users.csv");
    let rows = (0..3000).map(|n| if n % 50 == 0 { format!("n{n},bad\n") } else { format!("n{n},n{n}@x\n") });
    fs::write(&input, "username,email\n".to_owned() + &rows.collect::<String>()).unwrap();
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let import = ["import", input.to_str().unwrap()];
    let url = [("DATABASE_URL", &*database.url)];
    assert_eq!(migrate_command(&import, &url).stderr(full()).status().unwrap().code(), Some(65));
    let done = migrate_command(&[&import[..], &["--skip-bad"]].concat(), &url).stderr(full()).output().unwrap();
    assert_eq!((code(&done), String::from_utf8(done.stdout).unwrap().contains("2940 users imported")), (0, true));
    let mut web = Command::new(env!("CARGO_BIN_EXE_web"));
    assert_eq!(web.env_clear().stderr(full()).status().unwrap().code(), Some(78));
}

/// <https://no-color.org>
fn text_has_colours_only_on_a_terminal(database: &Database) {
    let run = |variables: &[(&str, &str)], terminal: bool| {
        migrated(database, &["up"]);
        migrated(database, &["down", "--yes"]);
        let environment = [&[("DATABASE_URL", &*database.url), ("LOG_FORMAT", "text")], variables].concat();
        let mut command: Command = migrate_command(&["up"], &environment);
        if terminal {
            let terminal = Terminal::attach(&mut command);
            let done = command.stdout(Stdio::null()).spawn().unwrap().wait().unwrap();
            drop(command);
            assert!(done.success());
            terminal.into_screen()
        } else {
            stderr(&command.output().unwrap())
        }
    };
    for (variables, terminal, is_coloured) in [
        (&[][..], true, true),
        (&[("NO_COLOR", "")], true, true),
        (&[("NO_COLOR", "1")], true, false),
        (&[("NO_COLOR", "false")], true, false),
        (&[], false, false),
    ] {
        let log = run(variables, terminal);
        assert!(log.contains("migration applied"), "{log}");
        assert_eq!(log.contains('\u{1b}'), is_coloured, "{variables:?}: {log:?}");
    }
}
