//! VIII. Concurrency: scale out by processes, which asks that each request cost little, whatever the
//! size of the table.

mod batches;
mod managers;

use std::fs;
use std::io::Read as _;

use libtest_mimic::Trial;
use roster::db::{Dialect as _, Select, Timestamp, statement};
use roster::friends::{self, Friends};
use roster::listing::{Key, Listing, Resource as _};
use roster::users::Users;
use sqlx::{
    AssertSqlSafe, Connection as _, Execute as _, MySql, MySqlConnection, PgConnection, Postgres, QueryBuilder, Sqlite,
    SqliteConnection,
};

use crate::support::engine::{Database, Engine, Family};
use crate::support::process::{Web, code, import_csv, migrated};
use crate::support::resource::{FIRST, LISTING, NDJSON, RELATED, WIDE_ROWS, listing, related, wide_rows};
use crate::support::{Tests, eventually, tests};

pub(crate) fn tests() -> Vec<Trial> {
    Tests::of(module_path!())
        .each(tests![
            every_listing_is_one_range_of_one_index,
            pages_are_complete_and_in_order,
            a_slow_reader_holds_no_connection,
            processes_serve_side_by_side
        ])
        .on(&[Engine::Postgres], tests![a_statement_keeps_its_plan])
        .any(tests![the_workers_are_the_environments])
        .and(batches::tests())
        .and(managers::tests())
        .trials()
}

/// Explains the product's own queries on a table that is large enough for the optimiser to care.
fn every_listing_is_one_range_of_one_index(database: &Database) {
    migrated(database, &["up"]);
    migrated(database, &["seed", "20000"]);
    // An optimiser may sort the few friends of a sample.
    database.sql().execute("DELETE FROM friends WHERE user_id = 1");
    database.sql().execute("INSERT INTO friends (user_id, friend_id) SELECT 1, id FROM users WHERE id > 1");
    database.sql().execute(match database.engine.family() {
        Family::MySql => "ANALYZE TABLE users, friends",
        Family::Sqlite | Family::Postgres => "ANALYZE",
    });
    let mut explained = 0;
    for (column, value) in
        [("id", 10_000.into()), ("username", "mary.kim3".into()), ("email", "mary.kim3@example.com".into())]
    {
        let indexes = match database.engine.family() {
            Family::Sqlite => ["PRIMARY KEY", "sqlite_autoindex_users_1", "sqlite_autoindex_users_2"],
            Family::MySql => ["PRIMARY", "users_username_key", "users_email_key"],
            Family::Postgres => ["users_pkey", "users_username_key", "users_email_key"],
        };
        let index = indexes[["id", "username", "email"].iter().position(|name| *name == column).unwrap()];
        let middle = Key { value, id: None };
        let listing = Listing {
            table: Users::TABLE,
            scope: None,
            column: Users::TABLE.position(column).unwrap(),
            descending: false,
            prefix: None,
            after: None,
            limit: 20,
        };
        for descending in [false, true] {
            for after in [None, Some(middle.clone())] {
                for prefix in [None, Some("MAR".to_owned())].into_iter().take(if column == "id" { 1 } else { 2 }) {
                    let listing = Listing { descending, prefix, after: after.clone(), ..listing.clone() };
                    let bounded = listing.prefix.is_some() || listing.after.is_some();
                    assert_index(
                        database.engine,
                        index,
                        bounded,
                        &explain(database, &listing),
                        &format!("{listing:?}"),
                    );
                    assert_counted(database, index, &listing);
                    explained += 1;
                }
            }
        }
    }
    assert_eq!(explained, 20);

    for (column, value, id) in
        [("id", 10_000.into(), None), ("since", Timestamp::parse("2018-01-01T00:00:00Z").unwrap().into(), Some(10_000))]
    {
        let primary_key = match database.engine.family() {
            Family::Sqlite => "PRIMARY KEY",
            Family::MySql => "PRIMARY",
            Family::Postgres => "friends_pkey",
        };
        let index = if column == "id" { primary_key } else { "friends_user_id_since" };
        for (after, descending) in [(None, false), (None, true), (Some(Key { value, id }), false)] {
            let listing = Listing {
                table: Friends::TABLE,
                scope: Some(friends::of(1)),
                column: Friends::TABLE.position(column).unwrap(),
                descending,
                prefix: None,
                after,
                limit: 20,
            };
            assert_index(database.engine, index, true, &explain(database, &listing), &format!("{listing:?}"));
            assert_counted(database, index, &listing);
        }
    }
}

/// The total and the position of a page are read from the beginning of the same range, whether the page is the first, or
/// begins or ends at a key. And the page before a key is a range, too.
fn assert_counted(database: &Database, index: &str, listing: &Listing) {
    let bounded = listing.prefix.is_some() || listing.scope.is_some();
    let before = listing.after.as_ref();
    for before in [None, before] {
        let select = listing.select_counts(before);
        let of = format!("the count of {listing:?}");
        // The rows that were read for the count are scanned.
        let plans: Vec<_> =
            explain_select(database, &select).iter().map(|plan| plan.replace("SCAN counted", "")).collect();
        assert_index(database.engine, index, bounded, &plans, &of);
    }
    if let Some(before) = before {
        let listing = listing.before(before.clone());
        assert_index(database.engine, index, true, &explain(database, &listing), &format!("before: {listing:?}"));
    }
}

/// Explains a query of the product on a connection of its engine.
macro_rules! plan_of {
    ($database:expr, $query:ident: $engine:ident => $build:expr, $explain:literal, $connection:ty, $row:expr) => {
        async {
            let mut connection = <$connection>::connect(&$database.url).await.unwrap();
            let mut $query: QueryBuilder<$engine> = $build;
            let sql = format!(concat!($explain, " {}"), $query.sql().as_str());
            let arguments = $query.build().take_arguments().unwrap().unwrap();
            let query = sqlx::query_with::<$engine, _>(AssertSqlSafe(sql), arguments);
            query.fetch_all(&mut connection).await.unwrap().iter().map($row).collect::<Vec<String>>().join("\n")
        }
    };
}

/// Explains a query, which is built for each engine by the same expression.
macro_rules! explain {
    ($database:expr, $query:ident => $build:expr) => {{
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            match $database.engine.family() {
                Family::Sqlite => {
                    use sqlx::Row as _;
                    let plan = plan_of!($database, $query: Sqlite => $build, "EXPLAIN QUERY PLAN", SqliteConnection, |row| row.get(3));
                    // The rows of a page, as they are packed.
                    plan.await.replace("SCAN page", "").replace("SCAN CONSTANT ROW", "")
                }
                Family::Postgres => kept_plan($database, $build).await,
                Family::MySql => {
                    use sqlx::Row as _;
                    plan_of!($database, $query: MySql => $build, "EXPLAIN FORMAT=TRADITIONAL", MySqlConnection, |row| {
                        let text = |column: &str| row.get::<Option<String>, _>(column).unwrap_or_default();
                        format!("{} {} {} {}", text("table"), text("type"), text("key"), text("Extra"))
                    })
                    .await
                }
            }
        })
    }};
}

/// The plan that PostgreSQL keeps for a statement, whatever its values will be.
async fn kept_plan(database: &Database, mut query: QueryBuilder<Postgres>) -> String {
    use sqlx::{Arguments as _, Executor as _};

    let mut connection = PgConnection::connect(&database.url).await.unwrap();
    let keep = format!("SET plan_cache_mode = force_generic_plan; PREPARE kept AS {}", query.sql().as_str());
    connection.execute(AssertSqlSafe(keep)).await.unwrap();
    let values = query.build().take_arguments().unwrap().unwrap().len();
    let explain = format!("EXPLAIN EXECUTE kept({})", vec!["NULL"; values].join(", "));
    let plan: Vec<String> = sqlx::query_scalar(AssertSqlSafe(explain)).fetch_all(&mut connection).await.unwrap();
    plan.join("\n")
}

fn explain(database: &Database, listing: &Listing) -> Vec<String> {
    let compares_pairs = match database.engine.family() {
        Family::Sqlite => Sqlite::COMPARES_PAIRS,
        Family::MySql => MySql::COMPARES_PAIRS,
        Family::Postgres => Postgres::COMPARES_PAIRS,
    };
    explain_select(database, &listing.select(compares_pairs))
}

/// As it is for one request, and for several.
fn explain_select(database: &Database, select: &Select) -> Vec<String> {
    [1, 2].map(|requests| explain!(database, query => statement(&vec![select; requests]))).to_vec()
}

fn assert_index(engine: Engine, index: &str, bounded: bool, plans: &[String], of: &str) {
    for plan in plans {
        assert_plan(engine, index, bounded, plan, of);
    }
}

fn assert_plan(engine: Engine, index: &str, bounded: bool, plan: &str, of: &str) {
    let (good, bad): (Vec<String>, &[&str]) = match engine.family() {
        // An index that has all columns of the query is a covering index.
        Family::Sqlite if bounded => (vec![sqlite_index(index)], &["SCAN", "TEMP B-TREE"]),
        // Ordered by the row's id, a table is its own index.
        Family::Sqlite if index == "PRIMARY KEY" => (vec!["SCAN users".to_owned()], &["TEMP B-TREE"]),
        Family::Sqlite => (vec![sqlite_index(index)], &["TEMP B-TREE"]),
        Family::Postgres if bounded => (vec![index.to_owned(), "Index Cond".to_owned()], &["Seq Scan", "Sort"]),
        Family::Postgres => (vec![index.to_owned()], &["Seq Scan", "Sort"]),
        Family::MySql => (vec![index.to_owned()], &["filesort", "temporary", "users ALL ", "friends ALL "]),
    };
    for good in good {
        assert!(plan.contains(&good), "{of}: no {good} in\n{plan}");
    }
    for bad in bad {
        assert!(!plan.contains(bad), "{of}: {bad} in\n{plan}");
    }
    if engine.family() == Family::MySql && bounded {
        assert!(plan.contains(" range ") || plan.contains(" ref "), "{of}: no range in\n{plan}");
    }
}

/// What was explained is what requests get, and nothing is compiled for them: a view in the place of the table returns the
/// server's settings. With transaction pooling, no setting is left in the session.
fn a_statement_keeps_its_plan(database: &Database) {
    drop(Web::seeded(database));
    let mut sql = database.sql();
    sql.execute("ALTER TABLE users RENAME TO users_themselves");
    sql.execute(
        "CREATE VIEW users AS SELECT id, (current_setting('plan_cache_mode') || ', jit ' || current_setting('jit'))::VARCHAR AS username, email
         FROM users_themselves",
    );
    let url = format!("{}&statement-cache-capacity=0", database.url);
    for (web, mode) in [
        (Web::start(database, &[]), "force_generic_plan, jit off"),
        (Web::start(database, &[("DATABASE_URL", url.as_str())]), "auto, jit off"),
    ] {
        assert_eq!(web.get(FIRST).json()["username"], mode);
    }
}

/// How SQLite's plans speak of an index.
fn sqlite_index(index: &str) -> String {
    if index == "PRIMARY KEY" { "INTEGER PRIMARY KEY".to_owned() } else { format!("INDEX {index}") }
}

fn pages_are_complete_and_in_order(database: &Database) {
    migrated(database, &["up"]);
    migrated(database, &["seed", "500"]);
    let web = Web::start(database, &[]);
    let everyone = web.all(listing!("?limit=1000"));
    assert_eq!(everyone.len(), 500);
    for (column, key) in [("id", "id"), ("username", "username"), ("email", "email")] {
        let mut expected = everyone.clone();
        expected.sort_by_key(|user| (user[key].as_i64(), user[key].as_str().map(str::to_ascii_lowercase)));
        assert_eq!(web.all(&format!("{LISTING}?sort={column}&limit=7")), expected, "{column}");
        expected.reverse();
        assert_eq!(web.all(&format!("{LISTING}?sort=-{column}&limit=100")), expected, "-{column}");
    }
    // Exactly full pages end without a link to an empty one.
    assert_eq!(web.get(listing!("?limit=500")).next(), None);
    assert_eq!(web.get(LISTING).json().as_array().unwrap().len(), 100);

    let ada = |user: &&serde_json::Value| user["username"].as_str().unwrap().starts_with("ada");
    let found = web.all(listing!("?q=ADA&limit=3&sort=-username"));
    assert_eq!(found.len(), everyone.iter().filter(ada).count());
    assert!(found.len() > 3 && found.iter().all(|user| ada(&user)));
    assert_eq!(web.all(listing!("?q=ada.abbott@")).len(), 1);
    assert_eq!(web.all(listing!("?q=nobody-here")).len(), 0);

    let friends = web.all(related!(1, "?limit=2"));
    let ids: Vec<_> = friends.iter().map(|friend| friend["id"].as_i64().unwrap()).collect();
    assert!(ids.len() > 2 && ids.is_sorted(), "{ids:?}");
    assert_eq!(friends, web.all(RELATED));
}

/// A client that asks for everything and reads nothing leaves the only connection to the others.
fn a_slow_reader_holds_no_connection(database: &Database) {
    migrated(database, &["up"]);
    assert_eq!(code(&import_csv(database, &wide_rows())), 0);
    let web = Web::start(database, &[("DATABASE_MAX_CONNECTIONS", "1")]);
    let mut reader = web.slow_reader(NDJSON);
    for _ in 0..20 {
        assert_eq!(web.get(listing!("?limit=1")).status, 200);
    }
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("\r\n0\r\n\r\n"), "it is complete");
    assert_eq!(rest.matches("{\"id\":").count(), WIDE_ROWS);
}

fn processes_serve_side_by_side(database: &Database) {
    let webs = [Web::seeded(database), Web::start(database, &[]), Web::start(database, &[])];
    std::thread::scope(|scope| {
        for web in &webs {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        assert_eq!(web.get(LISTING).status, 200);
                    }
                });
            }
        }
    });
}

fn the_workers_are_the_environments(database: &Database) {
    let web = Web::start(database, &[("WEB_CONCURRENCY", "3")]);
    let tasks = format!("/proc/{}/task", web.pid());
    // Only Linux tells the names of another process's threads.
    if !fs::exists(&tasks).unwrap() {
        return;
    }
    let workers = || {
        let tasks = fs::read_dir(&tasks).unwrap().flatten();
        let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|name| name.starts_with("actix-server wo")).count()
    };
    eventually("there are three workers", || workers() == 3);
}
