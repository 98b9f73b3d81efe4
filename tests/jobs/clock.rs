//! The clock: each scheduled time enqueues one job.

use std::collections::BTreeSet;

use libtest_mimic::Trial;
use roster::db::Timestamp;
use serde_json::Value;

use crate::support::engine::Database;
use crate::support::process::{Web, migrated};
use crate::support::{Tests, eventually, tests};

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!())
        .each(tests![
            two_clocks_enqueue_each_job_once,
            missed_times_enqueue_one_job,
            a_time_in_the_future_does_not_stop_a_schedule,
            old_keys_and_jobs_are_removed
        ])
        .any(tests![a_clock_waits_for_the_schema_and_stops_at_once])
        .trials()
}

const EACH_SECOND: [(&str, &str); 1] = [("CLEANUP_SCHEDULE", "* * * * * *")];
/// The number of jobs of this schedule. An application may have others.
const ENQUEUED: &str = "SELECT count(*) FROM jobs WHERE kind = 'cleanup'";
/// The line of a clock that has enqueued a job.
const FIRED: &str = "a scheduled job was enqueued";
const NEVER: [(&str, &str); 1] = [("CLEANUP_SCHEDULE", "0 0 29 2 *")];

fn two_clocks_enqueue_each_job_once(database: &Database) {
    migrated(database, &["up"]);
    let clocks = [(); 2].map(|()| Web::program("clock", database, &EACH_SECOND));
    let mut sql = database.sql();
    eventually("five times pass", || sql.number(ENQUEUED) >= 5);
    let clocks = clocks.map(|mut clock| {
        clock.signal("TERM");
        assert_eq!(clock.exit_code(), 0);
        clock
    });
    // Each job has the line of one clock.
    let jobs = usize::try_from(sql.number(ENQUEUED)).unwrap();
    let is_fired = |event: &Value| event["message"] == FIRED && event["schedule"] == "cleanup";
    let fired: Vec<_> = clocks.iter().flat_map(Web::events).filter(is_fired).collect();
    let times: BTreeSet<_> = fired.iter().map(|event| event["scheduled_at"].as_str().unwrap().to_owned()).collect();
    assert_eq!((fired.len(), times.len()), (jobs, jobs), "{fired:?}");
}

fn missed_times_enqueue_one_job(database: &Database) {
    migrated(database, &["up"]);
    let mut sql = database.sql();
    drop(Web::program("clock", database, &NEVER));
    eventually("a new schedule begins with its next time", || {
        let clock = Web::program("clock", database, &NEVER);
        eventually("it is ready", || clock.log().contains("\"ready\""));
        sql.number("SELECT count(*) FROM schedules WHERE name = 'cleanup'") == 1
    });
    assert_eq!(sql.number(ENQUEUED), 0);
    sql.execute("UPDATE schedules SET fired_at = 1 WHERE name = 'cleanup'");
    let clocks = [(); 2].map(|()| Web::program("clock", database, &NEVER));
    eventually("the missed time enqueues a job", || sql.number(ENQUEUED) == 1);
    for clock in &clocks {
        eventually("it is ready", || clock.log().contains("\"ready\""));
    }
    drop(clocks);
    assert_eq!(sql.number(ENQUEUED), 1);
}

fn a_time_in_the_future_does_not_stop_a_schedule(database: &Database) {
    migrated(database, &["up"]);
    let mut sql = database.sql();
    // A machine whose clock was wrong enqueued a job.
    sql.execute("INSERT INTO schedules (name, fired_at) VALUES ('cleanup', 9999999999)");
    let _clock = Web::program("clock", database, &NEVER);
    eventually("the last time enqueues a job", || sql.number(ENQUEUED) == 1);
    assert_eq!(sql.number("SELECT count(*) FROM schedules WHERE fired_at > 9999999998"), 0);
}

fn old_keys_and_jobs_are_removed(database: &Database) {
    migrated(database, &["up"]);
    let mut sql = database.sql();
    let now = Timestamp::now().unix();
    let (week, month) = (now - 8 * 86_400, now - 31 * 86_400);
    for (state, finished) in [("done", week), ("done", now), ("dead", week), ("dead", month)] {
        sql.execute(&format!(
            "INSERT INTO jobs (kind, payload, state, created_at, finished_at) VALUES ('x', 'null', '{state}', 1, {finished})"
        ));
    }
    for (id, time) in [("old", "2026-01-01 00:00:00"), ("new", "9999-01-01 00:00:00")] {
        let time = if database.url.starts_with("sqlite") { time.replace(' ', "T") + "Z" } else { time.to_owned() };
        sql.execute(&format!("INSERT INTO idempotency_keys (id, request, location, response, created_at) VALUES ('{id}', 'b', 'c', 'd', '{time}')"));
    }
    let _clock = Web::program("clock", database, &EACH_SECOND);
    let worker = Web::program("worker", database, &[]);
    eventually("the old ones are removed", || sql.number("SELECT count(*) FROM jobs WHERE kind = 'x'") == 2);
    assert_eq!(sql.number("SELECT count(*) FROM jobs WHERE kind = 'x' AND state = 'done'"), 1);
    assert_eq!(sql.number("SELECT count(*) FROM idempotency_keys"), 1);
    assert!(worker.log().contains("old idempotency keys and jobs were removed"));
}

fn a_clock_waits_for_the_schema_and_stops_at_once(database: &Database) {
    let mut clock = Web::program("clock", database, &EACH_SECOND);
    assert_eq!((clock.get("/readyz").status, clock.get("/livez").status), (503, 200));
    assert_eq!(clock.get("/docs").status, 404);
    migrated(database, &["up"]);
    eventually("it is ready", || clock.get("/readyz").status == 200);
    clock.signal("TERM");
    assert_eq!(clock.exit_code(), 0);
}
