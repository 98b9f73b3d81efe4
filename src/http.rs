//! The HTTP surface: every route in one table, one file for each family of endpoints.

mod listing;
mod operations;
mod page;
mod problem;
mod representation;
pub mod request;
mod stream;
mod users;

use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::http::Method;
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{Handler, HttpResponse, Resource, Responder};

use crate::db::Db;
use problem::Problem;

/// What the handlers share.
pub struct State {
    db: Db,
    release_id: Option<String>,
    stopping: AtomicBool,
}

impl State {
    /// The state of a process that serves this database.
    #[must_use]
    pub const fn new(db: Db, release_id: Option<String>) -> Self {
        Self { db, release_id, stopping: AtomicBool::new(false) }
    }

    /// Makes the process unready for good, so that balancers send no more.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

/// The route table.
pub fn routes(config: &mut ServiceConfig, state: Data<State>) {
    config
        .app_data(state)
        .service(get("/", page::users))
        .service(get("/users", users::list))
        .service(get("/users.ndjson", users::ndjson))
        .service(get("/users.csv", users::csv))
        .service(get("/users/{id}", users::get))
        .service(get("/users/{id}/friends", users::friends))
        .service(get("/livez", operations::livez))
        .service(get("/readyz", operations::readyz))
        .service(get("/version", operations::version))
        .default_service(web::to(|| async { Err::<HttpResponse, _>(Problem::not_found("there is nothing here")) }));
}

/// A resource that can be read, by GET or HEAD, and refuses every other method.
fn get<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: actix_web::FromRequest + 'static,
    F::Output: Responder + 'static,
{
    web::resource(path)
        .route(web::get().to(handler.clone()))
        // The server leaves the body of an answer to HEAD out by itself.
        .route(web::method(Method::HEAD).to(handler))
        .default_service(web::to(|| async { Err::<HttpResponse, _>(Problem::method_not_allowed()) }))
}
