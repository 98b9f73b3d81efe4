//! IX. Disposability: fast start-up, graceful shutdown, and no harm from sudden death.

use std::io::{ErrorKind, Read as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::support::engine::{Database, Engine, Family};
use crate::support::load::Load;
use crate::support::process::{Web, code, import_csv, migrated};
use crate::support::resource::{CSV, LISTING, NDJSON, WIDE_ROWS, wide_rows};
use crate::support::{Tests, eventually, tests};

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!())
        .each(tests![
            a_signal_stops_it_with_success,
            processes_take_turns_on_a_shared_port,
            processes_take_turns_on_a_listener_that_is_handed_on,
            sudden_death_loses_nothing
        ])
        .on(
            &Engine::SERVERS,
            tests![
                a_request_in_flight_is_finished,
                work_that_is_cut_off_is_counted,
                a_second_signal_ends_it_at_once,
                it_stops_while_the_database_is_down
            ],
        )
        .any(tests![
            a_drain_serves_until_its_delay_is_over,
            an_interrupt_waits_for_no_balancer,
            a_stream_is_finished,
            a_port_is_the_next_processes_while_a_stream_ends,
            a_second_signal_does_not_wait_for_traces,
            a_hangup_is_ignored
        ])
        .trials()
}

fn a_second_signal_does_not_wait_for_traces(database: &Database) {
    migrated(database, &["up"]);
    // It accepts connections and does not respond.
    let collector = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", collector.local_addr().unwrap());
    let mut web = Web::start(database, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint)]);
    assert_eq!(web.get(LISTING).status, 200);
    web.signal("TERM");
    eventually("it has stopped", || web.log().contains("\"stopped\""));
    web.signal("TERM");
    assert_eq!(web.exit_code(), 143);
}

fn a_signal_stops_it_with_success(database: &Database) {
    migrated(database, &["up"]);
    for signal in ["TERM", "INT"] {
        let mut web = Web::start(database, &[]);
        assert_eq!(web.get(LISTING).status, 200);
        web.signal(signal);
        assert_eq!(web.exit_code(), 0, "{signal}");
        let is_last = |event: &serde_json::Value| event["message"] == "stopped" && event["aborted"] == 0;
        eventually("that is its last word", || web.events().last().is_some_and(is_last));
    }
}

/// Waits until a query of the product's waits for the lock. PostgreSQL shows one and the same moment for as long as a
/// transaction lasts, so it is not the lock's that asks.
fn wait_for_waiting(database: &Database) {
    let mut sql = database.sql();
    let waiting = match database.engine.family() {
        Family::Sqlite => unreachable!("it has no server"),
        Family::MySql => {
            "SELECT COUNT(*) FROM information_schema.processlist WHERE db = DATABASE() AND state LIKE 'Waiting for table%'"
        }
        Family::Postgres => {
            "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        }
    };
    eventually("the query waits", || sql.number(waiting) == 1);
}

fn a_request_in_flight_is_finished(database: &Database) {
    drop(Web::seeded(database));
    let mut web = Web::start(database, &[("DATABASE_QUERY_TIMEOUT_MS", "20000")]);
    let lock = database.hold_rows();
    let answer = thread::scope(|scope| {
        let request = scope.spawn(|| web.get(LISTING));
        wait_for_waiting(database);
        web.signal("TERM");
        eventually("it refuses new connections", || !web.is_accepting());
        drop(lock);
        request.join().unwrap()
    });
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert_eq!(web.exit_code(), 0);
}

fn a_drain_serves_until_its_delay_is_over(database: &Database) {
    drop(Web::seeded(database));
    let mut web = Web::start(database, &[("DRAIN_DELAY_MS", "1500")]);
    let before = web.get(LISTING);
    assert_eq!((before.status, before.header("connection")), (200, None));
    let mut idle = TcpStream::connect(("127.0.0.1", web.port)).unwrap();
    web.signal("TERM");
    eventually("it is unready", || web.get("/readyz").status == 503);
    for path in [LISTING, "/livez", "/nothing", CSV] {
        let answer = web.get(path);
        assert_eq!(answer.header("connection"), Some("close"), "{path}");
        assert_ne!(answer.status, 503, "{path}");
    }
    assert!(web.is_running(), "all this was in its delay");
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty(), "a connection that is not used ends, in order");
    assert_eq!(web.exit_code(), 0);
}

fn an_interrupt_waits_for_no_balancer(database: &Database) {
    // Longer than the test waits.
    let mut web = Web::start(database, &[("DRAIN_DELAY_MS", "600000")]);
    web.signal("INT");
    assert_eq!(web.exit_code(), 0);
}

fn a_stream_is_finished(database: &Database) {
    migrated(database, &["up"]);
    assert_eq!(code(&import_csv(database, &wide_rows())), 0);
    let mut web = Web::start(database, &[]);
    let mut reader = web.slow_reader(NDJSON);
    web.signal("TERM");
    eventually("it refuses new connections", || !web.is_accepting());
    assert!(web.is_running());
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("\r\n0\r\n\r\n"), "it is complete");
    assert_eq!(rest.matches("{\"id\":").count(), WIDE_ROWS);
    assert_eq!(web.exit_code(), 0);
}

fn work_that_is_cut_off_is_counted(database: &Database) {
    drop(Web::seeded(database));
    let limits =
        [("SHUTDOWN_TIMEOUT_MS", "300"), ("DATABASE_QUERY_TIMEOUT_MS", "60000"), ("REQUEST_TIMEOUT_MS", "60000")];
    let mut web = Web::start(database, &limits);
    let _lock = database.hold_rows();
    let port = web.port;
    let request = thread::spawn(move || ureq::get(format!("http://127.0.0.1:{port}{LISTING}")).call().is_ok());
    wait_for_waiting(database);
    web.signal("TERM");
    assert_eq!(web.exit_code(), 1);
    assert!(!request.join().unwrap());
    let events = web.events();
    let counted = events.iter().find(|event| event["aborted"] == 1).expect("the count is logged");
    assert_eq!(counted["level"], "ERROR");
    assert_eq!(web.requests(1)[0]["cause"], "SHUTDOWN_TIMEOUT_MS: aborted");
}

/// Replaces a process three times under load, each by one that is started beside it.
fn hand_over(first: Web, mut next: impl FnMut() -> Web) {
    let load = Load::begin(first.port, 8);
    let mut old = first;
    for _ in 0..3 {
        let before = load.answered();
        eventually("it serves", || load.answered() > before + 200);
        let new = next();
        eventually("the next is ready", || new.log().contains("\"ready\""));
        old.signal("TERM");
        assert_eq!(old.exit_code(), 0);
        old = new;
    }
    let before = load.answered();
    eventually("the last serves", || load.answered() > before + 200);
    let (answered, failures) = load.end();
    assert_eq!(failures, [""; 0], "beside {answered} that were answered");
}

fn processes_take_turns_on_a_shared_port(database: &Database) {
    drop(Web::seeded(database));
    let first = Web::start(database, &[("REUSE_PORT", "true")]);
    let port = first.port.to_string();
    hand_over(first, || Web::start(database, &[("REUSE_PORT", "true"), ("PORT", &port)]));
}

fn processes_take_turns_on_a_listener_that_is_handed_on(database: &Database) {
    drop(Web::seeded(database));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    hand_over(Web::activated(database, &listener), || Web::activated(database, &listener));
}

/// A new connection is accepted by the next process, or refused, within the time of one retransmission of a SYN.
fn a_port_is_the_next_processes_while_a_stream_ends(database: &Database) {
    const LONGEST: Duration = Duration::from_secs(2);
    migrated(database, &["up"]);
    assert_eq!(code(&import_csv(database, &wide_rows())), 0);
    for has_next in [true, false] {
        let mut old = Web::start(database, &[("REUSE_PORT", "true"), ("SHUTDOWN_TIMEOUT_MS", "600000")]);
        let address = ([127, 0, 0, 1], old.port).into();
        let mut reader = old.slow_reader(NDJSON);
        let port = old.port.to_string();
        let next = has_next.then(|| Web::start(database, &[("REUSE_PORT", "true"), ("PORT", &port)]));
        old.signal("TERM");
        eventually("it is stopping", || old.log().contains("stopping"));
        for _ in 0..50 {
            match TcpStream::connect_timeout(&address, LONGEST) {
                Ok(_) => {}
                Err(error) => assert_eq!((error.kind(), has_next), (ErrorKind::ConnectionRefused, false)),
            }
        }
        assert!(old.is_running(), "the stream has not ended");
        if let Some(next) = &next {
            assert_eq!(next.get("/livez").status, 200);
        }
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        assert!(rest.ends_with(b"\r\n0\r\n\r\n"), "it is complete");
        assert_eq!(old.exit_code(), 0);
        assert!(!old.log().contains("actix"), "{}", old.log());
    }
}

fn a_second_signal_ends_it_at_once(database: &Database) {
    drop(Web::seeded(database));
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let mut web = Web::start(database, &[("DATABASE_QUERY_TIMEOUT_MS", "20000")]);
        let _lock = database.hold_rows();
        let port = web.port;
        // The request dies with the server, so nobody waits for its answer.
        let request = thread::spawn(move || ureq::get(format!("http://127.0.0.1:{port}{LISTING}")).call().is_ok());
        wait_for_waiting(database);
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
    // Nothing shows that a signal was ignored.
    thread::sleep(Duration::from_millis(200));
    assert_eq!(web.get("/livez").status, 200);
    assert!(web.is_running());
}

fn it_stops_while_the_database_is_down(database: &Database) {
    let url = match database.engine.family() {
        Family::Sqlite => unreachable!("it has no server"),
        Family::MySql => "mysql://u:p@127.0.0.1:1/app",
        Family::Postgres => "postgres://u:p@127.0.0.1:1/app",
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
            scope.spawn(|| while ureq::get(format!("http://127.0.0.1:{}{LISTING}", web.port)).call().is_ok() {});
        }
        eventually("it serves", || web.events().len() > 20);
        web.signal("KILL");
    });
    let next = Web::start(database, &[]);
    assert_eq!(next.get(LISTING).json().as_array().unwrap().len(), 2);
}
