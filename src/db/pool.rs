//! The connection pool: deadpool's, around sqlx's connections.
//!
//! sqlx's own pool pings on acquire and again on release, in a task that it spawns, which costs more
//! than a short query does; and a query that is cancelled at the wrong moment leaves it one connection
//! short for good. Here a connection goes back only from a query that completed, and is asked whether
//! it still lives only when there is reason to doubt it.

use std::iter;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use deadpool::managed::{self, Metrics, Object, PoolError, QueueMode, RecycleError, RecycleResult, Timeouts};
use futures_util::future::{pending, select, select_all};
use sqlx::{Connection, Database};
use tokio::time::{sleep, timeout};
use tracing::instrument::WithSubscriber as _;
use tracing::{Dispatch, Instrument as _};

use super::{Dialect, Error};
use crate::config::Config;

/// A connection that nobody used for so long is pinged before it is used again.
const DOUBT_AFTER: Duration = Duration::from_secs(1);
/// The longest wait for the answer to such a ping.
const PING_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a request waits for its worker's own connections alone.
const PATIENCE: Duration = Duration::from_millis(10);
/// A connection so old is replaced, so that a fail-over or a new address is noticed in the end.
const RETIRE_AFTER: Duration = Duration::from_mins(30);

/// A pool of one engine's connections, opened when they are first needed.
///
/// It is in shares, one for each worker where there are connections enough: a connection is registered with the event
/// loop of the thread that opened it, and used from another it wakes both. Who finds its share in use asks the others.
pub struct Pool<DB: Dialect> {
    shares: Arc<[managed::Pool<Connector<DB>>]>,
    own: usize,
    is_lent_by_transaction: bool,
    acquire_timeout: Duration,
    query_timeout: Duration,
}

// Derived, Clone would ask it of the engine too.
impl<DB: Dialect> Clone for Pool<DB> {
    fn clone(&self) -> Self {
        Self { shares: self.shares.clone(), ..*self }
    }
}

impl<DB: Dialect> Pool<DB> {
    pub(super) fn new(options: &Options<DB>, config: &Config) -> Self {
        let health = Arc::new(Health::new(config.database_url.address()));
        let connections = usize::from(config.database_max_connections.get());
        let shares = connections.min(config.web_concurrency.get().into());
        let share = |index| {
            let connector = Connector {
                options: options.clone(),
                is_own_session: !config.database_url.is_lent_by_transaction,
                health: health.clone(),
            };
            managed::Pool::builder(connector)
                .max_size(connections / shares + usize::from(index < connections % shares))
                // The connection that was used last is the least likely to need a ping.
                .queue_mode(QueueMode::Lifo)
                .build()
                .expect("a pool without hooks and time-outs of its own needs no runtime")
        };
        Self {
            shares: (0..shares).map(share).collect(),
            own: 0,
            is_lent_by_transaction: config.database_url.is_lent_by_transaction,
            acquire_timeout: Duration::from_millis(config.database_acquire_timeout_ms.get()),
            query_timeout: Duration::from_millis(config.database_query_timeout_ms.get()),
        }
    }

    pub(super) fn for_worker(&self, worker: usize) -> Self {
        Self { own: worker % self.shares.len(), ..self.clone() }
    }

    /// Runs one unit of work on a connection, within the acquire and the query time-out. The work is told whether
    /// its statements may stay prepared (`persistent` in sqlx) for the next one.
    ///
    /// A future that is dropped half-way, because its client hung up or its time is over, leaves the
    /// protocol in the middle of an answer: that connection is closed.
    pub(super) async fn run<T>(
        &self,
        work: impl AsyncFnOnce(&mut DB::Connection, bool) -> Result<T, sqlx::Error>,
    ) -> Result<T, Error> {
        let mut lease = self.acquire().await?;
        let connection = lease.0.as_mut().expect("a lease holds its connection until it ends");
        // For traces: no filter of the log shows it by default.
        let span = tracing::debug_span!("query", otel.kind = "client", db.system.name = DB::NAME);
        // sqlx enters the current span for every row that it reads (`try_stream!` in sqlx-core 0.9), which costs as much
        // as a tenth of the row; out of every span, it has none to enter.
        let work = self.within_transaction(connection, work).with_subscriber(Dispatch::none()).instrument(span);
        let outcome = match timeout(self.query_timeout, work).await {
            Ok(outcome) => outcome.map_err(Error::from),
            Err(_) => Err(Error::Timeout(self.query_timeout)),
        };
        match &outcome {
            Ok(_) => lease.give_back(),
            Err(error) if error.connection_is_reusable() => lease.give_back(),
            Err(error @ Error::Lost(_)) => self.shares[self.own].manager().health.fault(error),
            Err(_) => {}
        }
        outcome
    }

    /// Where a pooler lends the server's connections for a transaction each, a statement is prepared and executed
    /// within one, unnamed: outside of it, the two could meet different servers.
    async fn within_transaction<T>(
        &self,
        connection: &mut DB::Connection,
        work: impl AsyncFnOnce(&mut DB::Connection, bool) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        if !self.is_lent_by_transaction {
            return work(connection, true).await;
        }
        let mut transaction = connection.begin().await?;
        match work(&mut transaction, false).await {
            Ok(done) => transaction.commit().await.map(|()| done),
            Err(error) => transaction.rollback().await.and(Err(error)),
        }
    }

    pub(super) fn connections(&self) -> Connections {
        let mut sum = Connections { idle: 0, used: 0, max: 0, waiting: 0 };
        for status in self.shares.iter().map(managed::Pool::status) {
            let idle = status.available.min(status.size);
            sum.idle += idle;
            sum.used += status.size - idle;
            sum.max += status.max_size;
            sum.waiting += status.waiting;
        }
        sum
    }

    /// A connection of the own share, or of another while that is in use. When all are, the own one is waited for
    /// first; only then for whichever is given back, so that no connection is idle while a request waits for long.
    async fn acquire(&self) -> Result<Lease<DB>, Error> {
        const AT_ONCE: Timeouts = Timeouts { wait: Some(Duration::ZERO), create: None, recycle: None };
        let (before, from_own) = self.shares.split_at(self.own);
        let (own, after) = from_own.split_first().expect("the own share is one of them");
        let others = || after.iter().chain(before);
        let connection = async {
            for share in iter::once(own).chain(others()) {
                match share.timeout_get(&AT_ONCE).await {
                    Err(PoolError::Timeout(_)) => {}
                    outcome => return outcome,
                }
            }
            let any_other = async {
                sleep(PATIENCE).await;
                let waiting: Vec<_> = others().map(|share| Box::pin(share.get())).collect();
                if waiting.is_empty() { pending().await } else { select_all(waiting).await.0 }
            };
            select(pin!(own.get()), pin!(any_other)).await.factor_first().0
        };
        match timeout(self.acquire_timeout, connection).await {
            Ok(Ok(connection)) => Ok(Lease(Some(connection))),
            Ok(Err(PoolError::Backend(error))) => Err(error),
            // The pool has no hooks and no time-outs of its own, so it is closed.
            Ok(Err(_)) | Err(_) => Err(Error::Acquire(self.acquire_timeout)),
        }
    }

    pub(super) async fn close(&self) {
        for share in self.shares.iter() {
            let idle = share.retain(|_, _| false).removed;
            share.close();
            for connection in idle {
                let _ = timeout(PING_TIMEOUT, connection.close()).await;
            }
        }
    }
}

/// How many connections a pool has, and how many requests wait for one.
#[derive(Clone, Copy, Debug)]
pub struct Connections {
    /// Open and waiting for work.
    pub idle: usize,
    /// At work, or being opened.
    pub used: usize,
    /// The most that may be open.
    pub max: usize,
    /// Requests that wait for one.
    pub waiting: usize,
}

/// A connection on loan. Dropped, it is closed; only [`Lease::give_back`] returns it.
struct Lease<DB: Dialect>(Option<Object<Connector<DB>>>);

impl<DB: Dialect> Lease<DB> {
    fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl<DB: Dialect> Drop for Lease<DB> {
    fn drop(&mut self) {
        if let Some(unfinished) = self.0.take() {
            drop(Object::take(unfinished));
        }
    }
}

type Options<DB> = <<DB as Database>::Connection as Connection>::Options;

/// Opens connections and judges those that come back from the shelf.
struct Connector<DB: Database> {
    options: Options<DB>,
    /// Whether what is set on a connection stays there.
    is_own_session: bool,
    health: Arc<Health>,
}

impl<DB: Dialect> managed::Manager for Connector<DB> {
    type Type = DB::Connection;
    type Error = Error;

    async fn create(&self) -> Result<DB::Connection, Error> {
        let mut attempt = Attempt { health: &self.health, started: Instant::now(), answered: false };
        // Boxed, because it is large and seldom: a query's future, which holds it, is moved with every request.
        let connected = Box::pin(async {
            let mut connection = super::connect(&self.options).await?;
            if self.is_own_session {
                DB::set_up(&mut connection).await?;
            }
            Ok(connection)
        })
        .await;
        attempt.answered = true;
        connected.map_err(|cause| {
            let error = Error::connect(&self.health.address, cause);
            self.health.report(&error);
            error
        })
    }

    async fn recycle(&self, connection: &mut DB::Connection, metrics: &Metrics) -> RecycleResult<Error> {
        if metrics.age() > RETIRE_AFTER {
            return Err(RecycleError::message("it is old"));
        }
        let idle = metrics.last_used();
        if self.health.condemns(idle) {
            return Err(RecycleError::message("the database broke off since its last use"));
        }
        if idle > DOUBT_AFTER {
            match timeout(PING_TIMEOUT, Box::pin(connection.ping())).await {
                Ok(Ok(())) => {}
                Ok(Err(cause)) => {
                    let error = Error::from(cause);
                    self.health.fault(&error);
                    return Err(error.into());
                }
                Err(_) => {
                    let error = Error::Timeout(PING_TIMEOUT);
                    self.health.fault(&error);
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }
}

/// An attempt to connect. One that the acquire time-out cuts off has no error of its own to report.
struct Attempt<'a> {
    health: &'a Health,
    started: Instant,
    answered: bool,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.answered {
            let error = Error::connect(
                &self.health.address,
                std::io::Error::new(
                    std::io::ErrorKind::TimedOut,
                    format!("no answer within {} ms", self.started.elapsed().as_millis()),
                )
                .into(),
            );
            self.health.report(&error);
        }
    }
}

/// What the pool knows of the server: when it last broke off, and when that was last told.
struct Health {
    address: String,
    epoch: Instant,
    /// Milliseconds since the epoch; 0 is never.
    fault: AtomicU64,
    logged: AtomicU64,
}

impl Health {
    fn new(address: &str) -> Self {
        Self { address: address.to_owned(), epoch: Instant::now(), fault: AtomicU64::new(0), logged: AtomicU64::new(0) }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// Records that the server broke a connection off.
    fn fault(&self, error: &Error) {
        self.fault.store(self.now(), Ordering::Relaxed);
        self.report(error);
    }

    /// Logs why the database does not serve, once a second at most.
    fn report(&self, error: &Error) {
        let now = self.now();
        let last = self.logged.load(Ordering::Relaxed);
        let due = last == 0 || now.saturating_sub(last) >= 1000;
        if due && self.logged.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            tracing::warn!(error = %error, "the database is unavailable");
        }
    }

    /// Whether a connection that has been idle for so long was last used before the server broke
    /// off: what killed one connection has most likely killed it too, and a ping of each would take
    /// longer than a new one.
    fn condemns(&self, idle: Duration) -> bool {
        let fault = self.fault.load(Ordering::Relaxed);
        fault != 0 && self.now().saturating_sub(fault) < u64::try_from(idle.as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use deadpool::managed::Manager as _;
    use sqlx::Sqlite;
    use sqlx::sqlite::SqliteConnectOptions;

    use super::*;
    use crate::config::DriverOptions;

    fn connector() -> Connector<Sqlite> {
        // A database of this one connection, which is never used for more than a ping.
        let options = SqliteConnectOptions::new().filename(":memory:");
        Connector { options, is_own_session: true, health: Arc::new(Health::new("memory")) }
    }

    fn past(ago: Duration) -> Instant {
        Instant::now().checked_sub(ago).expect("an instant may precede the machine's start")
    }

    fn last_used(ago: Duration) -> Metrics {
        Metrics { recycled: Some(past(ago)), ..Metrics::default() }
    }

    #[tokio::test]
    async fn a_connection_is_retired_when_it_is_old() {
        let connector = connector();
        let mut connection = connector.create().await.expect("it opens");
        let young = Metrics::default();
        assert!(connector.recycle(&mut connection, &young).await.is_ok());
        let old = Metrics { created: past(RETIRE_AFTER + Duration::from_secs(1)), ..young };
        assert!(connector.recycle(&mut connection, &old).await.is_err());
    }

    #[tokio::test]
    async fn a_connection_is_pinged_when_it_was_idle() {
        let connector = connector();
        let mut connection = connector.create().await.expect("it opens");
        assert!(connector.recycle(&mut connection, &last_used(DOUBT_AFTER * 2)).await.is_ok());
    }

    #[tokio::test]
    async fn a_worker_whose_share_is_in_use_takes_from_the_others() {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite:{}?mode=rwc", folder.path().join("roster.db").display());
        let vars = [
            ("DATABASE_URL", url.as_str()),
            ("DATABASE_MAX_CONNECTIONS", "3"),
            ("DATABASE_ACQUIRE_TIMEOUT_MS", "50"),
            ("WEB_CONCURRENCY", "2"),
        ];
        let config =
            Config::from_vars(vars.map(|(name, value)| (name.to_owned(), value.to_owned()))).expect("complete");
        let DriverOptions::Sqlite(options) = &config.database_url.options else { panic!("the URL is of SQLite") };
        let pool = Pool::<Sqlite>::new(options, &config);
        let second = pool.for_worker(1);
        assert_eq!(pool.connections().max, 3);

        let mut leases = Vec::new();
        for _ in 0..3 {
            leases.push(second.acquire().await.expect("there is another connection"));
        }
        assert!(matches!(second.acquire().await, Err(Error::Acquire(_))), "all are in use");
        assert_eq!(pool.connections().used, 3, "both workers see the same pool");

        // The first of them was the only one of its share. Who waits already gets it, too.
        let given_back = async {
            sleep(PATIENCE * 2).await;
            leases.remove(0).give_back();
        };
        let (waited, ()) = tokio::join!(pool.acquire(), given_back);
        assert!(waited.is_ok(), "a connection of another share came back");
    }

    #[tokio::test]
    async fn a_fault_condemns_the_connections_used_before_it_alone() {
        let connector = connector();
        let mut connection = connector.create().await.expect("it opens");
        sleep(Duration::from_millis(20)).await;
        connector.health.fault(&Error::Timeout(PING_TIMEOUT));
        sleep(Duration::from_millis(20)).await;
        assert!(connector.recycle(&mut connection, &last_used(Duration::from_millis(500))).await.is_err());
        assert!(connector.recycle(&mut connection, &last_used(Duration::ZERO)).await.is_ok());
    }
}
