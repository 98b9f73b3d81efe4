//! The server: the routes on a listener, until it is asked to stop.

use std::io;
use std::net::TcpListener;

use actix_web::middleware::from_fn;
use actix_web::web::Data;
use actix_web::{App, HttpServer};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::db::Db;
use crate::http::{self, State, request};

/// Serves until `shutdown` is cancelled; then falls unready, closes the listener, finishes what is in
/// flight within its time, and closes the pool.
///
/// # Errors
/// When the listener cannot be served.
pub async fn run(config: &Config, db: Db, listener: TcpListener, shutdown: CancellationToken) -> io::Result<()> {
    let state = Data::new(State::new(db.clone(), config.release_id.clone()));
    let app_state = state.clone();
    let server = HttpServer::new(move || {
        let state = app_state.clone();
        App::new().configure(move |routes| http::routes(routes, state)).wrap(from_fn(request::scope))
    })
    .workers(config.web_concurrency.get().into())
    // actix counts in seconds; a part of one is a whole one.
    .shutdown_timeout(config.shutdown_timeout_ms.get().div_ceil(1000))
    .disable_signals()
    .listen(listener)?
    .run();

    let handle = server.handle();
    let stopper = async {
        shutdown.cancelled().await;
        state.stop();
        handle.stop(true).await;
    };
    // The server ends when the stopper stops it, or by an error of its own.
    let running = async {
        let outcome = server.await;
        shutdown.cancel();
        outcome
    };
    let (outcome, ()) = tokio::join!(running, stopper);
    db.close().await;
    outcome
}
