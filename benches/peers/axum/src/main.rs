//! axum in one process, with a worker thread for each processor. The first argument is the driver.

use std::env::{args, var};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::net::TcpListener;
use tokio_postgres::{Client, NoTls, Statement};

const SELECT: &str = "SELECT id, username, email FROM users WHERE id > $1 ORDER BY id LIMIT $2";

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    after: i64,
    #[serde(default = "default_limit")]
    limit: i64,
}

fn default_limit() -> i64 {
    100
}

#[derive(Serialize)]
struct User {
    id: i64,
    username: String,
    email: String,
}

enum Database {
    Sqlx(PgPool),
    TokioPostgres { clients: Vec<(Client, Statement)>, next: AtomicUsize },
}

impl Database {
    async fn sqlx(url: &str, connections: u32) -> Result<Self, sqlx::Error> {
        let pool = PgPoolOptions::new()
            .min_connections(connections)
            .max_connections(connections)
            // By default, sqlx sends a ping before each query, which no other contender does.
            .test_before_acquire(false)
            .connect(url)
            .await?;
        Ok(Self::Sqlx(pool))
    }

    async fn tokio_postgres(url: &str, connections: u32) -> Result<Self, tokio_postgres::Error> {
        let mut clients = Vec::new();
        for _ in 0..connections {
            let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
            tokio::spawn(connection);
            let statement = client.prepare(SELECT).await?;
            clients.push((client, statement));
        }
        Ok(Self::TokioPostgres { clients, next: AtomicUsize::new(0) })
    }

    async fn users(&self, page: &Page) -> Vec<User> {
        match self {
            Self::Sqlx(pool) => {
                let query = sqlx::query_as(SELECT).bind(page.after).bind(page.limit);
                let rows: Vec<(i64, String, String)> = query.fetch_all(pool).await.expect("the query succeeds");
                rows.into_iter().map(|(id, username, email)| User { id, username, email }).collect()
            }
            Self::TokioPostgres { clients, next } => {
                // A client does not wait for the response to one query before it sends the next one.
                let (client, statement) = &clients[next.fetch_add(1, Ordering::Relaxed) % clients.len()];
                let rows = client.query(statement, &[&page.after, &page.limit]).await.expect("the query succeeds");
                rows.iter().map(|row| User { id: row.get(0), username: row.get(1), email: row.get(2) }).collect()
            }
        }
    }
}

async fn users(State(database): State<Arc<Database>>, Query(page): Query<Page>) -> Json<Vec<User>> {
    Json(database.users(&page).await)
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let url = var("DATABASE_URL").expect("DATABASE_URL is set");
    let connections = var("CONNECTIONS").ok().and_then(|number| number.parse().ok()).expect("CONNECTIONS is a number");
    let port = var("PORT").ok().and_then(|port| port.parse().ok()).expect("PORT is a number");
    let database = match args().nth(1).as_deref() {
        Some("sqlx") => Database::sqlx(&url, connections).await.expect("sqlx connects"),
        Some("tokio-postgres") => Database::tokio_postgres(&url, connections).await.expect("tokio-postgres connects"),
        driver => panic!("the driver is {driver:?}, expected sqlx or tokio-postgres"),
    };
    let app = Router::new().route("/users", get(users)).with_state(Arc::new(database));
    let listener = TcpListener::bind::<(&str, u16)>(("127.0.0.1", port)).await?;
    axum::serve(listener, app).await
}
