//! The service names no resource of the application, and compiles without it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// The modules of the service. All others are the application.
const SERVICE: [&str; 13] = [
    "bin",
    "config",
    "db",
    "fuzzing",
    "http",
    "jobs",
    "json",
    "lib",
    "lifecycle",
    "listing",
    "mail",
    "server",
    "telemetry",
];
/// The templates of the service.
const TEMPLATES: [&str; 9] = [
    "base.html",
    "docs.css",
    "docs.html",
    "error.html",
    "favicon.svg",
    "headings.html",
    "pages.html",
    "response.html",
    "style.css",
];
/// Where a user is that of a database, or of a URL.
const DATABASE_USERS: [&str; 3] = ["src/config", "src/db", "src/fuzzing.rs"];
/// The folders of the migrations.
const FOLDERS: [&str; 3] = ["sqlite", "postgres", "mysql"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The files and folders of the application in `src/`, and the names of its resources, as words of the code.
fn application() -> (Vec<PathBuf>, Vec<String>) {
    let entries = fs::read_dir(root().join("src")).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let paths: Vec<_> = entries.filter(|path| !SERVICE.contains(&&*name(path))).collect();
    let names = paths.iter().map(|path| name(path)).filter(|name| name != "resources");
    let names = names.flat_map(|name| [name.trim_end_matches('s').to_owned(), name]).collect();
    (paths, names)
}

pub(super) fn the_service_names_no_resource() {
    let (application, names) = application();
    let mut found = Vec::new();
    let files = files(&root().join("src"));
    for path in &files {
        let path = path.strip_prefix(root()).unwrap();
        if application.iter().any(|application| root().join(path).starts_with(application)) {
            continue;
        }
        let has_database_users =
            DATABASE_USERS.iter().any(|folder| path.starts_with(folder)) || path == Path::new("src/config.rs");
        for (number, line) in fs::read_to_string(root().join(path)).unwrap().lines().enumerate() {
            // The list of modules.
            if path == Path::new("src/lib.rs") && (line.starts_with("pub mod ") || line.starts_with("//! ")) {
                continue;
            }
            let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_').map(str::to_lowercase);
            if words.any(|word| names.contains(&word) && (word != "user" || !has_database_users)) {
                found.push(format!("{}:{}: {line}", path.display(), number + 1));
            }
        }
    }
    assert!(files.len() > 80, "{files:?}");
    assert!(found.is_empty(), "{found:#?}");
}

/// The list of another application, with one table.
const OTHER: &str = r#"//! The resources of this application.

use actix_web::web::{Data, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::db::{Db, Error, Session};
use crate::http::{Application, Problem, at, documentation};
use crate::jobs::clock::Scheduled;
use crate::jobs::Kind;
use crate::listing::{Column, Resource, Seeded, Table, row};

pub const REQUIRED_SCHEMA: i64 = 1;

/// Its routes.
pub fn application(_: &Config) -> Application {
    let routes = |config: &mut ServiceConfig| {
        config.service(at("/books").get(books)).service(at("/docs").get(documentation::page));
    };
    Application { routes: Box::new(routes), ..operations() }
}

/// Nothing.
pub fn operations() -> Application {
    Application { routes: Box::new(|_| {}), required_schema: REQUIRED_SCHEMA, services: Vec::new() }
}

/// What jobs need.
pub struct JobContext;

impl JobContext {
    /// Nothing.
    pub fn new(_: &Config, _: &Db) -> Result<Self, Error> {
        Ok(Self)
    }
}
pub const JOBS: &[Kind<JobContext>] = &[Kind { name: "count", run: |_, _| async { Ok(()) }.boxed_local() }];

/// Hourly.
pub fn schedules(config: &Config) -> Vec<Scheduled> {
    vec![Scheduled { name: "count", kind: "count", schedule: config.cleanup_schedule.clone() }]
}
pub const TABLES: &[&Table] = &[Books::TABLE];
pub const SAMPLE: &str = "sample book";

row! {
    /// A book.
    pub struct Book<'r> {
        /// The primary key.
        pub id: i64,
        /// The title.
        pub title: &'r str,
    }
}

/// The table of books.
pub struct Books;

impl Resource for Books {
    type Row<'r> = Book<'r>;
    const TABLE: &'static Table = &Table {
        name: "books",
        row: "book",
        from: "books",
        columns: &[Column::id("id"), Column::text("title", 80).ordered_by("title_key")],
        search: None,
        constraints: &[],
    };
}

async fn books(request: HttpRequest, db: Data<Db>) -> Result<HttpResponse, Problem> {
    crate::listing::pages::page_or_stream::<Books>(&request, db).await
}

/// Nothing.
pub async fn is_empty(_: &mut Session) -> Result<bool, Error> {
    Ok(false)
}

/// Nothing.
pub async fn seed(_: &mut Session, _: usize, _: &CancellationToken, _: impl FnMut(Seeded)) -> Result<Seeded, Error> {
    Ok(Seeded::default())
}
"#;

/// A copy of the checkout with another application compiles, and passes its unit tests.
pub(super) fn the_service_carries_another_application() {
    let copy = TempDir::with_prefix("roster-copy-").unwrap();
    for name in ["Cargo.toml", "Cargo.lock", "build.rs", "openapi.json", "rust-toolchain.toml", "src", "templates"] {
        for file in if root().join(name).is_dir() { files(&root().join(name)) } else { vec![root().join(name)] } {
            let target = copy.path().join(file.strip_prefix(root()).unwrap());
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::copy(file, target).unwrap();
        }
    }
    let (application, names) = application();
    let templates = fs::read_dir(root().join("templates")).unwrap().map(|entry| entry.unwrap().path());
    let templates = templates.filter(|path| !TEMPLATES.iter().any(|name| path.ends_with(name)));
    for path in application.into_iter().chain(templates) {
        let path = copy.path().join(path.strip_prefix(root()).unwrap());
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
    }
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let lines = lib.lines().filter(|line| !names.iter().any(|name| line.contains(name.as_str())));
    fs::write(copy.path().join("src/lib.rs"), lines.collect::<Vec<_>>().join("\n")).unwrap();
    fs::write(copy.path().join("src/resources.rs"), OTHER).unwrap();
    for engine in FOLDERS {
        let folder = copy.path().join("migrations").join(engine);
        fs::create_dir_all(&folder).unwrap();
        let sql = "CREATE TABLE books (id INTEGER PRIMARY KEY, title VARCHAR(80), title_key VARCHAR(80));";
        fs::write(folder.join("0001_books.up.sql"), sql).unwrap();
        fs::write(folder.join("0001_books.down.sql"), "DROP TABLE books;").unwrap();
    }
    for stub in ["tests/main.rs", "benches/micro.rs"] {
        fs::create_dir_all(copy.path().join(stub).parent().unwrap()).unwrap();
        fs::write(copy.path().join(stub), "fn main() {}").unwrap();
    }
    // A package of another name shares the compiled dependencies, and nothing else.
    for manifest in ["Cargo.toml", "Cargo.lock"] {
        let path = copy.path().join(manifest);
        let text = fs::read_to_string(&path).unwrap().replace("name = \"roster\"\n", "name = \"roster-copy\"\n");
        let library = if manifest == "Cargo.toml" { "\n[lib]\nname = \"roster\"\n" } else { "" };
        fs::write(path, text + library).unwrap();
    }
    let programs = Path::new(env!("CARGO_BIN_EXE_web")).ancestors().nth(2).unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["test", "--locked", "--offline", "--lib", "--bins"]).current_dir(copy.path());
    let done = cargo.env("CARGO_TARGET_DIR", programs).output().unwrap();
    let output = String::from_utf8_lossy(&done.stdout);
    assert!(
        done.status.success() && output.contains("test listing::"),
        "{output}{}",
        String::from_utf8_lossy(&done.stderr)
    );
}
