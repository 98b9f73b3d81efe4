//! The queue: nothing is lost, whatever happens to workers.

use std::collections::BTreeSet;

use libtest_mimic::Trial;

use super::Deploy;
use crate::support::engine::{Database, Engine, Family};
use crate::support::mail_server::MailServer;
use crate::support::process::{Web, code, migrate, migrated, stderr};
use crate::support::tool::Tool;
use crate::support::{Tests, eventually, tests};

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!())
        .with_tool(
            Tool::Aiosmtpd,
            &Engine::ALL,
            tests![
                a_stopped_worker_finishes_or_releases_its_jobs,
                a_killed_worker_loses_nothing,
                a_lease_is_renewed_while_the_job_runs,
                an_outcome_after_the_lease_has_no_effect,
                an_outage_of_the_database_loses_nothing,
                two_workers_share_the_queue
            ],
        )
        .each(tests![
            a_job_exists_if_its_write_was_committed,
            a_job_that_kills_its_workers_becomes_dead,
            the_id_of_any_request_is_stored,
            operators_manage_jobs,
            a_dead_job_is_retried_once,
            a_claim_reads_no_finished_job
        ])
        .on(&Engine::POSTGRES, tests![workers_are_notified])
        .any(tests![
            nothing_is_enqueued_without_a_mail_server,
            kinds_of_other_releases_are_left,
            a_worker_serves_its_operators
        ])
        .trials()
}

fn a_job_exists_if_its_write_was_committed(database: &Database) {
    let deploy = Deploy::with_url(database, "smtp://127.0.0.1:1?tls=none");
    deploy.create_user("ada");
    let again = deploy.web.write("POST", "/users", &[], r#"{"username":"ada","email":"a@example.com"}"#);
    assert_eq!(again.status, 409);
    let jobs = deploy.jobs();
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    assert_eq!((&jobs[0]["state"], &jobs[0]["request_id"]), (&"waiting".into(), &"request-ada".into()));
    assert_eq!(jobs[0]["payload"], r#"{"user_id":1}"#);
    let key = [("idempotency-key", "one")];
    for _ in 0..2 {
        let body = r#"{"username":"bob","email":"bob@example.com"}"#;
        assert_eq!(deploy.web.write("POST", "/users", &key, body).status, 201);
    }
    assert_eq!(deploy.jobs().len(), 2, "a repeated request enqueues nothing");
}

fn nothing_is_enqueued_without_a_mail_server(database: &Database) {
    migrated(database, &["up"]);
    let web = Web::writable(database, &[]);
    let created = web.write("POST", "/users", &[], r#"{"username":"ada","email":"ada@example.com"}"#);
    assert_eq!(created.status, 201);
    assert_eq!(database.sql().number("SELECT count(*) FROM jobs"), 0);
    let worker = Web::program("worker", database, &[]);
    eventually("the warning is logged", || worker.log().contains("SMTP_URL is not set: no mail is enqueued"));
}

fn a_stopped_worker_finishes_or_releases_its_jobs(database: &Database) {
    let server = MailServer::start();
    let deploy = Deploy::new(database, &server);
    for n in 0..10 {
        deploy.create_user(&format!("held{n}"));
    }
    let concurrency = ("WORKER_CONCURRENCY", "10");
    // Without time, all are released.
    let mut worker = deploy.worker(&[concurrency, ("SHUTDOWN_TIMEOUT_MS", "1")]);
    eventually("all are running", || server.held() == 10);
    worker.signal("TERM");
    assert_eq!(worker.exit_code(), 1);
    let jobs = deploy.jobs();
    assert!(jobs.iter().all(|job| job["state"] == "waiting" && job["attempts"] == 0), "{jobs:?}");
    // With time, all are finished.
    let mut worker = deploy.worker(&[concurrency]);
    eventually("all are running again", || server.held() == 20);
    worker.signal("TERM");
    eventually("it is not ready", || worker.get("/readyz").status == 503);
    assert_eq!(worker.get("/livez").status, 200);
    server.release();
    assert_eq!(worker.exit_code(), 0);
    assert!(deploy.states().iter().all(|state| state == "done"));
}

fn a_killed_worker_loses_nothing(database: &Database) {
    let server = MailServer::start();
    let deploy = Deploy::new(database, &server);
    deploy.create_user("held");
    let mut worker = deploy.worker(&[]);
    eventually("it is running", || server.held() == 1);
    worker.signal("KILL");
    eventually("it has ended", || !worker.is_running());
    assert_eq!(deploy.states(), ["running"]);
    let _other = deploy.worker(&[]);
    // The lease expires, without the wait.
    database.sql().execute("UPDATE jobs SET due_at = 1");
    eventually("another worker runs it", || server.held() == 2);
    server.release();
    eventually("it is done", || deploy.states() == ["done"]);
    assert_eq!(deploy.jobs()[0]["attempts"], 2);
}

fn a_lease_is_renewed_while_the_job_runs(database: &Database) {
    let server = MailServer::start();
    let deploy = Deploy::new(database, &server);
    deploy.create_user("held");
    let _worker = deploy.worker(&[]);
    eventually("it is running", || server.held() == 1);
    let mut sql = database.sql();
    let lease = "SELECT due_at FROM jobs";
    let end = sql.number(lease);
    // The lease ends soon, but not before its renewal.
    sql.execute("UPDATE jobs SET due_at = due_at - 15");
    eventually("it is renewed", || sql.number(lease) > end);
    assert_eq!((server.held(), deploy.states()), (1, vec!["running".to_owned()]));
    server.release();
    eventually("it is done", || deploy.states() == ["done"]);
}

/// Another worker has the job then.
fn an_outcome_after_the_lease_has_no_effect(database: &Database) {
    let server = MailServer::start();
    let deploy = Deploy::new(database, &server);
    deploy.create_user("held");
    let mut worker = deploy.worker(&[]);
    eventually("it is running", || server.held() == 1);
    database.sql().execute("UPDATE jobs SET worker = 'other', due_at = 9999999999");
    server.release();
    eventually("the job ends", || worker.log().contains("\"outcome\":\"done\""));
    worker.signal("TERM");
    assert_eq!(worker.exit_code(), 0);
    assert_eq!(deploy.states(), ["running"]);
}

fn an_outage_of_the_database_loses_nothing(database: &Database) {
    let server = MailServer::start();
    let deploy = Deploy::new(database, &server);
    deploy.create_user("held");
    let worker = deploy.worker(&[]);
    eventually("it is running", || server.held() == 1);
    // The outcome cannot be recorded while another session has the row, or on SQLite the database.
    let mut lock = database.sql();
    lock.execute(if database.url.starts_with("sqlite") { "BEGIN IMMEDIATE" } else { "BEGIN" });
    lock.execute("UPDATE jobs SET attempts = attempts");
    server.release();
    eventually("the outcome cannot be recorded", || worker.log().contains("the queue is unavailable"));
    lock.execute("ROLLBACK");
    eventually("it is recorded", || deploy.states() == ["done"]);
    assert_eq!(server.mails().len(), 1);
    assert!(worker.log().contains("the queue is available again"));
}

fn the_id_of_any_request_is_stored(database: &Database) {
    let deploy = Deploy::with_url(database, "smtp://127.0.0.1:1?tls=none");
    let id = "x".repeat(128);
    let body = r#"{"username":"ada","email":"ada@example.com"}"#;
    assert_eq!(deploy.web.write("POST", "/users", &[("x-request-id", &id)], body).status, 201);
    assert_eq!(deploy.jobs()[0]["request_id"], id);
}

fn workers_are_notified(database: &Database) {
    migrated(database, &["up"]);
    let _worker = Web::program("worker", database, &[]);
    let mut sql = database.sql();
    let listening =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN %'";
    eventually("it listens", || sql.number(listening) == 1);
    sql.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE datname = current_database() AND query LIKE 'LISTEN %'",
    );
    eventually("it listens again", || sql.number(listening) == 1);
}

fn two_workers_share_the_queue(database: &Database) {
    const COUNT: usize = 60;
    let server = MailServer::start();
    let deploy = Deploy::new(database, &server);
    let workers = [(); 2].map(|()| deploy.worker(&[]));
    for n in 0..COUNT {
        deploy.create_user(&format!("user{n}"));
    }
    eventually("all are done", || deploy.states().iter().filter(|state| *state == "done").count() == COUNT);
    let recipients: BTreeSet<_> = server.received(COUNT).iter().map(|mail| mail["to"][0].to_string()).collect();
    assert_eq!(recipients.len(), COUNT, "each once");
    let done = |worker: &Web| worker.metric("jobs_attempts_total{job_kind=\"welcome\",outcome=\"done\"}");
    let counts = workers.each_ref().map(done);
    assert_eq!(counts.iter().sum::<usize>(), COUNT);
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

/// A job that ends its worker at each attempt must become dead.
fn a_job_that_kills_its_workers_becomes_dead(database: &Database) {
    migrated(database, &["up"]);
    database.sql().execute(
        "INSERT INTO jobs (kind, payload, state, due_at, attempts, created_at) VALUES ('welcome', '{}', 'running', 1, 20, 1)",
    );
    let _worker = Web::program("worker", database, &[]);
    let mut sql = database.sql();
    eventually("it is dead", || sql.number("SELECT count(*) FROM jobs WHERE state = 'dead' AND due_at IS NULL") == 1);
}

fn kinds_of_other_releases_are_left(database: &Database) {
    migrated(database, &["up"]);
    let insert = "INSERT INTO jobs (kind, payload, state, due_at, created_at) VALUES";
    let mut sql = database.sql();
    sql.execute(&format!("{insert} ('unknown', 'null', 'waiting', 1, 1), ('cleanup', 'null', 'waiting', 2, 1)"));
    let _worker = Web::program("worker", database, &[]);
    eventually("the known one is done", || sql.number("SELECT count(*) FROM jobs WHERE state = 'done'") == 1);
    assert_eq!(sql.number("SELECT count(*) FROM jobs WHERE kind = 'unknown' AND state = 'waiting'"), 1);
}

fn operators_manage_jobs(database: &Database) {
    migrated(database, &["up"]);
    assert_eq!(migrated(database, &["jobs", "list"]), "");
    let insert =
        "INSERT INTO jobs (kind, payload, state, due_at, attempts, last_error, created_at, finished_at) VALUES";
    let mut sql = database.sql();
    sql.execute(&format!(
        "{insert} ('a', 'null', 'dead', NULL, 20, 'no such mailbox', 1, 2), ('b', 'null', 'running', 9999999999, 1, '', 1, NULL), \
         ('c', 'null', 'done', NULL, 1, '', 1, 2), ('d', 'null', 'dead', NULL, 20, '', 1, 2), ('e', 'null', 'dead', NULL, 20, '', 1, 2)"
    ));
    let listed = migrated(database, &["jobs", "list", "--state", "dead"]);
    let lines: Vec<_> = listed.lines().collect();
    assert_eq!(lines.len(), 3, "{listed}");
    assert_eq!(lines[2], "       1  1970-01-01T00:00:01Z  a             dead     20 attempts  no such mailbox");
    let shown = migrated(database, &["jobs", "show", "1"]);
    assert!(shown.contains("finished at  1970-01-01T00:00:02Z\nlast error   no such mailbox\n"), "{shown}");
    assert_eq!(migrated(database, &["jobs", "retry", "1"]), "1 job due now\n");
    assert_eq!(
        sql.number("SELECT count(*) FROM jobs WHERE id = 1 AND state = 'waiting' AND attempts = 0 AND due_at > 1"),
        1
    );
    // Its worker is gone.
    sql.execute(&format!("{insert} ('f', 'null', 'running', 1, 1, '', 1, NULL)"));
    assert_eq!(migrated(database, &["jobs", "discard", "6", "6"]), "1 job discarded\n");
    for (command, id) in [("retry", "2"), ("discard", "2"), ("discard", "3"), ("discard", "99"), ("show", "99")] {
        let refused = migrate(database, &["jobs", command, id]);
        assert_eq!(code(&refused), 1, "{command} {id}");
        assert!(stderr(&refused).contains(&format!("job {id}")), "{}", stderr(&refused));
    }
    assert_eq!(migrated(database, &["jobs", "discard", "1", "4"]), "2 jobs discarded\n");
    assert_eq!(migrated(database, &["jobs", "discard", "--dead"]), "1 job discarded\n");
    assert_eq!(sql.number("SELECT count(*) FROM jobs"), 2);
    for arguments in
        [&["jobs"][..], &["jobs", "retry"], &["jobs", "retry", "1", "--dead"], &["jobs", "list", "--state", "x"]]
    {
        assert_eq!(code(&migrate(database, arguments)), 2, "{arguments:?}");
    }
}

/// A trigger makes each retried job a dead one again, as a worker does whose attempt fails at once.
fn a_dead_job_is_retried_once(database: &Database) {
    migrated(database, &["up"]);
    let mut sql = database.sql();
    for number in 1..=3 {
        sql.execute(&format!(
            "INSERT INTO jobs (kind, payload, state, attempts, created_at, finished_at) VALUES ('a', 'null', 'dead', 20, {number}, 2)"
        ));
    }
    sql.execute(match database.engine.family() {
        Family::Sqlite => {
            "CREATE TRIGGER again AFTER UPDATE ON jobs WHEN NEW.state = 'waiting' \
             BEGIN UPDATE jobs SET state = 'dead' WHERE id = NEW.id; END"
        }
        Family::MySql => "CREATE TRIGGER again BEFORE UPDATE ON jobs FOR EACH ROW SET NEW.state = 'dead'",
        Family::Postgres => {
            "CREATE FUNCTION again() RETURNS TRIGGER LANGUAGE plpgsql AS 'BEGIN NEW.state = ''dead''; RETURN NEW; END'; \
             CREATE TRIGGER again BEFORE UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION again()"
        }
    });
    assert_eq!(migrated(database, &["jobs", "retry", "--dead"]), "3 jobs due now\n");
}

/// The plan of a claim uses the index of jobs that are due, and does not sort.
fn a_claim_reads_no_finished_job(database: &Database) {
    migrated(database, &["up"]);
    let mut sql = database.sql();
    let rows: Vec<_> = (0..1000).map(|n| format!("('cleanup', 'null', 'done', NULL, {n}, {n})")).collect();
    for _ in 0..5 {
        sql.execute(&format!(
            "INSERT INTO jobs (kind, payload, state, due_at, created_at, finished_at) VALUES {}",
            rows.join(", ")
        ));
    }
    sql.execute(if database.url.starts_with("mysql") { "ANALYZE TABLE jobs" } else { "ANALYZE" });
    let plan = sql.plan(
        "SELECT id FROM jobs WHERE due_at <= 1700000000 AND kind IN ('cleanup', 'welcome') ORDER BY due_at, id LIMIT 4",
    );
    // MariaDB and MySQL also list the indexes that they do not use.
    let used = match database.engine {
        Engine::MariaDb => "\"key\": \"jobs_due_at\"",
        Engine::MySql => "\"index_name\": \"jobs_due_at\"",
        Engine::Sqlite | Engine::Postgres | Engine::Postgres18 => "jobs_due_at",
    };
    assert!(plan.contains(used), "{plan}");
    assert!(!plan.contains("Sort") && !plan.contains("filesort") && !plan.contains("TEMP B-TREE"), "{plan}");
}

fn a_worker_serves_its_operators(database: &Database) {
    migrated(database, &["up"]);
    database.sql().execute(
        "INSERT INTO jobs (kind, payload, state, due_at, created_at) VALUES ('unknown', 'null', 'waiting', 1, 1)",
    );
    let worker = Web::program("worker", database, &[]);
    for (path, status) in [("/livez", 200), ("/readyz", 200), ("/version", 200), ("/users", 404), ("/docs", 404)] {
        assert_eq!(worker.get(path).status, status, "{path}");
    }
    eventually("the queue is measured", || {
        worker.get("/metrics").body.contains("jobs_queue_depth{state=\"waiting\"} 1")
    });
    assert_eq!(worker.metric("jobs_queue_oldest_age_seconds"), 0, "no other worker of this release would run it");
}
