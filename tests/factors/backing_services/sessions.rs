//! Sessions of a database: how many there are, how they are set up, what they do after their request, and which faults
//! they survive.

use std::fs;
use std::future::poll_fn;
use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::task::Poll;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libtest_mimic::Trial;
use roster::config::{ApiTokens, Config};
use roster::db::{Db, Error};
use roster::listing::{Listing, Resource as _, page};
use roster::users::{User, Users};
use tokio::runtime::{Builder, Runtime};

use crate::support::engine::{Database, Engine, Family, Server};
use crate::support::process::{CLIENT, TOKEN, Web, code, migrate_command, migrated, seed, stderr};
use crate::support::resource::{COUNT, LISTING, insert};
use crate::support::sql::Sql;
use crate::support::{Tests, eventually, tests};
// [only servers]
use crate::support::resource::{listing, table};
// [end]

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!())
        .on(
            &Engine::SERVERS,
            tests![
                sessions_never_exceed_their_number,
                hostile_defaults_change_nothing,
                a_passing_fault_keeps_its_connection,
                a_schema_error_keeps_its_connection,
                readiness_does_not_depend_on_the_pool
            ],
        )
        .each(tests![
            nothing_is_committed_after_its_timeout,
            an_abandoned_statement_ends_in_the_database,
            an_abandoned_answer_is_read_by_no_other_query,
            a_passing_fault_of_a_task_is_69
        ])
        .on(&Engine::MYSQL, tests![a_server_without_room_for_a_statement_is_unavailable])
        .on(&Engine::POSTGRES, tests![a_value_of_a_client_is_a_bad_request])
        .trials()
}

/// The sessions of clients in `pg_stat_activity`. The view also shows the workers of autovacuum.
const CLIENTS: &str = "datname = current_database() AND backend_type = 'client backend'";

/// Counts the sessions of a database, without that of the caller and of one other.
fn sessions(sql: &mut Sql, database: &Database, other: i64) -> i64 {
    sql.number(&match database.engine.family() {
        Family::Sqlite => unreachable!("it has no server"),
        Family::MySql => {
            let (id, list) = process_list(database);
            format!("SELECT COUNT(*) FROM {list} AND {id} NOT IN (CONNECTION_ID(), {other})")
        }
        Family::Postgres => format!(
            "SELECT count(*) FROM pg_stat_activity \
             WHERE {CLIENTS} AND pid NOT IN (pg_backend_pid(), {other})"
        ),
    })
}

/// The column and the rows that show the sessions of a database of the MySQL family. MySQL fails to convert some of the
/// statements in its own `information_schema`.
fn process_list(database: &Database) -> (&'static str, &'static str) {
    match database.engine {
        Engine::Sqlite | Engine::Postgres | Engine::Postgres18 => unreachable!("it is not of the family"),
        Engine::MySql => ("PROCESSLIST_ID", "performance_schema.threads WHERE PROCESSLIST_DB = DATABASE()"),
        Engine::MariaDb => ("id", "information_schema.processlist WHERE db = DATABASE()"),
    }
}

/// The number of a session in its server.
fn session_id(sql: &mut Sql, database: &Database) -> i64 {
    sql.number(match database.engine.family() {
        Family::Sqlite => unreachable!("it has no server"),
        Family::MySql => "SELECT CAST(CONNECTION_ID() AS SIGNED)",
        Family::Postgres => "SELECT pg_backend_pid()::bigint",
    })
}

/// The sessions of a database, by their numbers, without that of the caller.
fn ids(database: &Database) -> Vec<String> {
    database.sql().texts(&match database.engine.family() {
        Family::Sqlite => unreachable!("it has no server"),
        Family::MySql => {
            let (id, list) = process_list(database);
            format!("SELECT CAST({id} AS CHAR) FROM {list} AND {id} <> CONNECTION_ID() ORDER BY {id}")
        }
        Family::Postgres => {
            format!("SELECT pid::text FROM pg_stat_activity WHERE {CLIENTS} AND pid <> pg_backend_pid() ORDER BY pid")
        }
    })
}

/// Rounds of requests that time out, and of clients that hang up, while a lock keeps every statement waiting.
fn sessions_never_exceed_their_number(database: &Database) {
    const CONNECTIONS: i64 = 4;
    drop(Web::seeded(database));
    eventually("the sessions before are gone", || ids(database).is_empty());
    let limits = [
        ("DATABASE_QUERY_TIMEOUT_MS", "200"),
        ("DATABASE_ACQUIRE_TIMEOUT_MS", "200"),
        ("DATABASE_MAX_CONNECTIONS", "4"),
        ("WEB_CONCURRENCY", "2"),
    ];
    let mut lock = database.hold_rows();
    let other = session_id(&mut lock, database);
    let (over, most) = (AtomicBool::new(false), AtomicI64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut sql = database.sql();
            while !over.load(Ordering::Relaxed) {
                most.fetch_max(sessions(&mut sql, database, other), Ordering::Relaxed);
            }
        });
        let web = Web::start(database, &limits);
        for _ in 0..10 {
            thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| assert_eq!(web.get(LISTING).status, 503));
                    scope.spawn(|| {
                        let mut client = TcpStream::connect(("127.0.0.1", web.port)).unwrap();
                        client.write_all(format!("GET {LISTING} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
                        thread::sleep(Duration::from_millis(50));
                        client.shutdown(Shutdown::Both).unwrap();
                    });
                }
            });
            // It has a connection of its own.
            web.get("/readyz");
        }
        drop(lock);
        eventually("it serves again", || web.get(LISTING).status == 200);
        over.store(true, Ordering::Relaxed);
    });
    // One more, for readiness.
    let most = most.into_inner();
    assert!((2..=CONNECTIONS + 1).contains(&most), "{most} sessions");
}

/// A pool in this process, with the limits of a test.
fn pool(database: &Database) -> (Runtime, Db) {
    let vars = [
        ("DATABASE_URL", database.url.as_str()),
        ("DATABASE_QUERY_TIMEOUT_MS", "300"),
        ("DATABASE_ACQUIRE_TIMEOUT_MS", "5000"),
        ("DATABASE_MAX_CONNECTIONS", "1"),
        ("WEB_CONCURRENCY", "1"),
    ];
    let config = Config::from_vars(vars.map(|(name, value)| (name.to_owned(), value.to_owned()))).unwrap();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    (runtime, Db::open(&config))
}

/// Whether no session is left of the statements that were given up. Their tasks run while this waits.
fn has_ended(runtime: &Runtime, db: &Db) -> bool {
    runtime.block_on(async { tokio::time::sleep(Duration::from_millis(10)).await });
    db.connections().used == 0
}

/// A write that waits for a row of another transaction, or for its table, and is given up.
fn nothing_is_committed_after_its_timeout(database: &Database) {
    const LATE: &str = insert!("late");
    migrated(database, &["up"]);
    let (runtime, db) = pool(database);
    let mut sql = database.sql();
    for round in 0..4 {
        let lock = || {
            let mut other = database.sql();
            other.execute(if database.engine.family() == Family::Sqlite { "BEGIN IMMEDIATE" } else { "BEGIN" });
            other.execute(LATE);
            other
        };
        // [only servers]
        let is_row = round % 2 == 0;
        // [end]
        // [only several]
        let is_row = is_row || database.engine.family() == Family::Sqlite;
        // [end]
        // [only servers]
        let lock = || if is_row { lock() } else { database.hold_rows() };
        // [end]
        let lock = lock();
        let outcome = runtime.block_on(db.execute(&[LATE]));
        assert!(matches!(outcome, Err(Error::Timeout(_) | Error::Transient(_))), "{outcome:?}");
        // The statement can go on now, if it is still there.
        drop(lock);
        eventually("its session has ended", || has_ended(&runtime, &db));
        assert_eq!(sql.number(COUNT), 0, "round {round}");
    }
    runtime.block_on(db.execute(&[LATE])).unwrap();
    assert_eq!(sql.number(COUNT), 1);
}

/// By its time limit in the server, or by SQLite's interrupt. Its connection can be used again.
fn an_abandoned_statement_ends_in_the_database(database: &Database) {
    migrated(database, &["up"]);
    let (runtime, db) = pool(database);
    let endless: &'static str = match database.engine.family() {
        Family::Sqlite => "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
        Family::MySql => "SELECT SLEEP(1000)",
        Family::Postgres => "SELECT pg_sleep(1000)",
    };
    runtime.block_on(db.execute(&["SELECT 1"])).unwrap();
    // [only servers]
    let before = (database.engine.family() != Family::Sqlite).then(|| ids(database));
    // [end]
    let outcome = runtime.block_on(db.execute(&[endless]));
    assert!(matches!(outcome, Err(Error::Timeout(_))), "{outcome:?}");
    assert_eq!(db.connections().used, 1, "its place is taken as long as its statement is there");
    eventually("its place is free", || has_ended(&runtime, &db));
    assert_eq!(db.connections().idle, 1, "it was not closed");
    runtime.block_on(db.execute(&["SELECT 1"])).unwrap();
    // [only servers]
    assert_eq!((database.engine.family() != Family::Sqlite).then(|| ids(database)), before);
    // [end]
}

/// Polls a future a number of times at most, and drops it.
async fn poll_and_drop<T>(future: impl Future<Output = T>, polls: usize) {
    let (mut future, mut left) = (std::pin::pin!(future), polls);
    poll_fn(|context| match left.checked_sub(1) {
        None => Poll::Ready(()),
        Some(fewer) => {
            left = fewer;
            future.as_mut().poll(context).map(drop)
        }
    })
    .await;
}

/// Queries that share no statement are dropped at each point at which they wait, before their statement is prepared and
/// after.
fn an_abandoned_answer_is_read_by_no_other_query(database: &Database) {
    migrated(database, &["up"]);
    migrated(database, &["seed", "500"]);
    let (runtime, db) = pool(database);
    let listing = Listing {
        table: Users::TABLE,
        scope: None,
        column: 0,
        descending: false,
        prefix: None,
        after: None,
        limit: 1000,
    };
    for polls in (0..30).chain(0..30) {
        for limit in [101, 1000] {
            let listing = Listing { limit, ..listing.clone() };
            runtime.block_on(poll_and_drop(page::<Users, _>(&db, &listing, || (), |(), _| {}), polls));
            eventually("its statement has ended", || has_ended(&runtime, &db));
        }
        let push = |ids: &mut Vec<i64>, user: User<'_>| ids.push(user.id);
        let (ids, _) = runtime.block_on(page::<Users, _>(&db, &listing, Vec::new, push)).unwrap();
        assert_eq!(ids, (1..=500).collect::<Vec<_>>(), "after {polls} polls");
    }
}

/// Settings that an administrator, a host or a former version may have made for everybody.
fn hostile_defaults_change_nothing(database: &Database) {
    let server = Server::start(database.engine);
    let mut admin = server.admin();
    let settings: &[&str] = match database.engine.family() {
        Family::Sqlite => unreachable!("it has no server"),
        Family::MySql => &[
            "CREATE DATABASE app CHARACTER SET latin1",
            // Statements of `init_connect` are not for administrators.
            "CREATE USER roster IDENTIFIED BY 'word'",
            "GRANT ALL ON app.* TO roster",
            "SET GLOBAL init_connect = 'SET autocommit = 0, NAMES latin1, sql_select_limit = 1'",
            "SET GLOBAL autocommit = 0",
            "SET GLOBAL TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            "SET GLOBAL sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES'",
            "SET GLOBAL time_zone = '+09:00'",
            "SET GLOBAL character_set_server = latin1",
            "SET GLOBAL character_set_client = latin1",
            "SET GLOBAL character_set_connection = latin1",
            "SET GLOBAL character_set_results = latin1",
            "SET GLOBAL completion_type = 'RELEASE'",
            "SET GLOBAL sql_select_limit = 1",
            "SET GLOBAL lc_messages = 'ja_JP'",
            "SET GLOBAL foreign_key_checks = 0",
            "SET GLOBAL unique_checks = 0",
        ],
        Family::Postgres => &[
            "CREATE DATABASE app",
            "CREATE ROLE roster LOGIN PASSWORD 'word'",
            "ALTER DATABASE app OWNER TO roster",
            "ALTER DATABASE app SET default_transaction_isolation = 'serializable'",
            "ALTER DATABASE app SET timezone = 'Asia/Tokyo'",
            "ALTER DATABASE app SET client_encoding = 'LATIN1'",
            "ALTER DATABASE app SET datestyle = 'German'",
            "ALTER DATABASE app SET standard_conforming_strings = off",
            "ALTER DATABASE app SET plan_cache_mode = 'force_custom_plan'",
            "ALTER ROLE roster SET statement_timeout = '1s'",
            "ALTER ROLE roster SET idle_in_transaction_session_timeout = '1s'",
        ],
    };
    for sql in settings {
        admin.execute(sql);
    }
    if database.engine == Engine::MariaDb {
        admin.execute("SET GLOBAL max_statement_time = 1");
    }
    let url = server.url_of("roster:word", "app");
    let migrate = |arguments: &[&str]| {
        let done = migrate_command(arguments, &[("DATABASE_URL", &url)]).output().unwrap();
        assert_eq!(code(&done), 0, "{}", stderr(&done));
        String::from_utf8(done.stdout).unwrap()
    };
    migrate(&["up"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users.csv").display().to_string();
    let csv = "username,email\nMüller,m@example.com\n😀,smile@example.com\nback\\slash,b@example.com\n";
    fs::write(&file, csv).unwrap();
    // A task may take longer than the server lets a statement take by default.
    let mut other = Sql::connect(&server.url("app"));
    thread::scope(|scope| {
        other.execute(match database.engine.family() {
            Family::Sqlite => unreachable!("it has no server"),
            Family::MySql => concat!("LOCK TABLES ", table!(), " WRITE"),
            Family::Postgres => concat!("BEGIN; LOCK TABLE ", table!()),
        });
        let import = scope.spawn(|| migrate(&["import", &file]));
        thread::sleep(Duration::from_millis(1500));
        other.execute(if database.engine.family() == Family::MySql { "UNLOCK TABLES" } else { "COMMIT" });
        import.join().unwrap();
    });

    let pair = ApiTokens::pair(CLIENT, TOKEN).unwrap();
    let web = Web::start_at(
        &url,
        &[("DATABASE_MAX_CONNECTIONS", "1"), ("DATABASE_ACQUIRE_TIMEOUT_MS", "10000"), ("API_TOKENS", &pair)],
    );
    let names =
        || web.all(LISTING).iter().map(|user| user["username"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(names(), ["Müller", "😀", "back\\slash"]);
    // A row of another session is seen at once.
    other.execute(insert!("later"));
    if database.engine.family() == Family::MySql {
        other.execute("COMMIT");
    }
    assert_eq!(names().len(), 4);
    assert_eq!(migrate(&["export", "-", "--format", "ndjson"]).lines().count(), 4);

    // The name of a constraint is a part of a message.
    let taken = web.write("POST", LISTING, &[], r#"{"username":"LATER","email":"other@example.com"}"#);
    assert_eq!(taken.status, 409, "{}", taken.body);

    // Times are in UTC.
    let status: serde_json::Value = serde_json::from_str(&migrate(&["status", "--json"])).unwrap();
    let at = status[0]["applied_at"].as_str().unwrap();
    let today = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 3600;
    let hour: u64 = at[11..13].parse().unwrap();
    assert!([today % 24, (today + 23) % 24].contains(&hour), "{at}");
}

/// A statement that fails with this code of the engine, in the real server.
fn failing(database: &Database, number: &str) -> &'static str {
    let sql = match database.engine.family() {
        Family::Sqlite => unreachable!("it has no server"),
        Family::MySql => format!("SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = {number}, MESSAGE_TEXT = 'provoked'"),
        Family::Postgres => format!("DO $$ BEGIN RAISE EXCEPTION 'provoked' USING ERRCODE = '{number}'; END $$"),
    };
    // A few, in a test.
    Box::leak(sql.into_boxed_str())
}

fn a_passing_fault_keeps_its_connection(database: &Database) {
    let (runtime, db) = pool(database);
    let passing: &[&str] = match database.engine.family() {
        Family::Sqlite => unreachable!("it has no server"),
        Family::MySql => &["1020", "1205", "1213", "1412", "1461", "1637", "1969", "3024", "3101", "3572"],
        Family::Postgres => &["40001", "40P01", "53100", "53200", "53400", "55006", "55P03", "57014", "58000", "58030"],
    };
    runtime.block_on(db.execute(&["SELECT 1"])).unwrap();
    let before = ids(database);
    for number in passing {
        let error = runtime.block_on(db.execute(&[failing(database, number)])).unwrap_err();
        assert!(matches!(error, Error::Transient(_)) && error.is_transient(), "{number}: {error:?}");
    }
    eventually("the session of the test has ended", || ids(database) == before);
    let (read_only, value, lost) = match database.engine.family() {
        Family::Sqlite => unreachable!("it has no server"),
        Family::MySql => ("1290", "1406", "1047"),
        Family::Postgres => ("25006", "22021", "57P01"),
    };
    let error = runtime.block_on(db.execute(&[failing(database, value)])).unwrap_err();
    assert!(matches!(error, Error::Value(_)) && !error.to_string().contains("provoked"), "{error:?}");
    eventually("the session of the test has ended", || ids(database) == before);
    // The server that took over is found by a new connection.
    let error = runtime.block_on(db.execute(&[failing(database, read_only)])).unwrap_err();
    assert!(matches!(error, Error::ReadOnly(_)) && error.is_transient(), "{error:?}");
    let error = runtime.block_on(db.execute(&[failing(database, lost)])).unwrap_err();
    assert!(matches!(error, Error::Lost(_)) && error.is_transient(), "{error:?}");
    runtime.block_on(db.execute(&["SELECT 1"])).unwrap();
    assert_ne!(ids(database), before);
}

/// Before the first migration, every request meets an error of the schema.
fn a_schema_error_keeps_its_connection(database: &Database) {
    let web = Web::start(database, &[("DATABASE_MAX_CONNECTIONS", "1")]);
    assert_eq!(web.get(LISTING).status, 503);
    assert_eq!(web.get("/readyz").status, 503);
    let before = ids(database);
    for _ in 0..5 {
        assert_eq!(web.get(LISTING).status, 503);
        assert_eq!(web.get("/readyz").status, 503);
    }
    assert_eq!(ids(database), before);
    assert_eq!(before.len(), 2);
}

fn a_passing_fault_of_a_task_is_69(database: &Database) {
    migrated(database, &["up"]);
    let setup: Option<String> = match database.engine.family() {
        Family::Sqlite => None,
        // For this one test alone, it is the server's minimum, and no test waits for a lock to succeed.
        Family::MySql => Some("SET GLOBAL innodb_lock_wait_timeout = 1".to_owned()),
        Family::Postgres => {
            let name = database.url.split('?').next().unwrap().rsplit('/').next().unwrap();
            Some(format!("ALTER DATABASE {name} SET lock_timeout = '100ms'"))
        }
    };
    if let Some(sql) = setup {
        database.sql().execute(&sql);
    }
    let mut other = database.sql();
    other.execute(if database.engine.family() == Family::Sqlite { "BEGIN IMMEDIATE" } else { "BEGIN" });
    other.execute(insert!("admin"));
    let done = migrate_command(&["seed"], &[("DATABASE_URL", &database.url)]).output().unwrap();
    assert_eq!(code(&done), 69, "{}", stderr(&done));
    drop(other);
    migrated(database, &["seed"]);
}

/// `max_prepared_stmt_count` is of the whole server.
fn a_server_without_room_for_a_statement_is_unavailable(database: &Database) {
    let server = Server::start(database.engine);
    server.admin().execute("CREATE DATABASE app");
    let url = server.url("app");
    seed(&url);
    let web = Web::start_at(&url, &[("DATABASE_MAX_CONNECTIONS", "1")]);
    server.admin().execute("SET GLOBAL max_prepared_stmt_count = 0");
    let answer = web.get(LISTING);
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{}", answer.body);
    server.admin().execute("SET GLOBAL max_prepared_stmt_count = 1000");
    assert_eq!(web.get(LISTING).status, 200);
}

/// A database in another encoding cannot compare every character of a search.
fn a_value_of_a_client_is_a_bad_request(database: &Database) {
    let server = Server::start(database.engine);
    server.admin().execute("CREATE DATABASE app ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
    let url = server.url("app");
    seed(&url);
    let web = Web::start_at(&url, &[]);
    assert_eq!(web.get(listing!("?q=adm")).status, 200);
    let answer = web.get(listing!("?q=%F0%9F%98%80"));
    assert_eq!(answer.status, 400, "{}", answer.body);
    eventually("the cause is logged", || web.log().contains("22P05"));
}

/// Overloaded processes stay ready: without them, no process is left. Each request that waits is counted once.
fn readiness_does_not_depend_on_the_pool(database: &Database) {
    drop(Web::seeded(database));
    let limits = [
        ("DATABASE_QUERY_TIMEOUT_MS", "5000"),
        ("DATABASE_ACQUIRE_TIMEOUT_MS", "5000"),
        ("DATABASE_MAX_CONNECTIONS", "2"),
        ("WEB_CONCURRENCY", "2"),
    ];
    let web = Web::start(database, &limits);
    let lock = database.hold_rows();
    let gauge = |name| web.metric(name);
    thread::scope(|scope| {
        let request = |count| {
            for _ in 0..count {
                scope.spawn(|| assert_eq!(web.get(listing!("?limit=101")).status, 200));
            }
        };
        request(2);
        eventually("the pool is in use", || gauge("db_client_connections{db_client_connection_state=\"used\"}") == 2);
        request(3);
        eventually("the others wait", || gauge("db_client_connection_pending_requests") >= 3);
        for _ in 0..20 {
            assert_eq!(gauge("db_client_connection_pending_requests"), 3);
            assert_eq!(web.get("/readyz").status, 200);
        }
        drop(lock);
    });
    assert_eq!(gauge("db_client_connection_pending_requests"), 0);
}
