//! The server: the routes on a listener, until it is asked to stop.

use std::future::ready;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::{HttpService, KeepAlive};
use actix_service::{IntoServiceFactory as _, ServiceFactory, ServiceFactoryExt as _, fn_service, map_config};
use actix_web::App;
use actix_web::dev::AppConfig;
use actix_web::middleware::from_fn;
use actix_web::rt::net::TcpStream;
use actix_web::web::Data;
use tokio::net::TcpSocket;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::db::Db;
use crate::http::connection::{Guarded, LINGER};
use crate::http::{self, State, request};

/// How many connections may wait to be accepted; the standard library's 128 are few for a burst.
const BACKLOG: u32 = 1024;
/// How often a server that is not ready looks again.
const READY_POLL: Duration = Duration::from_secs(1);

/// A port that cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {cause}: {advice}")]
pub struct BindError {
    address: SocketAddr,
    cause: io::Error,
    advice: &'static str,
}

/// Binds the configured address.
///
/// # Errors
/// What stands in the way, and which variable to set.
pub fn bind(config: &Config) -> Result<TcpListener, BindError> {
    let address = SocketAddr::new(config.host, config.port);
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // Without it, the connections of a former process would keep the port for a minute.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)?.into_std()
    };
    listen().map_err(|cause| {
        let advice = match cause.kind() {
            ErrorKind::AddrInUse => "another program has this port; set PORT to a free one, or to 0 for any",
            ErrorKind::PermissionDenied => "ports below 1024 are for privileged processes; set PORT to a higher one",
            ErrorKind::AddrNotAvailable => "HOST is no address of this machine",
            _ => "set HOST and PORT",
        };
        BindError { address, cause, advice }
    })
}

/// Serves until `shutdown` is cancelled; then falls unready, closes the listener, finishes what is in
/// flight within its time, and closes the pool.
///
/// # Errors
/// When the listener cannot be served.
pub async fn run(config: &Config, db: Db, listener: TcpListener, shutdown: CancellationToken) -> io::Result<()> {
    let address = listener.local_addr()?;
    let state = Data::new(State::new(config, db.clone()));
    let draining = CancellationToken::new();
    let (app_state, drain) = (state.clone(), draining.clone());
    let server = actix_server::Server::build()
        .workers(config.web_concurrency.get().into())
        // actix counts in seconds; a part of one is a whole one.
        .shutdown_timeout(config.shutdown_timeout_ms.get().div_ceil(1000))
        .disable_signals()
        .listen("http", listener, move || service(&app_state, &drain))?
        .run();
    tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "serving at http://localhost:{}", address.port());

    let handle = server.handle();
    let running = async {
        let outcome = server.await;
        // A server that ended by an error of its own has nobody left to stop it.
        shutdown.cancel();
        outcome
    };
    let stopping = async {
        shutdown.run_until_cancelled(tell_when_ready(&db)).await;
        shutdown.cancelled().await;
        state.stop();
        draining.cancel();
        handle.stop(true).await;
    };
    let (outcome, ()) = tokio::join!(running, stopping);
    db.close().await;
    outcome
}

/// What serves a connection: its guard, HTTP/1.1, the request's scope, and the routes. This is what actix's own
/// `HttpServer` would put together, but for the guard.
fn service(
    state: &Data<State>,
    draining: &CancellationToken,
) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = DispatchError, InitError = ()> + use<> {
    let (app_state, guard_state, draining) = (state.clone(), state.clone(), draining.clone());
    let app = App::new().configure(move |routes| http::routes(routes, app_state)).wrap(from_fn(request::scope));
    let app = app.into_factory().map_err(|error| error.error_response());
    let http = HttpService::build()
        // The guard keeps every limit of time.
        .keep_alive(KeepAlive::Os)
        .client_request_timeout(Duration::ZERO)
        .client_disconnect_timeout(LINGER)
        .graceful_shutdown_signal(move || draining.clone().cancelled_owned())
        .on_connect_ext(|stream: &Guarded, data| stream.share(data))
        .h1(map_config(app, |()| AppConfig::default()));
    fn_service(move |stream: TcpStream| {
        let peer = stream.peer_addr().ok();
        ready(Ok((Guarded::new(stream, guard_state.clone()), peer)))
    })
    .and_then(http)
}

/// Logs when the database can be served from, or why not yet.
async fn tell_when_ready(db: &Db) {
    let mut told = None;
    while let Err(unready) = db.ready().await {
        let reason = unready.to_string();
        if told.as_ref() != Some(&reason) {
            tracing::warn!(reason, "not ready");
            told = Some(reason);
        }
        tokio::time::sleep(READY_POLL).await;
    }
    tracing::info!("ready");
}
