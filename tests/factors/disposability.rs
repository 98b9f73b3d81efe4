//! IX. Disposability: fast start-up, graceful shutdown, and no harm from sudden death.

use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::support::engine::{Database, Engine};
use crate::support::process::{Web, migrated};
use crate::support::sql::Sql;
use crate::support::{Factor, eventually};

pub(crate) fn tests() -> Vec<Trial> {
    let sqlite = &[Engine::Sqlite];
    Factor::new("disposability")
        .each("a_signal_stops_it_with_success", a_signal_stops_it_with_success)
        .on(&Engine::SERVERS, "a_request_in_flight_is_finished", a_request_in_flight_is_finished)
        .on(&Engine::SERVERS, "a_second_signal_ends_it_at_once", a_second_signal_ends_it_at_once)
        .on(sqlite, "a_hangup_is_ignored", a_hangup_is_ignored)
        .on(&Engine::SERVERS, "it_stops_while_the_database_is_down", it_stops_while_the_database_is_down)
        .each("sudden_death_loses_nothing", sudden_death_loses_nothing)
        .tests()
}

fn a_signal_stops_it_with_success(database: &Database) {
    migrated(database, &["up"]);
    for signal in ["TERM", "INT"] {
        let mut web = Web::start(database, &[]);
        assert_eq!(web.get("/users").status, 200);
        web.signal(signal);
        assert_eq!(web.exit_code(), 0, "{signal}");
        assert!(web.log().contains("stopping"), "{}", web.log());
    }
}

/// Waits until a query of the product's waits for the lock.
fn wait_for_waiting(sql: &mut Sql, engine: Engine) {
    let waiting = match engine {
        Engine::MySql => {
            "SELECT COUNT(*) FROM information_schema.processlist WHERE db = DATABASE() AND state LIKE 'Waiting for table%'"
        }
        _ => "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
    };
    eventually("the query waits", || sql.number(waiting) == 1);
}

fn a_request_in_flight_is_finished(database: &Database) {
    drop(Web::seeded(database));
    let mut web = Web::start(database, &[("DATABASE_QUERY_TIMEOUT_MS", "20000")]);
    let mut lock = database.hold_users();
    let answer = thread::scope(|scope| {
        let request = scope.spawn(|| web.get("/users"));
        wait_for_waiting(&mut lock, database.engine);
        web.signal("TERM");
        eventually("it is stopping", || web.log().contains("stopping"));
        thread::sleep(Duration::from_millis(200));
        drop(lock);
        request.join().unwrap()
    });
    assert_eq!(answer.status, 200);
    assert_eq!(web.exit_code(), 0);
}

fn a_second_signal_ends_it_at_once(database: &Database) {
    drop(Web::seeded(database));
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let mut web = Web::start(database, &[("DATABASE_QUERY_TIMEOUT_MS", "20000")]);
        let mut lock = database.hold_users();
        let port = web.port;
        // The request dies with the server, so nobody waits for its answer.
        let request = thread::spawn(move || ureq::get(format!("http://127.0.0.1:{port}/users")).call().is_ok());
        wait_for_waiting(&mut lock, database.engine);
        web.signal(signal);
        eventually("it is stopping", || web.log().contains("stopping"));
        assert!(web.is_running());
        web.signal(signal);
        assert_eq!(web.exit_code(), code);
        assert!(!request.join().unwrap());
    }
}

fn a_hangup_is_ignored(database: &Database) {
    let mut web = Web::start(database, &[]);
    web.signal("HUP");
    thread::sleep(Duration::from_millis(200));
    assert_eq!(web.get("/livez").status, 200);
    assert!(web.is_running());
}

fn it_stops_while_the_database_is_down(database: &Database) {
    let url = match database.engine {
        Engine::MySql => "mysql://u:p@127.0.0.1:1/app",
        _ => "postgres://u:p@127.0.0.1:1/app",
    };
    let mut web = Web::start_at(url, &[]);
    assert_eq!(web.get("/livez").status, 200);
    web.signal("TERM");
    assert_eq!(web.exit_code(), 0);
}

fn sudden_death_loses_nothing(database: &Database) {
    let web = Web::seeded(database);
    thread::scope(|scope| {
        for _ in 0..4 {
            // Whatever a request comes to when the server dies; it is not what is tested.
            scope.spawn(|| while ureq::get(format!("http://127.0.0.1:{}/users", web.port)).call().is_ok() {});
        }
        thread::sleep(Duration::from_millis(100));
        web.signal("KILL");
    });
    let next = Web::start(database, &[]);
    assert_eq!(next.get("/users").json().as_array().unwrap().len(), 2);
}
