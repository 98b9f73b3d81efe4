//! The server: the routes on a listener, until a stop is requested.

pub(crate) mod connection;
mod drain;

use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_service::{ServiceFactory, fn_factory, fn_service, map_config};
use actix_web::dev::AppConfig;
use actix_web::rt::net::TcpStream;
use actix_web::web::Data;
use futures_util::FutureExt as _;
use prometheus::core::Collector;
use socket2::{Domain, Protocol, Socket, Type};
use tokio_util::sync::CancellationToken;

use crate::config::{self, Config};
use crate::db::{Db, Unready};
use crate::http::{self, Application, State};
use crate::lifecycle::{Lifecycle, Stop};
use drain::{AcceptGate, drain};

/// The number of connections that may wait to be accepted. The 128 of the standard library are too few for a burst.
const BACKLOG: i32 = 1024;
/// The interval of readiness checks until the server is ready.
const READY_POLL: Duration = Duration::from_secs(1);

/// A port that cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {cause}: {advice}")]
pub struct BindError {
    address: SocketAddr,
    cause: io::Error,
    advice: &'static str,
}

/// What a server accepts connections from.
pub struct Listener {
    socket: TcpListener,
    /// Whether the supervisor passed this socket, keeps it open, and passes it to the next process.
    is_inherited: bool,
}

/// Uses the listener that the supervisor passed, by systemd's protocol of socket activation (`LISTEN_FDS`). Without one,
/// binds the configured address.
///
/// # Errors
/// The cause, and which variable to set.
pub fn bind(config: &Config) -> Result<Listener, BindError> {
    let host = config.host;
    let address = SocketAddr::new(host, config.port);
    match config::inherited_listener() {
        Ok(Some(socket)) => return Ok(Listener { socket, is_inherited: true }),
        Ok(None) => {}
        Err(cause) => {
            let advice = "LISTEN_FDS announces a TCP listener as descriptor 3; hand one over, or unset it";
            return Err(BindError { address, cause, advice });
        }
    }
    let socket = listen(address, config.reuse_port).or_else(|cause| {
        let all = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), config.port);
        if host == Ipv6Addr::UNSPECIFIED && is_without_ipv6(&cause) {
            listen(all, config.reuse_port)
        } else {
            Err(cause)
        }
    });
    let socket = socket.map_err(|cause| {
        let advice = match cause.kind() {
            ErrorKind::AddrInUse => "another program has this port; set PORT to a free one, or to 0 for any",
            ErrorKind::PermissionDenied => "ports below 1024 are for privileged processes; set PORT to a higher one",
            ErrorKind::AddrNotAvailable => {
                "HOST is not an address of this machine; set HOST to one of its addresses, or to ::"
            }
            _ if is_without_ipv6(&cause) => "this machine has no IPv6; set HOST to an IPv4 address",
            _ => "set HOST and PORT",
        };
        BindError { address, cause, advice }
    })?;
    Ok(Listener { socket, is_inherited: false })
}

/// Listens on an address. `::` is every IPv6 and IPv4 address, regardless of the system's default.
fn listen(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // Without it, the connections of a former process would keep the port for a minute.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Whether a kernel without IPv6 returns this error.
fn is_without_ipv6(error: &io::Error) -> bool {
    /// `EPROTONOSUPPORT` and `EAFNOSUPPORT`.
    const UNSUPPORTED: [i32; 2] = if cfg!(target_os = "linux") { [93, 97] } else { [43, 47] };
    error.raw_os_error().is_some_and(|code| UNSUPPORTED.contains(&code)) || error.kind() == ErrorKind::AddrNotAvailable
}

/// A process that serves HTTP.
pub struct Server<'c> {
    /// The configuration.
    pub config: &'c Config,
    /// What it serves besides the operational routes.
    pub application: &'static Application,
    /// The database.
    pub db: Db,
    /// The metrics of other parts of the process.
    pub collectors: Vec<Box<dyn Collector>>,
}

impl Server<'_> {
    /// Serves until a stop is requested. Then it drains, closes the pool, and returns the number of aborted requests.
    ///
    /// # Errors
    /// When the listener cannot be served.
    pub async fn run(self, listener: Listener, stop: Stop) -> io::Result<usize> {
        self.serve(listener, stop, Arc::default()).await
    }

    async fn serve(self, listener: Listener, stop: Stop, lifecycle: Arc<Lifecycle>) -> io::Result<usize> {
        let Self { config, application, db, mut collectors } = self;
        collectors.push(db.collector());
        let Listener { socket, is_inherited } = listener;
        let address = socket.local_addr()?;
        let gate = if is_inherited { AcceptGate::Inherited } else { AcceptGate::own(&socket)? };
        let state = Data::new(State::new(config, application, lifecycle.clone(), collectors));
        state.measure_runtime("main".to_owned());
        let (app_db, workers) = (db.clone(), Arc::new(AtomicUsize::new(0)));
        let server = actix_server::Server::build()
            .workers(config.web_concurrency.get().into())
            .disable_signals()
            .listen("http", socket, move || {
                // Each worker calls it once, on its own thread.
                let worker = workers.fetch_add(1, Ordering::Relaxed);
                state.measure_runtime(format!("http-{worker}"));
                service(state.clone(), app_db.for_worker(worker))
            })?
            .run();
        tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "serving at http://localhost:{}", address.port());

        let handle = server.handle();
        let running = async {
            let outcome = server.await;
            // A server that failed must end the process, too.
            stop.request_stop();
            outcome
        };
        let stopping = async {
            stop.token().run_until_cancelled(log_when_ready(&db, application.required_schema)).await;
            stop.token().cancelled().await;
            drain(config, &lifecycle, &handle, gate, &stop).await
        };
        let (outcome, aborted) = tokio::join!(running, stopping);
        db.close().await;
        tracing::info!(aborted, "stopped");
        outcome.map(|()| aborted)
    }

    /// Runs `work` beside the server, from when the process is ready. It must end when its token is cancelled. Meanwhile, and
    /// until it has ended, the server answers health checks. Returns what `work` returns.
    ///
    /// # Errors
    /// When the listener cannot be served.
    pub async fn run_beside<T: Default>(
        self,
        listener: Listener,
        stop: &Stop,
        work: impl AsyncFnOnce(&CancellationToken) -> T,
    ) -> io::Result<T> {
        let (db, required) = (self.db.clone(), self.application.required_schema);
        let lifecycle = Arc::<Lifecycle>::default();
        let server_stop = Stop::default();
        let serving = async {
            let outcome = self.serve(listener, server_stop.clone(), lifecycle.clone()).await;
            // A server that failed must end the process, too.
            stop.request_stop();
            outcome
        };
        let working = async {
            let ready = stop.token().run_until_cancelled(until_ready(&db, required, |_| {})).await;
            // Boxed, because the compiler limits the depth of nested futures.
            let done = if ready.is_some() { Box::pin(work(stop.token())).await } else { T::default() };
            stop.token().cancelled().await;
            server_stop.request_immediate_stop();
            done
        };
        let unready = async {
            stop.token().cancelled().await;
            lifecycle.mark_unready();
        };
        let (served, done, ()) = tokio::join!(serving, working, unready);
        served.map(|_| done)
    }
}

/// Serves the connections of a worker, which share one instance of the application.
fn service(
    state: Data<State>,
    db: Db,
) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = Infallible, InitError = ()> + use<> {
    let app = map_config(http::app(state.clone(), db), |()| AppConfig::default());
    fn_factory(move || {
        let (state, app) = (state.clone(), app.new_service(()));
        async move {
            let app = Rc::new(app.await?);
            Ok(fn_service(move |stream| connection::serve(stream, app.clone(), state.clone()).map(Ok)))
        }
    })
}

/// Logs each reason why the process is not ready, and then that it is ready.
async fn log_when_ready(db: &Db, required_schema: i64) {
    let mut last = None;
    let log = |unready: &Unready| {
        let reason = unready.to_string();
        if last.as_ref() != Some(&reason) {
            tracing::warn!(reason, "not ready");
            last = Some(reason);
        }
    };
    until_ready(db, required_schema, log).await;
    tracing::info!("ready");
}

/// Waits until the database has the schema that is required. Calls `report` for each check that fails.
async fn until_ready(db: &Db, required_schema: i64, mut report: impl FnMut(&Unready)) {
    while let Err(unready) = db.ready(required_schema).await {
        report(&unready);
        tokio::time::sleep(READY_POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_ipv6_is_recognised() {
        // EAFNOSUPPORT.
        let unsupported = if cfg!(target_os = "linux") { 97 } else { 47 };
        assert!(is_without_ipv6(&io::Error::from_raw_os_error(unsupported)));
        assert!(is_without_ipv6(&ErrorKind::AddrNotAvailable.into()));
        assert!(!is_without_ipv6(&ErrorKind::AddrInUse.into()));
    }
}
