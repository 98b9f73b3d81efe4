//! IV. Backing services: attached resources, reached by their URL alone, and free to go and come back.

mod sessions;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use socket2::SockRef;

use crate::support::engine::{Certificate, Database, Engine, Family, Server};
use crate::support::fault_proxy::Proxy;
use crate::support::load::Load;
use crate::support::pooler::{Mode, Pooler};
use crate::support::process::{self, Web, code, import_csv, migrate_command, migrated, seed, stderr};
use crate::support::resource::{
    COUNT, FIRST, LISTING, LISTING_JSON, NDJSON, RELATED, RELATED_JSON, SECOND, SECOND_JSON, TABLE, WIDE_ROWS, listing,
    wide_rows,
};
use crate::support::sql::Sql;
use crate::support::tool::Tool;
use crate::support::{Tests, eventually, tests};

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!())
        .each(tests![
            the_url_alone_attaches_the_database,
            a_process_lives_unready_on_an_old_schema,
            a_newer_schema_is_served,
            a_stream_that_breaks_is_seen_to_break
        ])
        .on(
            &Engine::SERVERS,
            tests![
                an_outage_heals_by_itself,
                a_wrong_login_is_told_without_its_secret,
                a_slow_query_ends_in_time,
                clients_that_hang_up_leave_the_pool_whole,
                an_idle_connection_that_was_killed_is_noticed,
                connections_that_fall_silent_are_replaced,
                a_server_that_falls_silent_is_told_in_time,
                a_server_is_verified_when_that_is_asked,
                a_certificate_that_cannot_be_verified_is_explained,
                a_server_that_is_full_is_told
            ],
        )
        .with_tool(Tool::Pgbouncer, &[Engine::Postgres], tests![a_pooler_may_lend_a_connection_for_each_transaction])
        .with_tool(
            Tool::TrackingPgbouncer,
            &Engine::POSTGRES,
            tests![a_pooler_that_tracks_statements_needs_no_parameter, migrate_refuses_a_pooler_that_shares_sessions],
        )
        .on(&Engine::MYSQL, tests![connections_that_were_idle_too_long_cost_nothing])
        // SQLite alone has a file that can be missing or read-only.
        .on(&[Engine::Sqlite], tests![a_missing_file_is_told_with_its_remedy, a_database_that_is_read_only_is_served])
        // [only servers]
        .once(tests![an_unreachable_host_is_told])
        // [end]
        .and(sessions::tests())
        .trials()
}

fn the_url_alone_attaches_the_database(database: &Database) {
    let web = Web::seeded(database);
    let users = web.get(LISTING);
    assert_eq!(users.status, 200);
    assert_eq!(users.header("content-type"), Some("application/json"));
    assert_eq!(users.body, LISTING_JSON);
    assert_eq!(web.get(SECOND).body, SECOND_JSON);
    assert_eq!(web.get(RELATED).body, RELATED_JSON);
    assert_eq!(web.get("/readyz").status, 200);
    assert_eq!(web.send("HEAD", LISTING, &[]).body, "");
    let page = web.get("/");
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.body.contains("<a href=\"mailto:admin@example.com\">admin<wbr>@example.com</a>"), "{}", page.body);

    database.sql().execute("INSERT INTO users (username, email) VALUES ('<b>&\"', '<i>@example.com')");
    let page = web.get("/?q=%3Cb");
    assert!(page.body.contains("&#60;b&#62;&#38;&#34;"), "{}", page.body);
    assert!(!page.body.contains("<b>") && !page.body.contains("<i>"), "{}", page.body);
}

fn a_process_lives_unready_on_an_old_schema(database: &Database) {
    let web = Web::start(database, &[]);
    assert_eq!(web.get("/livez").status, 200);
    for path in ["/readyz", LISTING] {
        let answer = web.get(path);
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{path}: {}", answer.body);
    }
    assert!(web.get("/readyz").json()["detail"].as_str().unwrap().starts_with("schema: "));
    migrated(database, &["up", "--to", "1"]);
    assert_eq!(web.get("/readyz").status, 503);
    migrated(database, &["up"]);
    assert_eq!(web.get("/readyz").status, 200);
    eventually("it says that it is ready", || web.events().iter().any(|event| event["message"] == "ready"));
}

/// A release can be rolled back without its database.
fn a_newer_schema_is_served(database: &Database) {
    let web = Web::seeded(database);
    database.sql().execute(
        "INSERT INTO roster_migrations (version, description, success, checksum, execution_time) VALUES (99, 'later', TRUE, '', 0)",
    );
    assert_eq!(web.get("/readyz").status, 200);
    assert_eq!(migrated(database, &["up"]), "nothing to do: no migration applied\n");
}

/// Stopped under load and started again: clients see 200 and 503 and nothing else.
fn an_outage_heals_by_itself(database: &Database) {
    let mut server = Server::start(database.engine);
    server.admin().execute("CREATE DATABASE app");
    let url = server.url("app");
    seed(&url);
    let web = Web::start_at(&url, &[]);
    let (over, statuses) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let seen = |status| statuses.lock().unwrap().contains(&status);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let status = web.get(LISTING).status;
                    statuses.lock().unwrap().push(status);
                }
            });
        }
        eventually("it serves", || seen(200));
        server.kill();
        eventually("the outage shows", || seen(503));
        assert_eq!(web.get("/livez").status, 200);
        assert_eq!(web.get("/readyz").status, 503);
        server.run();
        eventually("it serves again", || web.get(LISTING).status == 200);
        over.store(true, Ordering::Relaxed);
    });
    let mut statuses = statuses.into_inner().unwrap();
    statuses.sort_unstable();
    statuses.dedup();
    assert_eq!(statuses, [200, 503]);

    // A process that starts during an outage becomes ready by itself.
    server.kill();
    let late = Web::start_at(&url, &[]);
    assert_eq!((late.get("/livez").status, late.get("/readyz").status), (200, 503));
    let told =
        |text| late.events().iter().any(|event| event["error"].as_str().is_some_and(|error| error.contains(text)));
    eventually("the cause is told", || told("cannot connect to the database at /"));
    server.run();
    eventually("it becomes ready", || late.get("/readyz").status == 200);
    assert_eq!(late.get(LISTING).status, 200);
}

fn a_wrong_login_is_told_without_its_secret(database: &Database) {
    let server = Server::start(database.engine);
    let mut admin = server.admin();
    admin.execute("CREATE DATABASE app");
    admin.execute(match database.engine.family() {
        Family::Sqlite => unreachable!("it has no server"),
        Family::MySql => "CREATE USER roster IDENTIFIED BY 'right'",
        Family::Postgres => "CREATE ROLE roster LOGIN PASSWORD 'right'",
    });
    let url = server.url_of("roster:canary", "app");
    let done = migrate_command(&["up"], &[("DATABASE_URL", &url)]).output().unwrap();
    assert_eq!(code(&done), 69);
    assert!(stderr(&done).contains("cannot connect to the database at "), "{}", stderr(&done));
    assert!(stderr(&done).contains("roster") && !stderr(&done).contains("canary"), "{}", stderr(&done));

    // No dependency logs the password, at the level trace.
    let environment = [
        ("RUST_LOG", "trace"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20canary"),
        ("OTEL_BSP_SCHEDULE_DELAY", "1"),
    ];
    let web = Web::start_at(&url, &environment);
    let body = web.get("/readyz").body + &web.get(LISTING).body + &web.get("/").body;
    eventually("the cause is logged", || web.log().contains("the database is unavailable"));
    eventually("traces are tried to be sent", || web.log().contains("HTTP export failed"));
    assert!(!web.log().contains("canary") && !body.contains("canary"));
    // A login that succeeds has other messages.
    server.admin().execute(match database.engine.family() {
        Family::Sqlite => unreachable!("it has no server"),
        Family::MySql => "ALTER USER roster IDENTIFIED BY 'canary'",
        Family::Postgres => "ALTER ROLE roster PASSWORD 'canary'",
    });
    eventually("the login succeeds", || !web.get("/readyz").body.contains("cannot connect"));
    let done = migrate_command(&["status"], &[&[("DATABASE_URL", &*url)], &environment[..]].concat()).output().unwrap();
    assert!(!web.log().contains("canary") && !stderr(&done).contains("canary"), "{}", stderr(&done));

    let missing = server.url("no_such_database");
    let done = migrate_command(&["up"], &[("DATABASE_URL", &missing)]).output().unwrap();
    assert_eq!(code(&done), 69);
    assert!(stderr(&done).contains("no_such_database"), "{}", stderr(&done));
}

/// As many requests at once as the pool has connections, all kept waiting: each must reach the
/// database, because the pool has a connection for each.
fn assert_pool_is_whole(web: &Web, database: &Database, size: usize) {
    let lock = database.hold_rows();
    let before = web.events().len();
    thread::scope(|scope| {
        for _ in 0..size {
            // Pages of this size share no statement.
            scope.spawn(|| assert_eq!(web.get(listing!("?limit=101")).status, 503));
        }
    });
    drop(lock);
    let timed_out = || {
        let events = web.events();
        let causes = events[before..].iter().filter_map(|event| event["cause"].as_str());
        causes.filter(|cause| cause.starts_with("the query took longer than")).count()
    };
    eventually("each request reached the database", || timed_out() == size);
    eventually("it serves again", || web.get(LISTING).status == 200);
}

fn a_slow_query_ends_in_time(database: &Database) {
    drop(Web::seeded(database));
    let limits = [
        ("DATABASE_QUERY_TIMEOUT_MS", "2000"),
        ("DATABASE_ACQUIRE_TIMEOUT_MS", "200"),
        ("DATABASE_MAX_CONNECTIONS", "2"),
    ];
    let web = Web::start(database, &limits);
    assert_pool_is_whole(&web, database, 2);

    // One more than the pool holds waits for a connection, and no longer than it may.
    let lock = database.hold_rows();
    thread::scope(|scope| {
        for used in 1..=2 {
            scope.spawn(|| assert_eq!(web.get(listing!("?limit=101")).status, 503));
            eventually("a connection is in use", || {
                web.metric("db_client_connections{db_client_connection_state=\"used\"}") == used
            });
        }
        assert_eq!(web.get(LISTING).status, 503);
    });
    drop(lock);
    let full = || web.log().contains("no database connection became free within 200 ms");
    eventually("the pool was full", full);
    assert_pool_is_whole(&web, database, 2);
}

fn clients_that_hang_up_leave_the_pool_whole(database: &Database) {
    drop(Web::seeded(database));
    let limits = [
        ("DATABASE_QUERY_TIMEOUT_MS", "1000"),
        ("DATABASE_ACQUIRE_TIMEOUT_MS", "3000"),
        ("DATABASE_MAX_CONNECTIONS", "4"),
    ];
    let web = Web::start(database, &limits);
    let lock = database.hold_rows();
    let finished = || web.events().into_iter().filter(|event| event["http.route"] == LISTING).collect::<Vec<_>>();
    let in_flight = || {
        let metrics = web.get("/metrics").body;
        let line = metrics.lines().find(|line| line.starts_with("http_server_active_requests ")).unwrap().to_owned();
        line.rsplit(' ').next().unwrap().parse::<usize>().unwrap()
    };
    for burst in 1..=10 {
        let mut clients: Vec<TcpStream> =
            (0..20).map(|_| TcpStream::connect(("127.0.0.1", web.port)).unwrap()).collect();
        for (n, client) in clients.iter_mut().enumerate() {
            client.write_all(format!("GET {LISTING} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
            if n % 2 == 0 {
                // Closed with a reset, as by a client that crashes; the others close politely, and the
                // server finishes for them, who may still be reading.
                SockRef::from(&*client).set_linger(Some(Duration::ZERO)).unwrap();
            }
        }
        eventually("each of them is at work", || finished().len() + in_flight() >= burst * 20);
    }
    drop(lock);
    eventually("every request has its line", || finished().len() == 200);
    let gone = finished().iter().filter(|request| request["http.response.status_code"] == 499).count();
    assert!(gone > 50, "{gone} requests ended with their client");
    assert_pool_is_whole(&web, database, 4);
    assert_eq!(web.get("/readyz").status, 200);
}

fn an_idle_connection_that_was_killed_is_noticed(database: &Database) {
    let web = Web::seeded(database);
    assert_eq!(web.get(LISTING).status, 200);
    let mut sql = database.sql();
    match database.engine.family() {
        Family::Sqlite => unreachable!("it has no server"),
        Family::MySql => {
            let others = "SELECT CAST(id AS CHAR) FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()";
            for id in sql.texts(others) {
                sql.execute(&format!("KILL {id}"));
            }
        }
        Family::Postgres => sql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
        ),
    }
    // Longer than the second for which a connection is trusted.
    thread::sleep(Duration::from_millis(1100));
    assert_eq!(web.get(LISTING).status, 200);
}

/// Cut off in the middle, a stream lacks the chunk that would end it, and the log says why.
fn a_stream_that_breaks_is_seen_to_break(database: &Database) {
    migrated(database, &["up"]);
    assert_eq!(code(&import_csv(database, &wide_rows())), 0);
    let web = Web::start(database, &[]);
    let mut reader = web.slow_reader(NDJSON);
    database.sql().execute(&format!("ALTER TABLE {TABLE} RENAME TO gone"));
    let mut rest = Vec::new();
    // Whether the end is an error is the system's choice.
    let _ = reader.read_to_end(&mut rest);
    let rest = String::from_utf8_lossy(&rest);
    assert!(!rest.ends_with("0\r\n\r\n"), "it looks complete");
    assert!(rest.matches("{\"id\":").count() < WIDE_ROWS);
    eventually("the cause is logged", || web.log().contains("the stream was aborted"));
    let event = web.events().into_iter().find(|event| event["message"] == "the stream was aborted").unwrap();
    assert!(event["request_id"].is_string(), "{event}");
    // Before the first byte, the same is an answer.
    assert_eq!(web.get(NDJSON).status, 503);
}

/// More clients than the pooler has connections get every answer, and each resource is served.
fn assert_serves_load(web: &Web) {
    let load = Load::begin(web.port, 8);
    eventually("it serves", || load.answered() > 500);
    let (answered, failures) = load.end();
    assert_eq!(failures, [""; 0], "beside {answered} that were answered");
    for path in ["/readyz", FIRST, RELATED, NDJSON, listing!("?q=ad"), "/"] {
        assert_eq!(web.get(path).status, 200, "{path}");
    }
}

/// More clients than it has connections, and none that is theirs for longer.
fn a_pooler_may_lend_a_connection_for_each_transaction(database: &Database) {
    let server = Server::start(database.engine);
    server.admin().execute("CREATE DATABASE app");
    let url = server.url("app");
    seed(&url);
    let pooler = Pooler::start(&server, 2);
    let lent = pooler.url("&statement-cache-capacity=0");

    let web = Web::start_at(&lent, &[("DATABASE_MAX_CONNECTIONS", "8"), ("DATABASE_QUERY_TIMEOUT_MS", "1000")]);
    assert_serves_load(&web);

    // A transaction that runs into its limit takes its connection with it.
    let mut lock = Sql::connect(&url);
    lock.execute("BEGIN");
    lock.execute(&format!("LOCK TABLE {TABLE}"));
    assert_eq!(ask_at_once(&web), 0);
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'app' AND wait_event_type = 'Lock'";
    eventually("its statement has ended in the server", || lock.number(waiting) == 0);
    drop(lock);
    eventually("it serves again", || ask_at_once(&web) == 4);

    // Without the parameter, the log says what is missing.
    let hasty = Web::start_at(&pooler.url(""), &[("DATABASE_MAX_CONNECTIONS", "8")]);
    let load = Load::begin(hasty.port, 8);
    eventually("the log has the fix", || {
        hasty.log().contains("add the parameter statement-cache-capacity=0 to DATABASE_URL")
    });
    let (_, failures) = load.end();
    assert!(failures.iter().all(|failure| failure.starts_with("answer: HTTP/1.1 503 ")), "{failures:?}");

    // A lock of a session would be everybody's.
    let done = migrate_command(&["up"], &[("DATABASE_URL", &lent)]).output().unwrap();
    assert_eq!(code(&done), 78);
    assert!(stderr(&done).contains("use the URL of the server itself"), "{}", stderr(&done));
}

fn a_pooler_that_tracks_statements_needs_no_parameter(database: &Database) {
    let server = Server::start(database.engine);
    server.admin().execute("CREATE DATABASE app");
    seed(&server.url("app"));
    let pooler = Pooler::start_as(Tool::TrackingPgbouncer, Mode::Transaction, &server, 2);
    let web = Web::start_at(&pooler.url(""), &[("DATABASE_MAX_CONNECTIONS", "8")]);
    assert_serves_load(&web);

    // The pooler assigns these sessions to its next clients, so `web` must not have changed a setting. The pooler
    // tracks the parameters that the server reports to its clients.
    let changed = "SELECT COUNT(*) FROM pg_settings WHERE source = 'session' AND name NOT IN ('DateStyle', 'IntervalStyle', \
         'TimeZone', 'application_name', 'client_encoding', 'default_transaction_read_only', 'scram_iterations', \
         'search_path', 'standard_conforming_strings')";
    let mut clients = [Sql::connect(&pooler.url("")), Sql::connect(&pooler.url(""))];
    for client in &mut clients {
        client.execute("BEGIN");
        assert_eq!(client.number(changed), 0);
    }
}

/// A session lock protects nothing if clients share the session.
fn migrate_refuses_a_pooler_that_shares_sessions(database: &Database) {
    let server = Server::start(database.engine);
    server.admin().execute("CREATE DATABASE app");
    let url = server.url("app");
    for (version, connections) in [(Tool::TrackingPgbouncer, 4), (Tool::Pgbouncer, 4), (Tool::Pgbouncer, 1)] {
        if !version.is_installed() {
            continue;
        }
        let pooler = Pooler::start_as(version, Mode::Transaction, &server, connections);
        for task in ["up", "status"] {
            let done = migrate_command(&[task], &[("DATABASE_URL", &pooler.url(""))]).output().unwrap();
            assert_eq!(code(&done), 78, "{version:?}: {}", stderr(&done));
            assert!(stderr(&done).contains("use the URL of the server itself"), "{}", stderr(&done));
        }
        let done = process::web(&[], &[("DATABASE_URL", &pooler.url("")), ("AUTO_MIGRATE", "true")]);
        assert_ne!(code(&done), 0);
        assert!(stderr(&done).contains("use the URL of the server itself"), "{}", stderr(&done));
    }
    assert_eq!(
        Sql::connect(&url)
            .number(&format!("SELECT COUNT(*) FROM information_schema.tables WHERE table_name = '{TABLE}'")),
        0
    );

    // With session pooling, a session belongs to one client.
    for version in [Tool::TrackingPgbouncer, Tool::Pgbouncer] {
        if version.is_installed() {
            seed(&Pooler::start_as(version, Mode::Session, &server, 4).url(""));
        }
    }
    assert_eq!(Sql::connect(&url).number(COUNT), 2);
}

fn a_server_that_is_full_is_told(database: &Database) {
    let server = Server::start(database.engine);
    let mut admin = server.admin();
    admin.execute("CREATE DATABASE app");
    // Whoever administers the server may come in all the same, so others fill it.
    let (setup, told) = match database.engine.family() {
        Family::Sqlite => unreachable!("it has no server"),
        Family::MySql => (
            [
                "CREATE USER roster IDENTIFIED BY 'word'",
                "GRANT ALL ON app.* TO roster",
                "SET GLOBAL max_connections = 10",
            ],
            "Too many connections",
        ),
        Family::Postgres => (
            [
                "CREATE ROLE roster LOGIN PASSWORD 'word'",
                "ALTER DATABASE app OWNER TO roster",
                // Enough for all connections of `web`, and for one other session.
                "ALTER DATABASE app CONNECTION LIMIT 6",
            ],
            "too many connections",
        ),
    };
    for sql in setup {
        admin.execute(sql);
    }
    let url = server.url_of("roster:word", "app");
    seed(&url);
    let mut others = Vec::new();
    while let Some(other) = Sql::try_connect(&url) {
        others.push(other);
    }
    let web = Web::start_at(&url, &[]);
    let answer = web.get(LISTING);
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert_eq!((web.get("/readyz").status, web.get("/livez").status), (503, 200));
    eventually("the cause is logged", || web.log().contains(told));
    others.truncate(1);
    eventually("it serves", || web.get(LISTING).status == 200);
    eventually("it is ready", || web.get("/readyz").status == 200);
}

/// The server ends a session that says nothing for a second; nobody notices.
fn connections_that_were_idle_too_long_cost_nothing(database: &Database) {
    let server = Server::start(database.engine);
    let mut admin = server.admin();
    admin.execute("CREATE DATABASE app");
    admin.execute("SET GLOBAL wait_timeout = 1");
    let url = server.url("app");
    seed(&url);
    let web = Web::start_at(&url, &[("DATABASE_MAX_CONNECTIONS", "4")]);
    let mut admin = server.admin();
    for _ in 0..3 {
        assert_eq!(ask_at_once(&web), 4);
        let sessions = "SELECT COUNT(*) FROM information_schema.processlist WHERE db = 'app'";
        eventually("the server ended them", || admin.number(sessions) == 0);
    }
}

/// A server of its own behind a network, and a process that is limited to a second in all.
fn behind_a_network(engine: Engine) -> (Server, Proxy, Web) {
    let server = Server::start(engine);
    server.admin().execute("CREATE DATABASE app");
    let url = server.url("app");
    seed(&url);
    let proxy = Proxy::start(server.socket());
    let url = match engine.family() {
        Family::Sqlite => unreachable!("it has no server"),
        Family::MySql => format!("mysql://root@127.0.0.1:{}/app", proxy.port),
        Family::Postgres => format!("postgres://postgres@127.0.0.1:{}/app", proxy.port),
    };
    let limits = [
        ("DATABASE_QUERY_TIMEOUT_MS", "700"),
        ("DATABASE_ACQUIRE_TIMEOUT_MS", "300"),
        ("DATABASE_MAX_CONNECTIONS", "4"),
    ];
    let web = Web::start_at(&url, &limits);
    (server, proxy, web)
}

/// As many requests at once as there are connections, so that each of those is used; tells how many were answered.
fn ask_at_once(web: &Web) -> usize {
    let statuses = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let started = Instant::now();
                statuses.lock().unwrap().push(web.get(LISTING).status);
                // Ten times what the limits come to: a request that nobody bounds would wait for minutes.
                assert!(started.elapsed() < Duration::from_secs(10));
            });
        }
    });
    let statuses = statuses.into_inner().unwrap();
    assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
    statuses.iter().filter(|status| **status == 200).count()
}

fn connections_that_fall_silent_are_replaced(database: &Database) {
    let (_server, proxy, web) = behind_a_network(database.engine);
    eventually("it serves", || ask_at_once(&web) == 4);
    for _ in 0..3 {
        let opened = proxy.opened();
        proxy.silence();
        // Each silent connection costs one request at most, and whoever asks next has a new one.
        eventually("it serves again", || ask_at_once(&web) == 4);
        assert!(proxy.opened() > opened);
        assert_eq!(web.get("/livez").status, 200);
    }
}

fn a_server_that_falls_silent_is_told_in_time(database: &Database) {
    let (_server, proxy, web) = behind_a_network(database.engine);
    eventually("it serves", || ask_at_once(&web) == 4);
    proxy.silence_all();
    for _ in 0..3 {
        assert_eq!(ask_at_once(&web), 0);
        assert_eq!(web.get("/readyz").status, 503);
        assert_eq!(web.get("/livez").status, 200);
    }
    proxy.heal();
    eventually("it serves again", || ask_at_once(&web) == 4);
    eventually("it is ready", || web.get("/readyz").status == 200);
}

/// A server with the database `app` and a user for it, and its port.
fn server_with_certificate(engine: Engine, certificate: Option<&Certificate>) -> (Server, u16) {
    let (server, port) = Server::start_with_certificate(engine, certificate);
    let mut admin = server.admin();
    admin.execute("CREATE DATABASE app");
    if engine.family() == Family::MySql {
        admin.execute("CREATE USER roster");
        admin.execute("GRANT ALL ON app.* TO roster");
    }
    (server, port)
}

/// Certificates of older tutorials: each is accepted, or the error has the reason and the fix.
fn a_certificate_that_cannot_be_verified_is_explained(database: &Database) {
    let engine = database.engine;
    let folder = tempfile::TempDir::with_prefix("roster-tls-").unwrap();
    let file = folder.path().join("authority.pem");
    let start = |certificate: &Certificate| {
        std::fs::write(&file, &certificate.authority).unwrap();
        server_with_certificate(engine, Some(certificate))
    };
    let up = |port: u16, mode: &str| {
        let user = match engine.family() {
            Family::Sqlite => unreachable!("it has no server"),
            Family::MySql => "mysql://roster",
            Family::Postgres => "postgres://postgres",
        };
        let authority = if mode.starts_with("verify") { format!("&ssl-ca={}", file.display()) } else { String::new() };
        let url = format!("{user}@localhost:{port}/app?sslmode={mode}{authority}");
        migrate_command(&["up"], &[("DATABASE_URL", &url)]).output().unwrap()
    };
    let (_server, port) = start(&Certificate::of_version_1("localhost"));
    for mode in ["prefer", "require", "verify-ca"] {
        let done = up(port, mode);
        let message = stderr(&done);
        assert_eq!(code(&done), 69, "{mode}: {message}");
        assert!(
            message.contains("X.509 version 1") && message.contains("issue a certificate of version 3"),
            "{mode}: {message}"
        );
    }
    let (_server, port) = start(&Certificate::self_signed("localhost", true));
    let done = up(port, "verify-full");
    let message = stderr(&done);
    assert_eq!(code(&done), 69, "{message}");
    assert!(message.contains("CA:TRUE") && message.contains("CA:FALSE"), "{message}");
    for usable in [Certificate::self_signed("localhost", false), Certificate::of_authority_of_version_1("localhost")] {
        let (_server, port) = start(&usable);
        let done = up(port, "verify-full");
        assert_eq!(code(&done), 0, "{}", stderr(&done));
    }
}

/// By its certificate and its name; never is it talked to in plain text instead.
fn a_server_is_verified_when_that_is_asked(database: &Database) {
    let engine = database.engine;
    let own = Certificate::for_host("localhost");
    let foreign = Certificate::for_host("elsewhere.example");
    let folder = tempfile::TempDir::with_prefix("roster-tls-").unwrap();
    let authority = |name: &str, text: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        file.display().to_string()
    };
    let (right, other) = (authority("right.pem", &own.authority), authority("other.pem", &foreign.authority));
    let missing = folder.path().join("missing.pem").display().to_string();
    let verified = |port: u16, authority: &str| match engine.family() {
        Family::Sqlite => unreachable!("it has no server"),
        Family::MySql => format!("mysql://roster@localhost:{port}/app?ssl-mode=VERIFY_IDENTITY&ssl-ca={authority}"),
        Family::Postgres => {
            format!("postgres://postgres@localhost:{port}/app?sslmode=verify-full&sslrootcert={authority}")
        }
    };
    let start = |certificate: Option<&Certificate>| server_with_certificate(engine, certificate);
    let up = |url: &str| migrate_command(&["up"], &[("DATABASE_URL", url)]).output().unwrap();

    let (_server, port) = start(Some(&own));
    let done = up(&verified(port, &right));
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    let web = Web::start_at(&verified(port, &right), &[]);
    assert_eq!(web.get(LISTING).status, 200);

    let (_foreign_server, foreign_port) = start(Some(&foreign));
    let (_plain_server, plain_port) = start(None);
    for (port, authority, told) in
        [(port, &other, "UnknownIssuer"), (foreign_port, &other, "elsewhere.example"), (plain_port, &right, "TLS")]
    {
        let url = verified(port, authority);
        let done = up(&url);
        assert_ne!(code(&done), 0, "{told}");
        assert!(stderr(&done).contains(told), "{told}: {}", stderr(&done));
        let web = Web::start_at(&url, &[]);
        assert_eq!((web.get("/readyz").status, web.get(LISTING).status), (503, 503));
        eventually("the cause is logged", || web.log().contains(told));
    }
    let done = up(&verified(port, &missing));
    assert_eq!(code(&done), 78);
    let told = stderr(&done);
    assert!(told.contains("DATABASE_URL: ssl") && told.contains("the file that it names cannot be read"), "{told}");
}

fn a_missing_file_is_told_with_its_remedy(database: &Database) {
    let url = database.url.replace("?mode=rwc", "");
    let done = migrate_command(&["up"], &[("DATABASE_URL", &url)]).output().unwrap();
    assert_eq!(code(&done), 69);
    assert!(stderr(&done).contains("roster.db") && stderr(&done).contains("?mode=rwc"), "{}", stderr(&done));
    assert!(!database.file().exists());
}

fn a_database_that_is_read_only_is_served(database: &Database) {
    drop(Web::seeded(database));
    let url = database.url.replace("mode=rwc", "mode=ro");
    let web = Web::start_at(&url, &[]);
    assert_eq!((web.get("/readyz").status, web.get(LISTING).status), (200, 200));
    let done = migrate_command(&["seed", "3"], &[("DATABASE_URL", &url)]).output().unwrap();
    assert_eq!(code(&done), 71);
    assert!(stderr(&done).contains("it is read-only"), "{}", stderr(&done));
}

fn an_unreachable_host_is_told() {
    for (url, address) in [
        ("postgres://u:canary@127.0.0.1:1/app", "127.0.0.1:1"),
        ("mysql://u:canary@127.0.0.1:1/app", "127.0.0.1:1"),
        ("mysql://u:canary@no.such.host.invalid/app", "no.such.host.invalid:3306"),
        ("postgres://u:canary@no.such.host.invalid/app", "no.such.host.invalid:5432"),
    ] {
        let done = migrate_command(&["up"], &[("DATABASE_URL", url)]).output().unwrap();
        assert_eq!(code(&done), 69);
        assert!(stderr(&done).contains(&format!("cannot connect to the database at {address}: ")), "{}", stderr(&done));
        assert!(!stderr(&done).contains("canary"));
    }
}
