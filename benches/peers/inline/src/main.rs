//! actix-web with a blocking SQLite driver: each worker thread has its own connection, and blocks on it. It contains
//! nothing of the service, so it measures the upper limit of SQLite behind actix-web.

use std::env::var;

use actix_web::http::header::ContentType;
use actix_web::web::{Data, Query, get};
use actix_web::{App, HttpResponse, HttpServer};
use rusqlite::{Connection, Error, OpenFlags};
use serde::{Deserialize, Serialize};

const SELECT: &str = "SELECT id, username, email FROM users WHERE id > ?1 ORDER BY id LIMIT ?2";

#[derive(Deserialize)]
struct Page {
    after: i64,
    limit: u32,
}

#[derive(Serialize)]
struct User<'r> {
    id: i64,
    username: &'r str,
    email: &'r str,
}

async fn users(database: Data<Connection>, page: Query<Page>) -> HttpResponse {
    let body = select(&database, &page).expect("the database answers");
    HttpResponse::Ok().content_type(ContentType::json()).body(body)
}

fn select(database: &Connection, page: &Page) -> rusqlite::Result<Vec<u8>> {
    let mut statement = database.prepare_cached(SELECT)?;
    let mut rows = statement.query((page.after, page.limit))?;
    let mut body = vec![b'['];
    while let Some(row) = rows.next()? {
        let text = |column| row.get_ref(column)?.as_str().map_err(Error::from);
        let user = User { id: row.get(0)?, username: text(1)?, email: text(2)? };
        if body.len() > 1 {
            body.push(b',');
        }
        serde_json::to_writer(&mut body, &user).expect("numbers and text are JSON");
    }
    body.push(b']');
    Ok(body)
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let file = var("DATABASE_FILE").expect("DATABASE_FILE names the database");
    let port = var("PORT").ok().and_then(|port| port.parse().ok()).expect("PORT is a number");
    HttpServer::new(move || {
        // Called once for each worker.
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let database = Connection::open_with_flags(&file, flags);
        App::new().app_data(Data::new(database.expect("the database opens"))).route("/users", get().to(users))
    })
    .bind(("127.0.0.1", port))?
    .run()
    .await
}
