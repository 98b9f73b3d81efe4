//! XII. Admin processes: one-off tasks from the same release, against the same database.

mod commands;
mod files;
mod manual;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use libtest_mimic::Trial;
use roster::db::migrations::{self, LATEST};
use serde_json::{Value, json};

use crate::support::engine::{Database, Engine, Family, Server};
use crate::support::process::{
    Web, code, import_csv, migrate, migrate_command, migrate_from, migrated, signal, stderr, web_command,
};
use crate::support::resource::{FIRST, LATEST_QUERY, LATEST_TABLE, LISTING, RELATED, TABLES};
use crate::support::sql::Sql;
use crate::support::step_proxy::{Point, StepProxy};
use crate::support::{Tests, eventually, tests};

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!())
        .each(tests![
            eight_migrators_at_once_apply_each_migration_once,
            up_and_down_go_step_by_step,
            status_and_dry_run_change_nothing,
            failed_bookkeeping_is_finished_by_the_next_run,
            a_foreign_ledger_is_left_alone,
            a_ledger_of_another_form_is_left_alone,
            the_ledger_of_an_older_release_is_adopted,
            a_held_lock_is_reported_with_its_holder,
            a_locked_ledger_is_waited_for_in_short_attempts,
            a_changed_migration_is_refused,
            somebody_elses_table_is_left_alone,
            a_waiting_migrator_stops_at_a_signal,
            a_newer_releases_migration_is_not_reverted,
            seed_is_the_same_every_time,
            seed_stops_at_a_signal_and_continues,
            a_failed_seed_reports_its_own_work,
            export_and_import_are_inverse,
            import_is_all_or_nothing,
            import_names_each_bad_row,
            ids_continue_after_an_import,
            a_refused_import_uses_up_no_ids
        ])
        .on(
            &Engine::SERVERS,
            tests![
                a_kill_at_any_message_is_recovered,
                nothing_pending_needs_no_rights,
                an_unreadable_ledger_is_left_alone,
                an_unresponsive_server_is_reported,
                a_locked_table_is_waited_for_in_short_attempts,
                a_run_that_completes_after_a_signal_succeeds
            ],
        )
        // A task on a server is killed at each message instead.
        .on(&[Engine::Sqlite], tests![a_kill_within_the_transaction_is_recovered, nothing_pending_writes_nothing])
        .each(tests![files_that_cannot_be_used_are_named])
        .any(tests![tasks_ask_for_the_schema_first, web_may_migrate_and_seed_itself])
        .on(
            &Engine::MYSQL,
            tests![
                a_kill_never_adopts_a_foreign_table,
                a_repeated_statement_is_recognised,
                a_lock_before_the_record_is_waited_for,
                an_interrupted_statement_is_repeated
            ],
        )
        .on(&Engine::POSTGRES, tests![nothing_pending_succeeds_on_a_standby])
        .once(tests![latest_needs_no_database, help_names_every_command_and_exit_code])
        .and(commands::tests())
        .and(files::tests())
        .and(manual::tests())
        .trials()
}

/// Where each migration stands.
fn states(database: &Database) -> Vec<(i64, String)> {
    let status: Value = serde_json::from_str(&migrated(database, &["status", "--json"])).unwrap();
    let lines = status.as_array().unwrap().iter();
    lines.map(|line| (line["version"].as_i64().unwrap(), line["state"].as_str().unwrap().to_owned())).collect()
}

/// The states of all migrations but the last, and that of the last.
fn state(states: [&str; 2]) -> Vec<(i64, String)> {
    (1..=LATEST).map(|version| (version, states[usize::from(version == LATEST)].to_owned())).collect()
}

/// Applies all migrations but the last.
fn up_but_one(database: &Database) -> String {
    migrated(database, &["up", "--to", &(LATEST - 1).to_string()])
}

fn eight_migrators_at_once_apply_each_migration_once(database: &Database) {
    for round in 0..20 {
        if round > 0 {
            migrated(database, &["down", "--yes", "--to", "0"]);
        }
        let environment = [("DATABASE_URL", database.url.as_str())];
        let migrators: Vec<_> = (0..8)
            .map(|_| {
                let mut command = migrate_command(&["up"], &environment);
                command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        let done: Vec<_> = migrators.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
        assert!(done.iter().all(|done| done.status.success()), "round {round}: {done:?}");
        let logs: String = done.iter().map(stderr).collect();
        assert_eq!(
            logs.matches("\"migration applied\"").count(),
            usize::try_from(LATEST).unwrap(),
            "round {round}: {logs}"
        );
        assert_eq!(states(database), state(["applied", "applied"]));
    }
}

fn up_and_down_go_step_by_step(database: &Database) {
    assert_eq!(migrated(database, &["up", "--to", "1"]), "migration 1 applied\n");
    assert!(up_but_one(database).ends_with(" applied\n"));
    assert_eq!(states(database), state(["applied", "pending"]));
    assert_eq!(migrated(database, &["up"]), format!("migration {LATEST} applied\n"));
    assert_eq!(migrated(database, &["up"]), "nothing to do: no migration applied\n");
    migrated(database, &["seed"]);
    assert_eq!(migrated(database, &["down", "--yes"]), format!("migration {LATEST} reverted\n"));
    assert_eq!(states(database), state(["applied", "pending"]));
    assert_eq!(database.sql().number("SELECT COUNT(*) FROM users"), 2);
    assert_eq!(migrated(database, &["up"]), format!("migration {LATEST} applied\n"));
    assert_eq!(migrated(database, &["down", "--yes", "--to", "0"]), format!("migrations {LATEST} to 1 reverted\n"));
    let mut sql = database.sql();
    let is_left = |table: &&&str| !sql.refuses(&format!("SELECT COUNT(*) FROM {table}"));
    assert_eq!(TABLES.iter().find(is_left), None);
    assert_eq!(migrated(database, &["down", "--yes"]), "nothing to do: no migration reverted\n");
    assert_eq!(migrated(database, &["up"]), format!("migrations 1 to {LATEST} applied\n"));

    let next = LATEST + 1;
    let beyond = migrate(database, &["up", "--to", &next.to_string()]);
    assert_eq!(code(&beyond), 2);
    assert!(stderr(&beyond).contains(&format!("{next} is not in 1..={LATEST}")), "{}", stderr(&beyond));
}

fn status_and_dry_run_change_nothing(database: &Database) {
    assert_eq!(states(database), state(["pending", "pending"]));
    let planned = migrated(database, &["up", "--dry-run"]);
    assert!(planned.contains("-- 1 users\n") && planned.contains("CREATE TABLE friends"), "{planned}");
    assert!(!migrated(database, &["up", "--dry-run", "--to", "1"]).contains("CREATE TABLE friends"));
    assert_eq!(states(database), state(["pending", "pending"]));
    let tables = match database.engine.family() {
        Family::Sqlite => "SELECT COUNT(*) FROM sqlite_schema",
        Family::MySql => "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE()",
        Family::Postgres => "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'public'",
    };
    assert_eq!(database.sql().number(tables), 0);
    migrated(database, &["up"]);
    assert_eq!(migrated(database, &["up", "--dry-run"]), "");
    let shown = migrated(database, &["status"]);
    assert!(shown.starts_with("0001  users ") && shown.lines().all(|line| line.ends_with("  applied")), "{shown}");
}

/// Kills `up` and `down` at each message, before the server receives it and after the server answered. Then runs
/// either.
fn a_kill_at_any_message_is_recovered(database: &Database) {
    let mut kills = 0;
    for (task, next) in [("up", "up"), ("up", "down"), ("down", "down"), ("down", "up")] {
        for point in [Point::Before, Point::After] {
            for number in 0.. {
                if task == "down" {
                    migrated(database, &["up"]);
                }
                if !killed_at(database, task, point, number) {
                    assert!(number > 10, "{task}: only {number} messages");
                    break;
                }
                kills += 1;
                let of = format!("{task} killed {point:?} message {number}, then {next}");
                if next == "up" {
                    migrated(database, &["up"]);
                    assert_eq!(states(database), state(["applied", "applied"]), "{of}");
                    assert_eq!(database.sql().number("SELECT COUNT(*) FROM friends"), 0, "{of}");
                }
                migrated(database, &["down", "--yes", "--to", "0"]);
                assert_eq!(states(database), state(["pending", "pending"]), "{of}");
                assert!(database.sql().refuses("SELECT 1 FROM users"), "{of}");
            }
            migrated(database, &["down", "--yes", "--to", "0"]);
        }
    }
    assert!(kills > 80, "{kills} kills");
}

/// Runs a task, and kills it at a message to the server. False when it ended before that message.
fn killed_at(database: &Database, task: &str, point: Point, number: usize) -> bool {
    let proxy = StepProxy::start(database.socket(), point, move |message, _| message == number);
    let arguments: &[&str] = if task == "up" { &["up"] } else { &["down", "--yes", "--to", "0"] };
    let mut command = migrate_command(arguments, &[("DATABASE_URL", &database.url_at(proxy.port))]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut ended = None;
    eventually("it stops at the message, or ends", || {
        ended = child.try_wait().unwrap();
        // The last message is the end of the session, which has no answer.
        proxy.is_reached() || ended.is_some()
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(ended.is_none_or(|status| status.success()), "{task} failed before message {number}");
    ended.is_none()
}

/// SQLite has no server. A log pipe without a reader blocks the process within its transaction.
fn a_kill_within_the_transaction_is_recovered(database: &Database) {
    for arguments in [&["up"][..], &["down", "--yes", "--to", "0"]] {
        let before = states(database);
        let (reader, writer) = UnixStream::pair().unwrap();
        writer.set_nonblocking(true).unwrap();
        while (&writer).write_all(&[0; 64]).is_ok() {}
        writer.set_nonblocking(false).unwrap();
        let mut command = migrate_command(arguments, &[("DATABASE_URL", &database.url)]);
        let mut child = command.stdout(Stdio::null()).stderr(OwnedFd::from(writer)).spawn().unwrap();
        let mut sql = database.sql();
        sql.execute("PRAGMA busy_timeout = 0");
        eventually("it is within its transaction", || {
            let is_locked = sql.refuses("BEGIN IMMEDIATE");
            if !is_locked {
                sql.execute("ROLLBACK");
            }
            is_locked
        });
        child.kill().unwrap();
        child.wait().unwrap();
        drop((reader, sql));
        assert_eq!(states(database), before, "{arguments:?}");
        migrated(database, arguments);
    }
    migrated(database, &["up"]);
    assert_eq!(states(database), state(["applied", "applied"]));
}

/// A kill leaves a row in the ledger while a foreign table has the name of the migration's table.
fn a_kill_never_adopts_a_foreign_table(database: &Database) {
    database.sql().execute("CREATE TABLE users (name VARCHAR(10))");
    for number in 0.. {
        if !killed_before(database, number) {
            assert!(number > 10, "only {number} messages");
            break;
        }
        let refused = migrate(database, &["up"]);
        assert_eq!(code(&refused), 70, "killed before message {number}: {}", stderr(&refused));
        assert!(stderr(&refused).contains("already exists"), "{}", stderr(&refused));
        assert_eq!(states(database), state(["pending", "pending"]), "killed before message {number}");
    }
}

/// Runs `up`, which fails, and kills it before a message to the server. False when it ended before that message.
fn killed_before(database: &Database, number: usize) -> bool {
    let proxy = StepProxy::start(database.socket(), Point::Before, move |message, _| message == number);
    let mut command = migrate_command(&["up"], &[("DATABASE_URL", &database.url_at(proxy.port))]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("it stops at the message, or ends", || proxy.is_reached() || child.try_wait().unwrap().is_some());
    let is_killed = child.try_wait().unwrap().is_none();
    child.kill().unwrap();
    child.wait().unwrap();
    is_killed
}

/// The statement takes effect, and its record is refused.
fn failed_bookkeeping_is_finished_by_the_next_run(database: &Database) {
    up_but_one(database);
    let refuse = |event: &str| {
        let mut sql = database.sql();
        match database.engine.family() {
            Family::Sqlite => sql.execute(&format!(
                "CREATE TRIGGER refuse BEFORE {event} ON roster_migrations BEGIN SELECT RAISE(ABORT, 'refused'); END"
            )),
            Family::MySql => sql.execute(&format!(
                "CREATE TRIGGER refuse BEFORE {event} ON roster_migrations FOR EACH ROW \
                 SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'refused'"
            )),
            Family::Postgres => {
                sql.execute(
                    "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused'; END $$",
                );
                sql.execute(&format!(
                    "CREATE TRIGGER refuse BEFORE {event} ON roster_migrations FOR EACH ROW EXECUTE FUNCTION refuse()"
                ));
            }
        }
    };
    let allow = || {
        let of = if database.engine.family() == Family::Postgres { " ON roster_migrations" } else { "" };
        database.sql().execute(&format!("DROP TRIGGER refuse{of}"));
    };
    for (event, next) in [("INSERT", "up"), ("UPDATE", "up"), ("UPDATE", "down")] {
        refuse(event);
        let refused = migrate(database, &["up"]);
        assert_ne!(code(&refused), 0, "{event}");
        assert!(stderr(&refused).contains("refused"), "{}", stderr(&refused));
        allow();
        migrated(database, if next == "up" { &["up"] } else { &["down", "--yes"] });
        migrated(database, &["up"]);
        assert_eq!(states(database), state(["applied", "applied"]), "{event}, then {next}");
        assert_eq!(database.sql().number("SELECT COUNT(*) FROM friends"), 0);
        migrated(database, &["down", "--yes", "--to", &(LATEST - 1).to_string()]);
    }
    for (event, next) in [("DELETE", "down"), ("DELETE", "up")] {
        migrated(database, &["up"]);
        refuse(event);
        let refused = migrate(database, &["down", "--yes"]);
        assert_ne!(code(&refused), 0, "{event}");
        // If the ledger had a migration that has no effect, a process would be ready but fail requests.
        let is_served = Web::start(database, &[]).get("/readyz").status == 200;
        assert_eq!(is_served, !database.sql().refuses(LATEST_QUERY), "{event}");
        allow();
        migrated(database, if next == "up" { &["up"] } else { &["down", "--yes"] });
        let applied = if next == "up" { ["applied", "applied"] } else { ["applied", "pending"] };
        assert_eq!(states(database), state(applied), "{event}, then {next}");
        migrated(database, &["down", "--yes", "--to", &(LATEST - 1).to_string()]);
    }
}

/// Checks the error of each server for a statement that took effect before.
fn a_repeated_statement_is_recognised(database: &Database) {
    let mut sql = database.sql();
    sql.execute("CREATE TABLE parent (id BIGINT PRIMARY KEY)");
    sql.execute("CREATE TABLE child (id BIGINT, parent_id BIGINT, old BIGINT, gone BIGINT)");
    let drop_check = if database.engine == Engine::MariaDb { "CONSTRAINT" } else { "CHECK" };
    for statement in [
        "CREATE TABLE made (id BIGINT)",
        "ALTER TABLE child ADD COLUMN added BIGINT",
        "ALTER TABLE child ADD INDEX by_parent (parent_id)",
        "CREATE UNIQUE INDEX by_id ON child (id)",
        "ALTER TABLE child ADD PRIMARY KEY (id)",
        "ALTER TABLE child ADD CONSTRAINT child_parent FOREIGN KEY (parent_id) REFERENCES parent (id)",
        "ALTER TABLE child ADD CONSTRAINT child_positive CHECK (old > 0)",
        "ALTER TABLE child RENAME INDEX by_id TO by_identity",
        &format!("ALTER TABLE child DROP {drop_check} child_positive"),
        "ALTER TABLE child RENAME COLUMN old TO new",
        "ALTER TABLE child DROP COLUMN gone",
        "CREATE VIEW seen AS SELECT id FROM child",
        "CREATE TRIGGER fires BEFORE INSERT ON child FOR EACH ROW SET NEW.id = NEW.id",
        "CREATE PROCEDURE called() SELECT 1",
        "RENAME TABLE made TO named",
        "ALTER TABLE named RENAME TO renamed",
        "DROP PROCEDURE called",
        "DROP TRIGGER fires",
        "DROP VIEW seen",
        "ALTER TABLE child DROP FOREIGN KEY child_parent",
        "ALTER TABLE child DROP INDEX by_parent",
        "DROP TABLE renamed",
    ] {
        sql.execute(statement);
        let error = sql.error(statement).unwrap_or_else(|| panic!("repeated, it succeeds: {statement}"));
        assert!(migrations::reports_done(&error), "{statement}: {error}");
    }
    // A statement that fails by itself reports something else.
    for statement in [
        "CREATE TABLE broken (id NOTYPE)",
        "ALTER TABLE child ADD CONSTRAINT other FOREIGN KEY (new) REFERENCES parent (missing)",
        "CREATE TABLE broken (id BIGINT, FOREIGN KEY (id) REFERENCES missing (id))",
    ] {
        let error = sql.error(statement).unwrap();
        assert!(!migrations::reports_done(&error), "{statement}: {error}");
    }
}

/// Another application that uses sqlx has its ledger in the same database.
fn a_foreign_ledger_is_left_alone(database: &Database) {
    migrated(database, &["up"]);
    // It has the columns of sqlx's ledger.
    database.sql().execute("CREATE TABLE _sqlx_migrations AS SELECT * FROM roster_migrations");
    migrated(database, &["down", "--yes", "--to", "0"]);
    database.sql().execute("DROP TABLE roster_migrations");
    database.sql().execute("UPDATE _sqlx_migrations SET description = 'theirs'");
    database.sql().execute("UPDATE _sqlx_migrations SET version = 20240101000000 WHERE version = 2");
    let theirs = || database.sql().texts("SELECT description FROM _sqlx_migrations ORDER BY version");

    let web = Web::start(database, &[]);
    assert_eq!(web.get("/readyz").status, 503, "{}", web.get("/readyz").body);
    assert_eq!(states(database), state(["pending", "pending"]));
    assert_eq!(migrated(database, &["up"]), format!("migrations 1 to {LATEST} applied\n"));
    assert_eq!(web.get("/readyz").status, 200);
    assert_eq!(migrated(database, &["down", "--yes", "--to", "0"]), format!("migrations {LATEST} to 1 reverted\n"));
    assert_eq!(migrated(database, &["down", "--yes"]), "nothing to do: no migration reverted\n");
    assert!(theirs().iter().all(|description| description == "theirs"));
    assert_eq!(theirs().len(), usize::try_from(LATEST).unwrap());
}

/// Another application has a ledger with the same name and the same columns, but other types.
fn a_ledger_of_another_form_is_left_alone(database: &Database) {
    database.sql().execute(
        "CREATE TABLE _sqlx_migrations (version VARCHAR(20), description INT, installed_on VARCHAR(20), \
         success VARCHAR(5), checksum INT, execution_time VARCHAR(5))",
    );
    database.sql().execute("INSERT INTO _sqlx_migrations VALUES ('v1', 7, 'today', 'no', 1, 'long')");
    assert_eq!(states(database), state(["pending", "pending"]));
    assert_eq!(migrated(database, &["up"]), format!("migrations 1 to {LATEST} applied\n"));
    assert_eq!(states(database), state(["applied", "applied"]));
    assert_eq!(database.sql().texts("SELECT version FROM _sqlx_migrations"), ["v1"]);
}

/// The ledger of another application is not readable for the user of this one. But the ledger of an earlier release
/// has to be.
fn an_unreadable_ledger_is_left_alone(database: &Database) {
    let server = Server::start(database.engine);
    let mut admin = server.admin();
    admin.execute("CREATE DATABASE app");
    let url = server.url("app");
    let up = migrate_command(&["up"], &[("DATABASE_URL", &url)]).output().unwrap();
    assert_eq!(code(&up), 0, "{}", stderr(&up));
    let mut app = Sql::connect(&url);
    app.execute("ALTER TABLE roster_migrations RENAME TO _sqlx_migrations");
    if database.engine.family() == Family::MySql {
        admin.execute("CREATE USER limited IDENTIFIED BY 'word'");
        admin.execute("GRANT CREATE, ALTER, DROP, INDEX, REFERENCES ON app.* TO limited");
        for table in TABLES.iter().copied().chain(["roster_migrations", "roster_migrations_new"]) {
            admin.execute(&format!("GRANT CREATE, SELECT, INSERT, UPDATE, DELETE ON app.{table} TO limited"));
        }
    } else {
        admin.execute("CREATE ROLE limited LOGIN PASSWORD 'word'");
        app.execute("GRANT CREATE, USAGE ON SCHEMA public TO limited");
        app.execute(&format!("GRANT SELECT ON {} TO limited", TABLES.join(", ")));
    }
    let limited = server.url_of("limited:word", "app");
    let run = |arguments: &[&str]| migrate_command(arguments, &[("DATABASE_URL", &limited)]).output().unwrap();
    for arguments in [&["up"][..], &["status"], &["down", "--yes"]] {
        let refused = run(arguments);
        assert_eq!(code(&refused), 70, "{arguments:?}: {}", stderr(&refused));
        assert!(stderr(&refused).contains("grant SELECT on it to the user of DATABASE_URL"), "{}", stderr(&refused));
    }
    for table in TABLES {
        app.execute(&format!("DROP TABLE {table}"));
    }
    let done = run(&["up"]);
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    assert_eq!(String::from_utf8(done.stdout).unwrap(), format!("migrations 1 to {LATEST} applied\n"));
    assert_eq!(app.number("SELECT COUNT(*) FROM _sqlx_migrations"), LATEST);
}

fn the_ledger_of_an_older_release_is_adopted(database: &Database) {
    let web = Web::seeded(database);
    database.sql().execute("ALTER TABLE roster_migrations RENAME TO _sqlx_migrations");
    // `status` and the dry run read it before it is adopted.
    assert_eq!(states(database), state(["applied", "applied"]));
    assert_eq!(migrated(database, &["up", "--dry-run"]), "");
    assert_eq!(web.get("/readyz").status, 503);

    assert_eq!(migrated(database, &["up"]), "nothing to do: no migration applied\n");
    assert_eq!(states(database), state(["applied", "applied"]));
    assert_eq!(web.get("/readyz").status, 200);
    assert_eq!(web.all(LISTING).len(), 2);
    // The old ledger is kept for a roll back.
    assert_eq!(database.sql().number("SELECT COUNT(*) FROM _sqlx_migrations"), LATEST);
    // A reverted migration is not adopted again.
    assert_eq!(migrated(database, &["down", "--yes", "--to", "0"]), format!("migrations {LATEST} to 1 reverted\n"));
    assert_eq!(states(database), state(["pending", "pending"]));
    assert_eq!(migrated(database, &["up"]), format!("migrations 1 to {LATEST} applied\n"));
}

/// Runs `up` with nothing pending.
fn up_without_migrations(url: &str) {
    let done = migrate_command(&["up"], &[("DATABASE_URL", url)]).output().unwrap();
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    assert_eq!(String::from_utf8(done.stdout).unwrap(), "nothing to do: no migration applied\n");
}

fn nothing_pending_writes_nothing(database: &Database) {
    migrated(database, &["up"]);
    up_without_migrations(&database.url.replace("mode=rwc", "mode=ro"));
}

/// With nothing pending, `up` only reads.
fn nothing_pending_needs_no_rights(database: &Database) {
    let server = Server::start(database.engine);
    let mut admin = server.admin();
    admin.execute("CREATE DATABASE app");
    let url = server.url("app");
    assert_eq!(code(&migrate_command(&["up"], &[("DATABASE_URL", &url)]).output().unwrap()), 0);
    if database.engine.family() == Family::MySql {
        admin.execute("CREATE USER reader IDENTIFIED BY 'word'");
        admin.execute("GRANT SELECT ON app.* TO reader");
        admin.execute("SET GLOBAL read_only = 1");
    } else {
        admin.execute("CREATE ROLE reader LOGIN PASSWORD 'word'");
        Sql::connect(&url).execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader");
        admin.execute("ALTER DATABASE app SET default_transaction_read_only = on");
    }
    up_without_migrations(&server.url_of("reader:word", "app"));

    // A default of the server is respected, and named.
    let setting = match database.engine {
        Engine::Sqlite => unreachable!("it has no server"),
        Engine::MariaDb => "tx_read_only",
        Engine::MySql => "transaction_read_only",
        Engine::Postgres | Engine::Postgres18 => "default_transaction_read_only",
    };
    if database.engine.family() == Family::MySql {
        admin.execute("SET GLOBAL read_only = 0");
        admin.execute(&format!("SET GLOBAL {setting} = 1"));
    }
    up_without_migrations(&url);
    let refused = migrate_command(&["seed"], &[("DATABASE_URL", &url)]).output().unwrap();
    assert_eq!(code(&refused), 69, "{}", stderr(&refused));
    assert!(stderr(&refused).contains(setting), "{}", stderr(&refused));
    assert_eq!(Web::start_at(&url, &[]).get(LISTING).status, 200);
}

fn nothing_pending_succeeds_on_a_standby(database: &Database) {
    let mut server = Server::start(database.engine);
    server.admin().execute("CREATE DATABASE app");
    let url = server.url("app");
    let up = || migrate_command(&["up"], &[("DATABASE_URL", &url)]).output().unwrap();
    assert_eq!(code(&up()), 0);
    server.admin().execute("CHECKPOINT");
    server.kill();
    server.become_standby();
    server.run();
    assert_eq!(Sql::connect(&url).texts("SELECT pg_is_in_recovery()::text"), ["true"]);
    let done = up();
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    assert_eq!(Web::start_at(&url, &[]).get("/readyz").status, 200);
}

/// The port accepts connections and never responds: a wrong port, or a server that hangs.
fn an_unresponsive_server_is_reported(database: &Database) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let silent = database.url_at(port);
    let mut command = migrate_command(&["up"], &[("DATABASE_URL", &silent)]);
    let mut waiting = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let connection = listener.accept().unwrap();
    let mut stopped = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let other = listener.accept().unwrap();
    signal(&stopped, "TERM");
    eventually("it stops at the signal", || stopped.try_wait().unwrap().is_some());
    let done = stopped.wait_with_output().unwrap();
    assert_eq!(code(&done), 143, "{}", stderr(&done));
    assert!(stderr(&done).contains("stopped before the database answered"), "{}", stderr(&done));

    let environment = [("DATABASE_URL", silent.as_str()), ("AUTO_MIGRATE", "true"), ("PORT", "0")];
    let mut web = web_command(&environment).stdout(Stdio::null()).spawn().unwrap();
    let third = listener.accept().unwrap();
    signal(&web, "TERM");
    eventually("it stops at the signal", || web.try_wait().unwrap().is_some());
    assert_eq!(web.wait().unwrap().code(), Some(0));

    eventually("it gives up", || waiting.try_wait().unwrap().is_some());
    let done = waiting.wait_with_output().unwrap();
    assert_eq!(code(&done), 69, "{}", stderr(&done));
    let reported = format!("cannot connect to the database at 127.0.0.1:{port}: no response within 10 s");
    assert!(stderr(&done).contains(&reported), "{}", stderr(&done));
    drop((connection, other, third));
}

/// Takes the lock of migrations on a connection of the test's own. Returns also how this session is reported.
fn hold_lock(database: &Database) -> (Sql, String) {
    let mut holder = database.sql();
    let session = match database.engine.family() {
        Family::Sqlite => {
            holder.execute("BEGIN IMMEDIATE");
            "the engine does not report it".to_owned()
        }
        Family::MySql => {
            holder.execute("SELECT GET_LOCK(CONCAT('roster ', SHA2(DATABASE(), 224)), 0)");
            format!("connection {}, user root", holder.number("SELECT CAST(CONNECTION_ID() AS SIGNED)"))
        }
        Family::Postgres => {
            let key = "roster".bytes().fold(0, |key: i64, byte| key.rotate_left(8) ^ i64::from(byte));
            holder.execute(&format!("SELECT pg_advisory_lock({key})"));
            format!("process {}, user postgres", holder.number("SELECT pg_backend_pid()::bigint"))
        }
    };
    (holder, session)
}

fn a_held_lock_is_reported_with_its_holder(database: &Database) {
    let (holder, session) = hold_lock(database);
    let refused = migrate(database, &["up", "--lock-timeout", "1"]);
    assert_eq!(code(&refused), 69, "{}", stderr(&refused));
    let reported = stderr(&refused);
    assert!(reported.contains("the migration lock is still held by another session after 1 s: "), "{reported}");
    assert_eq!(reported.matches(&session).count(), 2, "in the log and in the error: {reported}");
    assert!(reported.contains("waiting for a lock of another session"), "{reported}");
    drop(holder);
    migrated(database, &["up"]);
}

/// A statement that waits for a table lock would block all later statements on the table.
fn a_locked_table_is_waited_for_in_short_attempts(database: &Database) {
    migrated(database, &["up"]);
    let mut lock = database.sql();
    match database.engine.family() {
        Family::Sqlite => unreachable!("it has no server"),
        Family::Postgres => lock.execute(&format!("BEGIN; LOCK TABLE {LATEST_TABLE}")),
        Family::MySql => lock.execute(&format!("LOCK TABLES {LATEST_TABLE} READ")),
    }
    let refused = migrate(database, &["down", "--yes", "--lock-timeout", "1"]);
    assert_eq!(code(&refused), 69, "{}", stderr(&refused));
    assert!(stderr(&refused).contains("a table lock is still held by another session after "), "{}", stderr(&refused));

    let mut command = migrate_command(&["down", "--yes"], &[("DATABASE_URL", &database.url)]);
    let mut stopped = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(stopped.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("waiting for a lock of another session")));
    signal(&stopped, "TERM");
    eventually("it stops at the signal", || stopped.try_wait().unwrap().is_some());
    assert_eq!(stopped.wait().unwrap().code(), Some(143));
    assert_eq!(states(database), state(["applied", "applied"]));
    drop(lock);
    assert_eq!(migrated(database, &["down", "--yes"]), format!("migration {LATEST} reverted\n"));
    assert_eq!(states(database), state(["applied", "pending"]));
}

/// Another session locks the ledger itself. Every command reads it first.
fn a_locked_ledger_is_waited_for_in_short_attempts(database: &Database) {
    up_but_one(database);
    let mut lock = database.sql();
    match database.engine.family() {
        // With the write-ahead log, a writer would not block readers.
        Family::Sqlite => {
            lock.execute("PRAGMA journal_mode = DELETE");
            lock.execute("BEGIN EXCLUSIVE");
        }
        Family::MySql => lock.execute("LOCK TABLES roster_migrations WRITE"),
        Family::Postgres => lock.execute("BEGIN; LOCK TABLE roster_migrations"),
    }
    let refused = migrate(database, &["up", "--lock-timeout", "1"]);
    assert_eq!(code(&refused), 69, "{}", stderr(&refused));
    assert!(stderr(&refused).contains("is still held by another session after "), "{}", stderr(&refused));

    let environment = [("DATABASE_URL", database.url.as_str()), ("AUTO_MIGRATE", "true"), ("PORT", "0")];
    let mut web = web_command(&environment);
    web.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut runs = vec![(web, 0)];
    for arguments in [
        &["up"][..],
        &["up", "--dry-run"],
        &["down", "--yes"],
        &["status"],
        &["seed"],
        &["import", "-", "--format", "csv"],
    ] {
        let mut command = migrate_command(arguments, &environment);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        runs.push((command, 143));
    }
    for (mut command, code) in runs {
        let mut child = command.spawn().unwrap();
        let log: Box<dyn std::io::Read> = match child.stdout.take() {
            Some(output) => Box::new(output),
            None => Box::new(child.stderr.take().unwrap()),
        };
        let mut lines = BufReader::new(log).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains("waiting for a lock of another session")), "{command:?}");
        signal(&child, "TERM");
        eventually("it stops at the signal", || child.try_wait().unwrap().is_some());
        assert_eq!(child.wait().unwrap().code(), Some(code), "{command:?}");
    }
    drop(lock);
    assert_eq!(states(database), state(["applied", "pending"]));
    migrated(database, &["up"]);
}

/// The ledger is locked between the statement of a migration and its record.
fn a_lock_before_the_record_is_waited_for(database: &Database) {
    up_but_one(database);
    for (arguments, record, done) in [
        (&["up"][..], &b"UPDATE roster_migrations"[..], format!("migration {LATEST} applied\n")),
        (&["down", "--yes"], b"DELETE FROM roster_migrations", format!("migration {LATEST} reverted\n")),
    ] {
        let is_chosen = move |_, message: &[u8]| message.windows(record.len()).any(|bytes| bytes == record);
        let proxy = StepProxy::start(database.socket(), Point::Before, is_chosen);
        let mut command = migrate_command(arguments, &[("DATABASE_URL", &database.url_at(proxy.port))]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        eventually("the record follows", || proxy.is_reached());
        let mut lock = database.sql();
        lock.execute("LOCK TABLES roster_migrations READ");
        proxy.release();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains("waiting for a lock of another session")));
        drop(lock);
        let output = child.wait_with_output().unwrap();
        assert_eq!(code(&output), 0, "{:?}", lines.collect::<Vec<_>>());
        assert_eq!(String::from_utf8(output.stdout).unwrap(), done);
    }
}

/// The signal arrives while the last migration runs, so the run completes.
fn a_run_that_completes_after_a_signal_succeeds(database: &Database) {
    up_but_one(database);
    // CREATE TABLE, or ALTER TABLE.
    let statement = format!("TABLE {LATEST_TABLE}").into_bytes();
    let is_chosen = move |_, message: &[u8]| message.windows(statement.len()).any(|bytes| bytes == statement);
    let proxy = StepProxy::start(database.socket(), Point::Before, is_chosen);
    let mut command = migrate_command(&["up"], &[("DATABASE_URL", &database.url_at(proxy.port))]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("the last migration runs", || proxy.is_reached());
    assert!(proxy.messages() > 5);
    signal(&child, "TERM");
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("stopping")));
    proxy.release();
    let done = child.wait_with_output().unwrap();
    assert_eq!(code(&done), 0);
    assert_eq!(String::from_utf8(done.stdout).unwrap(), format!("migration {LATEST} applied\n"));
}

fn a_changed_migration_is_refused(database: &Database) {
    up_but_one(database);
    database.sql().execute(match database.engine.family() {
        Family::Postgres => "UPDATE roster_migrations SET checksum = '\\x00'",
        Family::Sqlite | Family::MySql => "UPDATE roster_migrations SET checksum = x'00'",
    });
    let refused = migrate(database, &["up"]);
    assert_eq!(code(&refused), 70);
    assert!(stderr(&refused).contains("migration 1 was changed after it had been applied"), "{}", stderr(&refused));
    assert_eq!(states(database), state(["modified", "pending"]));
}

/// A table that a migration did not make is neither used nor touched, however often one tries.
fn somebody_elses_table_is_left_alone(database: &Database) {
    database.sql().execute("CREATE TABLE users (name VARCHAR(10))");
    database.sql().execute("INSERT INTO users (name) VALUES ('theirs')");
    for _ in 0..2 {
        let refused = migrate(database, &["up"]);
        assert_eq!(code(&refused), 70);
        assert!(stderr(&refused).contains("migration 1 failed and was undone: "), "{}", stderr(&refused));
        assert!(stderr(&refused).contains("already exists"), "{}", stderr(&refused));
        assert_eq!(states(database), state(["pending", "pending"]));
    }
    assert_eq!(database.sql().texts("SELECT name FROM users"), ["theirs"]);
}

/// What a kill at each point leaves behind, on the engine whose migrations are no transactions.
fn an_interrupted_statement_is_repeated(database: &Database) {
    let interrupt = &format!("UPDATE roster_migrations SET success = FALSE WHERE version = {LATEST}");
    migrated(database, &["up"]);
    let undo = &migrated(database, &["down", "--dry-run"]);
    let marked = || {
        let tables = "FROM information_schema.tables WHERE table_schema = DATABASE()";
        let mark = format!("table_name = '{LATEST_TABLE}' AND table_comment = 'a mark'");
        database.sql().number(&format!("SELECT COUNT(*) {tables} AND {mark}"))
    };
    database.sql().execute(&format!("ALTER TABLE {LATEST_TABLE} COMMENT 'a mark'"));

    // Killed after the statement of `up`, or before that of `down`: the table is kept.
    database.sql().execute(interrupt);
    assert_eq!(states(database), state(["applied", "interrupted"]));
    assert!(migrated(database, &["status"]).contains("interrupted: run `migrate up` to finish it"));
    assert_eq!(migrated(database, &["up"]), format!("migration {LATEST} applied\n"));
    assert_eq!(marked(), 1);

    // Killed before the statement of `up`, or after that of `down`.
    database.sql().execute(interrupt);
    database.sql().execute(undo);
    assert_eq!(migrated(database, &["up"]), format!("migration {LATEST} applied\n"));
    assert!(!database.sql().refuses(LATEST_QUERY));

    // The same, then `down`.
    database.sql().execute(interrupt);
    assert_eq!(migrated(database, &["down", "--yes"]), format!("migration {LATEST} reverted\n"));
    migrated(database, &["up"]);
    database.sql().execute(interrupt);
    database.sql().execute(undo);
    assert_eq!(migrated(database, &["down", "--yes"]), format!("migration {LATEST} reverted\n"));
    assert_eq!(states(database), state(["applied", "pending"]));
}

fn a_waiting_migrator_stops_at_a_signal(database: &Database) {
    let (holder, _) = hold_lock(database);
    let mut command = migrate_command(&["up"], &[("DATABASE_URL", &database.url)]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("waiting for a lock of another session")));
    signal(&child, "TERM");
    eventually("it stops", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(143));
    drop(holder);
    assert_eq!(states(database), state(["pending", "pending"]));
}

fn a_newer_releases_migration_is_not_reverted(database: &Database) {
    migrated(database, &["up"]);
    database.sql().execute(
        "INSERT INTO roster_migrations (version, description, success, checksum, execution_time) VALUES (9, 'later', TRUE, '', 0)",
    );
    let refused = migrate(database, &["down", "--yes"]);
    assert_eq!(code(&refused), 70);
    assert!(stderr(&refused).contains("migration 9 belongs to a newer release"), "{}", stderr(&refused));
    assert_eq!(states(database).last().unwrap(), &(9, "newer".to_owned()));
}

fn seed_is_the_same_every_time(database: &Database) {
    migrated(database, &["up"]);
    migrated(database, &["seed", "50"]);
    let web = Web::start(database, &[]);
    let (first, friends) = (web.get(LISTING).body, web.get(RELATED).body);
    assert_eq!(migrated(database, &["seed", "50"]), "50 sample users in place\n");
    assert_eq!(migrated(database, &["seed"]), "2 sample users in place\n");
    assert_eq!(web.get(LISTING).body, first);
    assert_eq!(web.get(RELATED).body, friends);
    assert!(friends.len() > 100, "{friends}");

    // A user of one's own who has a sample's address keeps it.
    migrated(database, &["down", "--yes", "--to", "0"]);
    migrated(database, &["up"]);
    database.sql().execute("INSERT INTO users (username, email) VALUES ('mine', 'ADMIN@example.com')");
    migrated(database, &["seed", "50"]);
    assert_eq!(web.get(FIRST).json()["username"], "mine");
    assert_eq!(web.all(LISTING).len(), 50);
}

fn seed_stops_at_a_signal_and_continues(database: &Database) {
    migrated(database, &["up"]);
    let mut command = migrate_command(&["seed", "1000000"], &[("DATABASE_URL", &database.url)]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut sql = database.sql();
    eventually("it has begun", || sql.number("SELECT COUNT(*) FROM users") > 0);
    signal(&child, "INT");
    eventually("it stops", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let users = sql.number("SELECT COUNT(*) FROM users");
    assert!(users % 5000 == 0 && users < 1_000_000, "whole batches: {users}");
    let mut printed = String::new();
    child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    let expected = format!(
        "stopped: this run processed {users} of 1000000 sample users and inserted {users}; \
         run `migrate seed 1000000` again to continue\n"
    );
    assert_eq!(printed, expected);
    migrated(database, &["seed", &(users + 10).to_string()]);
    assert_eq!(sql.number("SELECT COUNT(*) FROM users"), users + 10);
}

fn a_failed_seed_reports_its_own_work(database: &Database) {
    migrated(database, &["up"]);
    migrated(database, &["seed", "200"]);
    database.sql().execute("DROP TABLE friends");
    let failed = migrate(database, &["seed", "200"]);
    let expected =
        "; this run processed 0 of 200 sample users and inserted 0; run `migrate seed 200` again to continue\n";
    assert!(code(&failed) == 75 && stderr(&failed).ends_with(expected), "{}", stderr(&failed));
}

fn export_and_import_are_inverse(database: &Database) {
    migrated(database, &["up"]);
    let odd = "id,username,email\r\n7,\"a \"\"quoted\"\" name, with comma\",a@example.com\r\n9,=1+1,b@example.com\r\n12,日本 é,c@example.com\r\n";
    let done = import_csv(database, odd);
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    assert_eq!(migrated(database, &["export", "-", "--format", "csv"]), odd);

    let folder = tempfile::tempdir().unwrap();
    for name in ["users.csv", "users.ndjson"] {
        let file = folder.path().join(name);
        let file = file.to_str().unwrap();
        assert_eq!(migrated(database, &["export", file]), "3 users exported\n");
        migrated(database, &["down", "--yes", "--to", "0"]);
        migrated(database, &["up"]);
        assert_eq!(migrated(database, &["import", file]), "3 users imported, 0 rows left out\n");
        assert_eq!(migrated(database, &["export", "-", "--format", "csv"]), odd);
    }
    let ndjson = fs::read_to_string(folder.path().join("users.ndjson")).unwrap();
    let second: Value = serde_json::from_str(ndjson.lines().nth(1).unwrap()).unwrap();
    assert_eq!(second, json!({"id": 9, "username": "=1+1", "email": "b@example.com"}));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing partial is left");
}

/// A file of ten thousand rows, of which the 7,000th has the address of the 12th.
fn ten_thousand_marked() -> String {
    let row = |n: usize| format!("u{n},u{}@example.com\n", if n == 7000 { 12 } else { n });
    "username,email\n".to_owned() + &(1..=10_000).map(row).collect::<String>()
}

fn import_is_all_or_nothing(database: &Database) {
    migrated(database, &["up"]);
    let mut sql = database.sql();
    let refused = import_csv(database, &ten_thousand_marked());
    assert_eq!(code(&refused), 65);
    let told = stderr(&refused);
    assert!(told.contains("line 7001: email is taken, in the table or by an earlier line\n"), "{told}");
    assert!(told.contains("1 of 10000 rows cannot be imported, so none was"), "{told}");
    assert!(!told.contains('@'), "{told}");
    assert_eq!(sql.number("SELECT COUNT(*) FROM users"), 0);

    let done = migrate_from(database, &["import", "-", "--format", "csv", "--skip-bad"], &ten_thousand_marked());
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    assert_eq!(String::from_utf8(done.stdout.clone()).unwrap(), "9999 users imported, 1 row left out\n");
    assert!(stderr(&done).contains("line 7001: "));
    assert_eq!(sql.number("SELECT COUNT(*) FROM users"), 9999);

    // Everyone is there now, so everyone is refused, each by name of the line.
    let again = import_csv(database, "username,email\nu1,new@example.com\nnew,u2@example.com\n");
    assert_eq!(code(&again), 65);
    assert!(stderr(&again).contains("line 2: username is taken"), "{}", stderr(&again));
    assert!(stderr(&again).contains("line 3: email is taken"), "{}", stderr(&again));
}

fn import_names_each_bad_row(database: &Database) {
    migrated(database, &["up"]);
    let long = "x".repeat(121);
    let csv = format!(
        "email,username,id\na@x,a,1\nb@x,b,1\nc@x,c\n,d,\ne@x,,\nx,f,\ng@x,\"g\u{7}\",\nh@x,h,zero\ni@x,i,0\n{long}@x,j,\nk@x,k,\n"
    );
    let done = migrate_from(database, &["import", "-", "--format", "csv", "--skip-bad"], &csv);
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    let told = stderr(&done);
    let reasons: BTreeMap<u32, &str> = told
        .lines()
        .filter_map(|line| line.strip_prefix("line ")?.split_once(": "))
        .map(|(line, reason)| (line.parse().unwrap(), reason))
        .collect();
    let expected = BTreeMap::from([
        (3, "id is taken, in the table or by an earlier line"),
        (4, "number of fields: expected 3 as in the header, got 2"),
        (5, "email is empty"),
        (6, "username is empty"),
        (7, "email is not of the form name@domain: it has no @"),
        (8, "username has a control character (U+0007)"),
        (9, "id does not consist of the digits 0 to 9"),
        (10, "id is below 1"),
        (11, "email has 123 characters, 120 at most"),
    ]);
    assert_eq!(reasons, expected);
    assert_eq!(database.sql().texts("SELECT username FROM users ORDER BY id"), ["a", "k"]);

    let ndjson = "{\"username\":\"l\",\"email\":\"l@x\"}\n\n{\"username\":\"m\"}\nnonsense\n{\"username\":\"n\",\"email\":\"n@x\",\"admin\":true}\n";
    let refused = migrate_from(database, &["import", "-", "--format", "ndjson"], ndjson);
    assert_eq!(code(&refused), 65);
    for reason in [
        "line 3: email is missing",
        "line 4: it is not valid JSON (column 2)",
        "line 5: it has a member other than id, username and email",
    ] {
        assert!(stderr(&refused).contains(reason), "{}", stderr(&refused));
    }
    assert_eq!(database.sql().number("SELECT COUNT(*) FROM users"), 2);
}

fn ids_continue_after_an_import(database: &Database) {
    migrated(database, &["up"]);
    let done = import_csv(database, "id,username,email\n41,a,a@x\n");
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    let done = import_csv(database, "username,email\nb,b@x\n");
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    assert_eq!(database.sql().number("SELECT id FROM users WHERE username = 'b'"), 42);
}

/// An engine's counter of ids outlives a transaction that is rolled back, so the highest id there is
/// must never reach it.
fn a_refused_import_uses_up_no_ids(database: &Database) {
    migrated(database, &["up"]);
    let highest = format!("id,username,email\n{},a,a@x\n,b,b@x\n1,c,\n", i64::MAX);
    let refused = import_csv(database, &highest);
    assert_eq!(code(&refused), 65, "{}", stderr(&refused));
    let done = import_csv(database, "username,email\nd,d@x\n");
    assert_eq!(code(&done), 0, "{}", stderr(&done));
}

fn files_that_cannot_be_used_are_named(database: &Database) {
    migrated(database, &["up"]);
    for (arguments, expected, reason) in [
        (&["import", "/no/such.csv"][..], 66, "cannot open /no/such.csv"),
        (&["import", "-"], 2, "pass --format csv or --format ndjson"),
        (&["export", "users.txt"], 2, "pass --format csv or --format ndjson"),
        (&["export", "/no/such/users.csv"], 74, "cannot write /no/such/users.csv: No such file"),
    ] {
        let refused = migrate(database, arguments);
        assert_eq!(code(&refused), expected, "{arguments:?}: {}", stderr(&refused));
        assert!(stderr(&refused).contains(reason), "{}", stderr(&refused));
    }
    for (input, reason) in [
        ("", "line 1: the file is empty"),
        ("username\na\n", "email is missing"),
        ("username,email,password\na,a@x,p\n", "password is not a column"),
    ] {
        let refused = import_csv(database, input);
        assert_eq!(code(&refused), 65, "{}", stderr(&refused));
        assert!(stderr(&refused).contains(reason), "{}", stderr(&refused));
    }
}

fn tasks_ask_for_the_schema_first(database: &Database) {
    for arguments in [&["seed"][..], &["export", "-", "--format", "csv"], &["import", "-", "--format", "csv"]] {
        let refused = migrate(database, arguments);
        assert_eq!(code(&refused), 75, "{arguments:?}");
        assert!(stderr(&refused).contains("run `migrate up` first"), "{}", stderr(&refused));
    }
}

/// What `cargo run` does in a fresh clone.
fn web_may_migrate_and_seed_itself(database: &Database) {
    let environment = [("AUTO_MIGRATE", "true"), ("AUTO_SEED", "20")];
    let web = Web::start(database, &environment);
    assert_eq!(web.all(LISTING).len(), 20);
    database.sql().execute("DELETE FROM users WHERE id > 5");
    // A table that has users is not seeded again.
    assert_eq!(Web::start(database, &environment).all(LISTING).len(), 5);
}

/// `bin/release` asks an image for it, without a configuration and without a network.
fn latest_needs_no_database() {
    for environment in [&[][..], &[("DATABASE_URL", "not a URL")]] {
        let latest = migrate_command(&["latest"], environment).output().unwrap();
        assert_eq!(code(&latest), 0, "{}", stderr(&latest));
        assert_eq!(String::from_utf8(latest.stdout).unwrap(), format!("{LATEST}\n"));
        assert!(latest.stderr.is_empty());
    }
}

fn help_names_every_command_and_exit_code() {
    let help = migrate_command(&["--help"], &[]).output().unwrap();
    assert_eq!(code(&help), 0);
    let help = String::from_utf8(help.stdout).unwrap();
    for word in [
        "up", "down", "status", "latest", "seed", "import", "export", "1", "2", "3", "4", "5", "6", "65", "66", "69",
        "70", "74", "75", "78", "130", "141", "143",
    ] {
        assert!(help.contains(&format!("\n  {word} ")), "{word}: {help}");
    }
}
