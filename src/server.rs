//! The server: the routes on a listener, until a stop is requested.

pub(crate) mod connection;
mod drain;

use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use actix_service::{ServiceFactory, fn_factory, fn_service, map_config};
use actix_web::dev::AppConfig;
use actix_web::rt::net::TcpStream;
use actix_web::web::Data;
use futures_util::FutureExt as _;
use prometheus::core::Collector;
use socket2::{Domain, Protocol, Socket, Type};
use tokio_util::sync::CancellationToken;

use crate::config::{self, Config, Host};
use crate::db::Db;
use crate::http::{self, Application, State, Unready};
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
    address: String,
    cause: io::Error,
    advice: &'static str,
}

/// What a server accepts connections from.
pub struct Listener {
    sockets: Vec<TcpListener>,
    /// Whether the supervisor passed the socket, keeps it open, and passes it to the next process.
    is_inherited: bool,
}

/// Uses the listener that the supervisor passed, by systemd's protocol of socket activation (`LISTEN_FDS`). Without one,
/// binds each configured address.
///
/// # Errors
/// The cause, and which variable to set.
pub fn bind(config: &Config) -> Result<Listener, BindError> {
    let error = |cause, advice| BindError { address: format!("{}:{}", config.host, config.port), cause, advice };
    match config::inherited_listener() {
        Ok(Some(socket)) => return Ok(Listener { sockets: vec![socket], is_inherited: true }),
        Ok(None) => {}
        Err(cause) => {
            let advice = "LISTEN_FDS announces a TCP listener as descriptor 3; pass one (::PORT serves IPv6 and IPv4), or unset it";
            return Err(error(cause, advice));
        }
    }
    let addresses = config.host.addresses().map_err(|cause| {
        error(cause, "HOST is a name that cannot be resolved; set HOST to an address of this machine, or to ::")
    })?;
    // A machine without IPv6 has no `::`.
    let unspecified = [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
    let is_every = config.host == Host::Address(unspecified[0]);
    let sockets = match listen_on_one_port(config.port, |port| listen_on_each(&addresses, port, config.reuse_port)) {
        Err((_, cause)) if is_every && is_without_ipv6(&cause) => {
            listen_on_each(&unspecified[1..], config.port, config.reuse_port)
        }
        sockets => sockets,
    };
    let sockets = sockets.map_err(|(address, cause)| bind_error(address, cause))?;
    Ok(Listener { sockets, is_inherited: false })
}

/// The address that cannot be bound, and why.
type Failure = (SocketAddr, io::Error);

/// Calls `listen` with this port. The system may choose a port that is free on the first address only; then it chooses
/// another.
fn listen_on_one_port<T>(port: u16, mut listen: impl FnMut(u16) -> Result<T, Failure>) -> Result<T, Failure> {
    const ATTEMPTS: usize = 10;
    for _ in 1..ATTEMPTS {
        match listen(port) {
            Err((_, cause)) if port == 0 && cause.kind() == ErrorKind::AddrInUse => {}
            done => return done,
        }
    }
    listen(port)
}

/// Listens on each address, on one port. An IPv6 address that this machine does not have is left out, with a warning,
/// unless there is no other address.
fn listen_on_each(addresses: &[IpAddr], port: u16, reuse_port: bool) -> Result<Vec<TcpListener>, Failure> {
    let mut sockets = Vec::<TcpListener>::new();
    let mut left_out = Vec::new();
    for address in addresses {
        // If the system chose the port, it chose it for the first address.
        let first = sockets.first().and_then(|first| first.local_addr().ok());
        let address = SocketAddr::new(*address, first.map_or(port, |first| first.port()));
        match listen(address, reuse_port) {
            Ok(socket) => sockets.push(socket),
            Err(cause) if address.is_ipv6() && is_without_ipv6(&cause) => left_out.push((address, cause)),
            Err(cause) => return Err((address, cause)),
        }
    }
    if sockets.is_empty()
        && let Some(failure) = left_out.pop()
    {
        return Err(failure);
    }
    for (address, cause) in left_out {
        tracing::warn!(%address, %cause, "this machine does not have the address, which is left out");
    }
    Ok(sockets)
}

fn bind_error(address: SocketAddr, cause: io::Error) -> BindError {
    let advice = match cause.kind() {
        ErrorKind::AddrInUse => "another program has this port; set PORT to a free one, or to 0 for any",
        ErrorKind::PermissionDenied => "ports below 1024 are for privileged processes; set PORT to a higher one",
        ErrorKind::AddrNotAvailable => {
            "HOST is not an address of this machine; set HOST to one of its addresses, or to ::"
        }
        _ if is_without_ipv6(&cause) => "this machine has no IPv6; set HOST to an IPv4 address",
        _ => "set HOST and PORT",
    };
    BindError { address: address.to_string(), cause, advice }
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

/// Whether the kernel returns this error for an IPv6 address that the machine does not have, or if it has no IPv6.
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
    pub application: Arc<Application>,
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
        let Listener { sockets, is_inherited } = listener;
        let addresses: Vec<_> = sockets.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
        let gate = if is_inherited { AcceptGate::Inherited } else { AcceptGate::own(&sockets)? };
        let state = Data::new(State::new(config, application.clone(), lifecycle.clone(), collectors));
        state.measure_runtime("main".to_owned());
        let (app_db, workers) = (db.clone(), Arc::<PerThread<Db>>::default());
        // Each worker calls it once for each listener, on its own thread. The listeners of a worker share its queue of queries.
        let factory = move || {
            let db = workers.get_or_insert_with(|worker| {
                state.measure_runtime(format!("http-{worker}"));
                app_db.for_worker(worker)
            });
            service(state.clone(), db)
        };
        let mut server = actix_server::Server::build().workers(config.web_concurrency.get().into()).disable_signals();
        for socket in sockets {
            server = server.listen("http", socket, factory.clone())?;
        }
        let server = server.run();
        for address in addresses {
            let port = address.port();
            tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "serving at http://localhost:{port}");
        }

        let handle = server.handle();
        let running = async {
            let outcome = server.await;
            // A server that failed must end the process, too.
            stop.request_stop();
            outcome
        };
        let stopping = async {
            stop.token().run_until_cancelled(log_when_ready(&db, &application)).await;
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
        let (db, application) = (self.db.clone(), self.application.clone());
        let lifecycle = Arc::<Lifecycle>::default();
        let server_stop = Stop::default();
        let serving = async {
            let outcome = self.serve(listener, server_stop.clone(), lifecycle.clone()).await;
            // A server that failed must end the process, too.
            stop.request_stop();
            outcome
        };
        let working = async {
            let ready = stop.token().run_until_cancelled(until_ready(&db, &application, |_| {})).await;
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

/// A value for each thread.
struct PerThread<T>(Mutex<Vec<(ThreadId, T)>>);

impl<T> Default for PerThread<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> PerThread<T> {
    /// The value of this thread. `new` makes it from the number of threads that have one.
    fn get_or_insert_with(&self, new: impl FnOnce(usize) -> T) -> T {
        let own = thread::current().id();
        let mut values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, value)) = values.iter().find(|(thread, _)| *thread == own) {
            return value.clone();
        }
        let value = new(values.len());
        values.push((own, value.clone()));
        value
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
async fn log_when_ready(db: &Db, application: &Application) {
    let mut last = None;
    let log = |unready: &Unready| {
        let reason = unready.to_string();
        if last.as_ref() != Some(&reason) {
            tracing::warn!(reason, "not ready");
            last = Some(reason);
        }
    };
    until_ready(db, application, log).await;
    tracing::info!("ready");
}

/// Waits until the database has the schema that is required, and each other backing service responds. Calls `report` for
/// each check that fails.
async fn until_ready(db: &Db, application: &Application, mut report: impl FnMut(&Unready)) {
    // Boxed, because the compiler limits the depth of nested futures.
    while let Err(unready) = application.ready(db).boxed_local().await {
        report(&unready);
        tokio::time::sleep(READY_POLL).await;
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;
    use crate::config::UNUSED_URLS;

    fn config() -> Config {
        let vars = [("DATABASE_URL", UNUSED_URLS[0]), ("PORT", "0"), ("WEB_CONCURRENCY", "2")];
        Config::from_vars(vars.map(|(name, value)| (name.to_owned(), value.to_owned()))).unwrap()
    }

    /// As those of `localhost`.
    #[tokio::test]
    async fn each_address_of_a_name_is_served() {
        let addresses = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let config = config();
        let sockets = listen_on_each(&addresses, 0, false).unwrap();
        let bound: Vec<_> = sockets.iter().map(|socket| socket.local_addr().unwrap()).collect();
        assert_eq!(bound, addresses.map(|address| SocketAddr::new(address, bound[0].port())));
        let db = Db::open(&config);
        let nothing = Application { routes: Box::new(|_| {}), required_schema: 0, services: Vec::new() };
        let server = Server { config: &config, application: nothing.into(), db, collectors: Vec::new() };
        let stop = Stop::default();
        let client = thread::spawn({
            let stop = stop.clone();
            move || {
                // Each worker serves both.
                let statuses = bound.iter().cycle().take(8).map(|address| {
                    let mut stream = std::net::TcpStream::connect(address).unwrap();
                    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
                    let mut response = String::new();
                    stream.read_to_string(&mut response).unwrap();
                    response[..15].to_owned()
                });
                let statuses: Vec<_> = statuses.collect();
                stop.request_immediate_stop();
                (statuses, bound)
            }
        });
        let listener = Listener { sockets, is_inherited: false };
        assert_eq!(server.run(listener, stop).await.unwrap(), 0);
        let (statuses, bound) = client.join().unwrap();
        assert_eq!(statuses, ["HTTP/1.1 200 OK"; 8]);
        for address in bound {
            assert!(std::net::TcpStream::connect(address).is_err(), "{address} is still served");
        }
    }

    #[test]
    fn a_missing_ipv6_address_is_left_out_with_a_warning_unless_it_is_the_only_one() {
        // An address of documentation (RFC 3849), which no machine has.
        let (missing, local) = ("2001:db8::1".parse().unwrap(), Ipv4Addr::LOCALHOST.into());
        let (mut log, lines) = io::pipe().unwrap();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(Mutex::new(lines)).finish();
        tracing::subscriber::with_default(subscriber, || {
            assert!(listen_on_each(&[missing], 0, false).is_err());
            assert_eq!(listen_on_each(&[missing, local], 0, false).unwrap().len(), 1);
        });
        let mut logged = String::new();
        log.read_to_string(&mut logged).unwrap();
        assert_eq!(logged.lines().count(), 1, "{logged}");
        assert!(logged.contains("WARN") && logged.contains("address=[2001:db8::1]:"), "{logged}");
    }

    #[test]
    fn a_port_that_the_system_chose_is_chosen_again_if_it_is_in_use() {
        let in_use = |_| -> Failure { ((Ipv6Addr::LOCALHOST, 4711).into(), ErrorKind::AddrInUse.into()) };
        for (port, failures, attempts, is_bound) in [(0, 9, 10, true), (0, 10, 10, false), (4711, 1, 1, false)] {
            let mut count = 0;
            let bound = listen_on_one_port(port, |port| {
                count += 1;
                if count > failures { Ok(()) } else { Err(in_use(port)) }
            });
            assert_eq!((count, bound.is_ok()), (attempts, is_bound));
        }
    }

    #[test]
    fn the_listeners_of_a_worker_share_its_database() {
        let workers = PerThread::default();
        let of_listeners = || [(); 2].map(|()| workers.get_or_insert_with(Arc::new));
        let [first, second] = thread::scope(|scope| {
            let of_threads = [scope.spawn(of_listeners), scope.spawn(of_listeners)];
            of_threads.map(|listeners| listeners.join().unwrap())
        });
        assert!(Arc::ptr_eq(&first[0], &first[1]) && Arc::ptr_eq(&second[0], &second[1]));
        assert_eq!(*first[0] + *second[0], 1);
    }

    #[test]
    fn a_name_that_cannot_be_resolved_is_reported() {
        // Too long to be asked for.
        let name = "name.".repeat(60) + "example";
        let config = Config { host: Host::Name(name.clone()), ..config() };
        let error = bind(&config).map(drop).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot listen on {name}:0: ")), "{error}");
        assert!(error.contains("HOST is a name that cannot be resolved; set HOST to"), "{error}");
    }

    #[test]
    fn a_kernel_without_ipv6_is_recognised() {
        // EAFNOSUPPORT.
        let unsupported = if cfg!(target_os = "linux") { 97 } else { 47 };
        assert!(is_without_ipv6(&io::Error::from_raw_os_error(unsupported)));
        assert!(is_without_ipv6(&ErrorKind::AddrNotAvailable.into()));
        assert!(!is_without_ipv6(&ErrorKind::AddrInUse.into()));
    }
}
