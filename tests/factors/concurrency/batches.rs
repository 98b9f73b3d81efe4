//! Requests that wait together share a statement, and nothing else.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::Duration;

use libtest_mimic::Trial;
use socket2::SockRef;

use crate::support::engine::{Database, Engine, Family};
use crate::support::fault_proxy::Proxy;
use crate::support::process::{Answer, Web, migrated};
use crate::support::resource::{LISTING, faulty_rows, insert, listing, related};
use crate::support::{Tests, eventually, tests};

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!())
        .each(tests![
            requests_that_wait_together_share_a_statement,
            requests_one_by_one_share_no_statement,
            a_slow_page_does_not_fail_other_requests,
            a_disconnect_does_not_fail_other_requests,
            each_request_has_its_own_acquire_timeout,
            a_drain_answers_those_that_wait,
            a_response_has_what_was_written_before_its_request,
            every_character_of_a_row_arrives,
            an_error_of_one_page_does_not_fail_the_others
        ])
        // The statement of a server ends when its limit does.
        .on(&[Engine::Sqlite], tests![a_statement_ends_with_its_clients, a_database_in_utf_16_is_read])
        .on(
            &Engine::SERVERS,
            tests![a_failed_statement_fails_only_its_own_requests, a_connection_that_does_not_open_delays_no_request],
        )
        .trials()
}

/// The row that is never read to its end, and the pages with it and without it. They have one shape.
const ENDLESS: i64 = 7;
/// A row that cannot be read.
const BROKEN: i64 = 9;
const WITH_IT: &str = listing!("?limit=9");
/// Such a page that is too large to share a statement.
const LARGE: &str = listing!("?limit=101");
const WITHOUT_IT: [&str; 5] =
    [listing!("?limit=1"), listing!("?limit=2"), listing!("?limit=3"), listing!("?limit=4"), listing!("?limit=5")];

/// One worker with one connection, for which requests wait until they have their answer.
const ONE_CONNECTION: [(&str, &str); 3] =
    [("WEB_CONCURRENCY", "1"), ("DATABASE_MAX_CONNECTIONS", "1"), ("DATABASE_ACQUIRE_TIMEOUT_MS", "20000")];

/// A server with one worker, and a database with an endless row.
fn start(database: &Database, environment: &[(&str, &str)]) -> Web {
    migrated(database, &["up"]);
    migrated(database, &["seed", "50"]);
    for statement in faulty_rows(database.engine.family(), ENDLESS, BROKEN) {
        database.sql().execute(&statement);
    }
    Web::start(database, &ONE_CONNECTION.into_iter().chain(environment.iter().copied()).collect::<Vec<_>>())
}

fn waiting(web: &Web) -> usize {
    web.metric("db_client_connection_pending_requests")
}

/// How many statements were those of this number of requests.
fn statements(web: &Web, requests: usize) -> usize {
    let metrics = web.get("/metrics").body;
    // The statements of up to this size, and those of up to the next smaller one.
    let [upper, lower] = [requests, requests / 2].map(|size| {
        let bucket = format!("db_client_operation_batch_size_bucket{{le=\"{size}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&*bucket)).map_or(0, |count| count.parse().unwrap())
    });
    upper - lower
}

/// Requests large pages with the endless row, so that this number of connections is in use.
fn occupy<'scope>(
    scope: &'scope Scope<'scope, '_>,
    web: &'scope Web,
    connections: usize,
) -> Vec<ScopedJoinHandle<'scope, Answer>> {
    let handles = (1..=connections).map(|count| {
        let handle = scope.spawn(|| web.get(LARGE));
        eventually("a connection is in use", || {
            web.metric("db_client_connections{db_client_connection_state=\"used\"}") == count
        });
        handle
    });
    handles.collect()
}

/// Requests these pages while every connection is in use, until all of them wait.
fn wait_with<'scope>(
    scope: &'scope Scope<'scope, '_>,
    web: &'scope Web,
    paths: &[&'scope str],
) -> Vec<ScopedJoinHandle<'scope, Answer>> {
    let before = waiting(web);
    let handles = paths.iter().map(|path| scope.spawn(|| web.get(path))).collect();
    eventually("the requests wait", || waiting(web) == before + paths.len());
    handles
}

fn ids(answer: &Answer) -> Vec<i64> {
    assert_eq!(answer.status, 200, "{}: {}", answer.url, answer.body);
    answer.json().as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect()
}

/// Also with transaction pooling. Each answer is that of its own request.
fn requests_that_wait_together_share_a_statement(database: &Database) {
    let web = start(database, &[("DATABASE_QUERY_TIMEOUT_MS", "3000")]);
    let pooled = match database.engine.family() {
        Family::Sqlite => None,
        Family::MySql | Family::Postgres => {
            let separator = if database.url.contains('?') { '&' } else { '?' };
            let url = format!("{}{separator}statement-cache-capacity=0", database.url);
            let environment = ONE_CONNECTION.into_iter().chain([("DATABASE_QUERY_TIMEOUT_MS", "3000")]);
            Some(Web::start_at(&url, &environment.collect::<Vec<_>>()))
        }
    };
    for web in [Some(web), pooled].into_iter().flatten() {
        let alone = WITHOUT_IT.map(|path| web.get(path).body);
        thread::scope(|scope| {
            let occupied = occupy(scope, &web, 1);
            let paths: Vec<_> = WITHOUT_IT.into_iter().cycle().take(20).collect();
            let rows = [listing!("/1"), listing!("/2")];
            let related = [related!(1, "?limit=1"), related!(3, "?limit=1")];
            // Of three shapes, in a mixture.
            let mut pages = wait_with(scope, &web, &paths[..10]);
            let rows = wait_with(scope, &web, &rows);
            pages.extend(wait_with(scope, &web, &paths[10..]));
            let related = wait_with(scope, &web, &related);
            for occupied in occupied {
                assert_eq!(occupied.join().unwrap().status, 503);
            }
            for (page, expected) in pages.into_iter().zip(alone.iter().cycle()) {
                let page = page.join().unwrap();
                assert_eq!((page.status, &page.body), (200, expected), "{}", page.url);
            }
            for (row, id) in rows.into_iter().zip(1..) {
                assert_eq!(row.join().unwrap().json()["id"], id);
            }
            for (related, user) in related.into_iter().zip([1, 3]) {
                let together = related.join().unwrap();
                assert_eq!(
                    together.body,
                    web.get(&together.url[url::Position::BeforePath..]).body,
                    "friends of {user}"
                );
                assert!(!ids(&together).is_empty());
            }
        });
        let sizes = [16, 8, 4, 2].map(|requests| statements(&web, requests));
        assert_eq!(sizes, [1, 0, 1, 2], "20 pages, 2 rows, 2 pages of related rows");
    }
}

fn requests_one_by_one_share_no_statement(database: &Database) {
    let web = start(database, &[]);
    for _ in 0..20 {
        assert_eq!(ids(&web.get(WITHOUT_IT[0])), [1]);
    }
    assert_eq!(statements(&web, 1), 20);
}

/// Neither those before it in its statement, nor those after it, nor a later one.
fn a_slow_page_does_not_fail_other_requests(database: &Database) {
    let web = start(database, &[("DATABASE_QUERY_TIMEOUT_MS", "4000"), ("DATABASE_MAX_CONNECTIONS", "3")]);
    let answered = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let occupied = occupy(scope, &web, 3);
        let mut requested = 0;
        // It has its place among the others.
        for paths in [&WITHOUT_IT[..], &[WITH_IT], &WITHOUT_IT, &WITHOUT_IT] {
            for path in paths {
                let (web, answered) = (&web, &answered);
                scope.spawn(move || {
                    let answer = web.get(path);
                    answered.lock().unwrap().push((*path, answer.status));
                });
            }
            requested += paths.len();
            eventually("the requests wait", || waiting(&web) == requested);
        }
        for occupied in occupied {
            assert_eq!(occupied.join().unwrap().status, 503);
        }
        eventually("they share a statement", || statements(&web, 16) == 1);
        assert_eq!(ids(&web.get(WITHOUT_IT[1])), [1, 2], "while it is running");
        assert_ne!(answered.lock().unwrap().last(), Some(&(WITH_IT, 503)));
    });
    let answered = answered.into_inner().unwrap();
    assert_eq!(answered.last(), Some(&(WITH_IT, 503)), "{answered:?}");
    let others = &answered[..answered.len() - 1];
    assert!(others.len() == 15 && others.iter().all(|(_, status)| *status == 200), "{answered:?}");
}

fn a_disconnect_does_not_fail_other_requests(database: &Database) {
    let web = start(database, &[("DATABASE_QUERY_TIMEOUT_MS", "4000")]);
    // A client that only closes its own side may still read.
    let disconnect = |client: TcpStream| SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    let connect = |path| {
        let mut client = TcpStream::connect(("127.0.0.1", web.port)).unwrap();
        write!(client, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        client
    };
    thread::scope(|scope| {
        let occupied = occupy(scope, &web, 1);
        let mut pages = wait_with(scope, &web, &WITHOUT_IT[..2]);
        let waits = connect(WITHOUT_IT[4]);
        eventually("it waits", || waiting(&web) == 3);
        // Its statement is running when its client disconnects.
        let works = connect(WITH_IT);
        eventually("it waits", || waiting(&web) == 4);
        pages.extend(wait_with(scope, &web, &WITHOUT_IT[2..3]));
        disconnect(waits);
        eventually("it waits no longer", || waiting(&web) == 4);
        for occupied in occupied {
            assert_eq!(occupied.join().unwrap().status, 503);
        }
        eventually("the others share a statement", || statements(&web, 4) == 1);
        disconnect(works);
        for (page, length) in pages.into_iter().zip(1..) {
            assert_eq!(ids(&page.join().unwrap()).len(), length);
        }
    });
    assert_eq!(ids(&web.get(WITHOUT_IT[0])), [1]);
}

fn each_request_has_its_own_acquire_timeout(database: &Database) {
    let limits = [("DATABASE_QUERY_TIMEOUT_MS", "12000"), ("DATABASE_ACQUIRE_TIMEOUT_MS", "4000")];
    let web = start(database, &limits);
    thread::scope(|scope| {
        let occupied = occupy(scope, &web, 1);
        let first = wait_with(scope, &web, &WITHOUT_IT[..1]);
        // The second comes when the first has waited for some time.
        thread::sleep(Duration::from_secs(2));
        let second = wait_with(scope, &web, &WITHOUT_IT[..1]);
        eventually("the first ends", || first[0].is_finished());
        assert!(!second[0].is_finished(), "the second came later");
        eventually("the second ends", || second[0].is_finished());
        assert!(!occupied[0].is_finished(), "the limit of a query is another one");
    });
    let reason = "no database connection became free within 4000 ms";
    eventually("both are logged", || web.log().matches(reason).count() == 2);
}

fn a_drain_answers_those_that_wait(database: &Database) {
    let mut web = start(database, &[("DATABASE_QUERY_TIMEOUT_MS", "3000")]);
    thread::scope(|scope| {
        let occupied = occupy(scope, &web, 1);
        let pages = wait_with(scope, &web, &WITHOUT_IT);
        web.signal("TERM");
        for (page, length) in pages.into_iter().zip(1..) {
            assert_eq!(ids(&page.join().unwrap()).len(), length);
        }
        assert_eq!(occupied.into_iter().next().unwrap().join().unwrap().status, 503);
    });
    assert_eq!(web.exit_code(), 0);
}

/// While other requests keep statements running, whose answers are older.
fn a_response_has_what_was_written_before_its_request(database: &Database) {
    migrated(database, &["up"]);
    migrated(database, &["seed"]);
    let web = Web::start(database, &[("WEB_CONCURRENCY", "1"), ("DATABASE_MAX_CONNECTIONS", "2")]);
    let newest = listing!("?sort=-id&limit=1");
    let is_over = AtomicBool::new(false);
    let (mut statuses, mut wrong) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        let read = || {
            let mut others = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                others.extend(Some(web.get(newest)).filter(|answer| answer.status != 200));
            }
            others
        };
        let readers: Vec<_> = (0..6).map(|_| scope.spawn(read)).collect();
        let mut sql = database.sql();
        for name in ["other", "guest"].into_iter().cycle().take(200) {
            sql.execute(&format!("UPDATE users SET username = '{name}' WHERE id = 2"));
            let answer = web.get(newest);
            wrong.extend(Some(answer.body).filter(|body| !body.contains(name)));
        }
        is_over.store(true, Ordering::Relaxed);
        statuses.extend(readers.into_iter().flat_map(|reader| reader.join().unwrap()));
    });
    assert!(wrong.is_empty() && statuses.is_empty(), "{wrong:?} {statuses:?}");
    assert!([2, 4].iter().any(|size| statements(&web, *size) > 0), "some of them shared a statement");
}

/// The engines have the same bytes, however the rows reach the service.
fn every_character_of_a_row_arrives(database: &Database) {
    let names = [
        "quotes \" ' ` \\\"",
        "back\\slash\\",
        "lines\n\r\t",
        "3:abc,4:",
        ":",
        "12",
        " ",
        "\u{1}\u{1f}\u{7f}",
        "<&>",
        "%s%%",
        "\u{e9}\u{65e5}\u{1f600}",
        "e\u{301}",
        "\u{feff}\u{2028}\u{fffd}",
        "?",
        "$1",
        "null",
    ];
    migrated(database, &["up"]);
    let web = Web::start(database, &[]);
    let mut sql = database.sql();
    for name in names {
        // MySQL reads a backslash as the beginning of an escape.
        let literal = match database.engine.family() {
            Family::MySql => name.replace('\'', "''").replace('\\', "\\\\"),
            Family::Sqlite | Family::Postgres => name.replace('\'', "''"),
        };
        sql.execute(&insert!("{}").replace("{}", &literal));
    }
    let rows = (1..).zip(names).map(|(id, name)| {
        let (name, email) =
            (serde_json::to_string(name).unwrap(), serde_json::to_string(&format!("{name}@example.com")).unwrap());
        format!(r#"{{"id":{id},"username":{name},"email":{email}}}"#)
    });
    // A line separator is escaped, because some readers take it for the end of a line.
    let rows: Vec<_> = rows.map(|row| row.replace('\u{2028}', "\\u2028")).collect();
    assert_eq!(web.get(LISTING).body, format!("[{}]", rows.join(",")));
    for (id, row) in (1..).zip(&rows) {
        assert_eq!(&web.get(&format!("{LISTING}/{id}")).body, row);
    }
    assert_eq!(web.get(listing!(".ndjson")).body, rows.join("\n") + "\n");
}

fn an_error_of_one_page_does_not_fail_the_others(database: &Database) {
    let web = start(database, &[("DATABASE_QUERY_TIMEOUT_MS", "3000")]);
    thread::scope(|scope| {
        let occupied = occupy(scope, &web, 1);
        let paths = [listing!("/1"), listing!("/9"), listing!("/2"), listing!("/3")];
        let answers = wait_with(scope, &web, &paths);
        for occupied in occupied {
            assert_eq!(occupied.join().unwrap().status, 503);
        }
        let answers: Vec<_> = answers.into_iter().map(|answer| answer.join().unwrap()).collect();
        let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
        assert!(statuses[1] >= 400 && [0, 2, 3].iter().all(|other| statuses[*other] == 200), "{statuses:?}");
    });
    assert_eq!(statements(&web, 4), 1, "they shared a statement");
}

fn a_statement_ends_with_its_clients(database: &Database) {
    let web = start(database, &[("DATABASE_QUERY_TIMEOUT_MS", "60000")]);
    let mut client = TcpStream::connect(("127.0.0.1", web.port)).unwrap();
    write!(client, "GET {WITH_IT} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    eventually("it is running", || web.metric("db_client_connections{db_client_connection_state=\"used\"}") == 1);
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    assert_eq!(ids(&web.get(WITHOUT_IT[0])), [1]);
}

fn a_database_in_utf_16_is_read(database: &Database) {
    let mut sql = database.sql();
    sql.execute("PRAGMA encoding = 'UTF-16le'");
    sql.execute("CREATE TABLE first (id INTEGER)");
    every_character_of_a_row_arrives(database);
    assert_eq!(sql.texts("PRAGMA encoding"), ["UTF-16le"]);
}

/// A request that waits for a new connection gets one that is returned.
fn a_connection_that_does_not_open_delays_no_request(database: &Database) {
    migrated(database, &["up"]);
    migrated(database, &["seed", "50"]);
    let proxy = Proxy::start(database.socket());
    let limits = [
        ("WEB_CONCURRENCY", "1"),
        ("DATABASE_MAX_CONNECTIONS", "2"),
        ("DATABASE_ACQUIRE_TIMEOUT_MS", "5000"),
        ("DATABASE_QUERY_TIMEOUT_MS", "20000"),
    ];
    let web = Web::start_at(&database.url_at(proxy.port), &limits);
    assert_eq!(web.get(LISTING).status, 200);
    proxy.silence_new();
    let before = proxy.opened();
    let lock = database.hold_rows();
    thread::scope(|scope| {
        let first = scope.spawn(|| web.get(WITHOUT_IT[0]));
        eventually("it is running", || web.metric("db_client_connections{db_client_connection_state=\"used\"}") == 1);
        let second = scope.spawn(|| web.get(WITHOUT_IT[1]));
        eventually("a connection is being opened for it", || proxy.opened() > before);
        drop(lock);
        assert_eq!(first.join().unwrap().status, 200);
        assert_eq!(ids(&second.join().unwrap()), [1, 2]);
    });
}

fn a_failed_statement_fails_only_its_own_requests(database: &Database) {
    migrated(database, &["up"]);
    migrated(database, &["seed", "50"]);
    let limits = [
        ("WEB_CONCURRENCY", "1"),
        ("DATABASE_MAX_CONNECTIONS", "1"),
        ("DATABASE_ACQUIRE_TIMEOUT_MS", "20000"),
        ("DATABASE_QUERY_TIMEOUT_MS", "20000"),
    ];
    let web = Web::start(database, &limits);
    assert_eq!(web.get(LISTING).status, 200);
    let lock = database.hold_rows();
    thread::scope(|scope| {
        let first = scope.spawn(|| web.get(LARGE));
        eventually("it is running", || web.metric("db_client_connections{db_client_connection_state=\"used\"}") == 1);
        let together = wait_with(scope, &web, &WITHOUT_IT[..4]);
        database.end_readers();
        assert_eq!(first.join().unwrap().status, 503);
        eventually("the others share a statement", || waiting(&web) == 0);
        let last = wait_with(scope, &web, &WITHOUT_IT[4..]);
        database.end_readers();
        for page in together {
            assert_eq!(page.join().unwrap().status, 503);
        }
        drop(lock);
        for page in last {
            assert_eq!(ids(&page.join().unwrap()).len(), 5);
        }
    });
    assert_eq!(statements(&web, 4), 1);
}
