//! The connection pool: deadpool's, around sqlx's connections.
//!
//! sqlx's own pool pings on acquire and again on release, in a task that it spawns, which costs more
//! than a short query does. A query that is cancelled at the wrong moment makes that pool one connection
//! smaller permanently. Here a connection returns only from a query that completed, and is pinged only after
//! it was idle. One whose query was abandoned keeps its place in the pool until the server has ended the
//! statement, so that there are never more sessions, or more work in the server, than connections.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use deadpool::managed::{self, Object, PoolError, QueueMode, RecycleError, RecycleResult, Timeouts};
use futures_util::FutureExt as _;
use futures_util::future::{self, pending, select_all};
use prometheus::core::Desc;
use prometheus::proto::MetricFamily;
use sqlx::{Connection as _, QueryBuilder, SqlStr};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::{spawn_local, yield_now};
use tokio::time::{sleep, timeout, timeout_at};
use tracing::instrument::WithSubscriber as _;
use tracing::{Dispatch, Instrument as _};

use super::batch::{ACQUIRED_AFTER, Batch, Cancel, Collector, NEXT_AFTER, Pending, Queue, Runner, SIZES, statement};
use super::dialect::{Abandoned, Dialect, Each, Options, connect, read};
use super::error::Error;
use super::metrics::{Connections, Metrics, Outcome};
use super::select::Select;
use super::transaction::{Transaction, Work};
use super::value::Row;
use crate::config::Config;

/// A connection that was idle for longer is pinged before it is used again.
const PING_AFTER_IDLE: Duration = Duration::from_secs(1);
/// The longest wait for the answer to such a ping.
const PING_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a request waits for its worker's own connections alone.
const OWN_SHARE_WAIT: Duration = Duration::from_millis(10);
/// A connection that is older is replaced, so that a fail-over or a new address takes effect at some time.
const MAX_LIFETIME: Duration = Duration::from_mins(30);
/// The most attempts of a transaction that conflicts with others: it is repeated three times.
const ATTEMPTS: u32 = 4;
/// The longest pause before the second attempt.
const CONFLICT_PAUSE: Duration = Duration::from_millis(20);

/// A pool of one engine's connections, opened when they are first needed.
///
/// It is divided into shares, one for each worker if there are enough connections: a connection is registered with the
/// event loop of the thread that opened it, and its use from another thread wakes both. A worker whose share is in use
/// takes a connection of another share.
pub struct Pool<DB: Dialect> {
    shares: Arc<[managed::Pool<Connector<DB>>]>,
    own: usize,
    /// The connection of this process's readiness checks. Requests do not use it.
    readiness: managed::Pool<Connector<DB>>,
    metrics: Arc<Metrics>,
    queue: Arc<Queue>,
    transaction_pooling: bool,
    /// Begins a transaction for one query.
    begin: SqlStr,
    /// Begins a transaction that writes.
    begin_write: SqlStr,
    /// The permit to write, if the engine has one writer.
    writer: Option<Arc<Semaphore>>,
    acquire_timeout: Duration,
    query_timeout: Duration,
}

// Derived, Clone would ask it of the engine too.
impl<DB: Dialect> Clone for Pool<DB> {
    fn clone(&self) -> Self {
        Self {
            shares: self.shares.clone(),
            readiness: self.readiness.clone(),
            metrics: self.metrics.clone(),
            queue: self.queue.clone(),
            begin: self.begin.clone(),
            begin_write: self.begin_write.clone(),
            writer: self.writer.clone(),
            ..*self
        }
    }
}

impl<DB: Dialect> Pool<DB> {
    pub(super) fn new(options: &Options<DB>, config: &Config) -> Self {
        let health = Arc::new(Health::new(config.database_url.address()));
        let connections = usize::from(config.database_max_connections.get());
        let shares = connections.min(config.web_concurrency.get().into());
        let metrics = Arc::new(Metrics::new(DB::SYSTEM, SIZES));
        let transaction_pooling = config.database_url.transaction_pooling;
        let query_timeout = Duration::from_millis(config.database_query_timeout_ms.get());
        let pool = |size| {
            let connector =
                Connector { options: options.clone(), transaction_pooling, query_timeout, health: health.clone() };
            managed::Pool::builder(connector)
                .max_size(size)
                // The connection that was used last is the least likely to need a ping.
                .queue_mode(QueueMode::Lifo)
                .build()
                .expect("a pool without hooks and time-outs of its own needs no runtime")
        };
        Self {
            shares: (0..shares)
                .map(|index| pool(connections / shares + usize::from(index < connections % shares)))
                .collect(),
            own: 0,
            readiness: pool(1),
            queue: Arc::new(Queue::new(connections, metrics.clone())),
            metrics,
            transaction_pooling,
            begin: DB::begin(transaction_pooling, query_timeout),
            begin_write: DB::begin_write(transaction_pooling, query_timeout),
            writer: DB::HAS_ONE_WRITER.then(|| Arc::new(Semaphore::new(1))),
            acquire_timeout: Duration::from_millis(config.database_acquire_timeout_ms.get()),
            query_timeout,
        }
    }

    pub(super) fn for_worker(&self, worker: usize) -> Self {
        Self { own: worker % self.shares.len(), queue: Arc::new(self.queue.for_worker()), ..self.clone() }
    }

    /// Passes each row of the query to `each`.
    pub(super) async fn fetch(&self, select: &Select, each: &mut Each<'_>) -> Result<(), Error> {
        let lease = self.lease().await?;
        let _timer = self.metrics.queries.start_timer();
        traced::<DB, _>(self.fetch_on(lease, select, each)).await
    }

    async fn fetch_on(&self, lease: Lease<DB>, select: &Select, each: &mut Each<'_>) -> Result<(), Error> {
        let (mut statement, columns) = (statement(&[select]), select.columns());
        self.run_on(lease, async |connection, persistent| {
            read::<DB>(connection, persistent, &mut statement, columns, each).await
        })
        .await
    }

    /// As [`Pool::fetch`], for a query of few rows, which may share a statement with others. `new` creates the rows. It is
    /// called again if the query is repeated.
    pub(super) async fn fetch_batched<T: Send + 'static>(
        &self,
        select: Select,
        new: impl Fn() -> T + Send + 'static,
        each: impl FnMut(&mut T, Row<'_>) -> Result<(), sqlx::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let pending = Pending::count(&self.metrics);
        if let Some(runner) = self.queue.runner_for_one() {
            // Declared first, so it is dropped after `runner`. It starts a runner for waiting queries, also after a cancellation.
            let _next = NextRunner(self);
            let runner = runner;
            // Requests that have arrived already, but have not been read yet, can share its statement.
            yield_now().await;
            if self.queue.is_empty()
                && let Some(session) = self.acquire_for(&runner, self.acquire_free()).await?
            {
                let began = pending.end();
                self.queue.begin_one(&runner);
                let (mut rows, mut each) = (new(), each);
                let each = &mut |_, row: Option<Row<'_>>| row.map_or(Ok(()), |row| each(&mut rows, row));
                let outcome = traced::<DB, _>(self.fetch_on(Lease::new(session), &select, each)).await;
                self.adapt(began);
                return outcome.map(|()| rows);
            }
        }
        let (done, mut answer) = oneshot::channel();
        let mut ticket = self.queue.push(select, Collector::new(new, each, done), pending);
        self.start_runner();
        let answered = async {
            let acquire_limit = tokio::time::Instant::now() + self.acquire_timeout;
            if let Ok(answer) = timeout_at(acquire_limit, &mut answer).await {
                return answer;
            }
            if ticket.cancel(Cancel::First) {
                return Ok(Err(Error::Acquire(self.acquire_timeout)));
            }
            // Its statement is running, which has a limit of its own, or it waits to be repeated.
            if let Ok(answer) = timeout_at(acquire_limit + self.query_timeout, &mut answer).await {
                return answer;
            }
            if ticket.cancel(Cancel::Any) {
                return Ok(Err(Error::Timeout(self.query_timeout)));
            }
            answer.await
        };
        let answer = traced::<DB, _>(answered).await;
        ticket.answered();
        // Nothing is sent after a panic.
        answer.unwrap_or_else(|_| Err(Error::from(sqlx::Error::WorkerCrashed)))
    }

    /// Starts a runner for the next statement, unless there is one, and watches the statement for which queries wait.
    fn start_runner(&self) {
        if let Some(runner) = self.queue.runner() {
            let pool = self.clone();
            spawn_local(async move {
                let outcome = AssertUnwindSafe(pool.run_statements(runner)).catch_unwind().await;
                if outcome.is_err() {
                    tracing::error!("a panic in the rows of a query");
                    pool.start_runner();
                }
            });
        }
        if self.queue.begin_watch() {
            let pool = self.clone();
            spawn_local(async move { pool.watch_statements().await });
        }
    }

    /// Starts another runner when a statement is slow. A timer for each statement would cost more than this one: tokio wakes
    /// the event loop for each that is the next to expire.
    async fn watch_statements(&self) {
        let mut last = None;
        while self.queue.watch(&mut last) {
            sleep(NEXT_AFTER).await;
        }
        self.start_runner();
    }

    /// Runs statements until no query waits, or until another runner has the next one.
    async fn run_statements(&self, runner: Runner) {
        while runner.goes_on() {
            match self.acquire_for(&runner, self.acquire()).await {
                Ok(session) => self.run_batch(Lease::new(session)).await,
                // Each query has a limit of its own.
                Err(Error::Acquire(_)) => {}
                Err(error) => Batch::new(self.queue.next_batch()).end(Err(error)),
            }
        }
    }

    /// A connection for the statement of a runner.
    async fn acquire_for<T>(&self, runner: &Runner, acquired: impl Future<Output = T>) -> T {
        let mut acquired = pin!(acquired);
        if let Ok(acquired) = timeout(ACQUIRED_AFTER, acquired.as_mut()).await {
            return acquired;
        }
        // A connection may be returned while another one does not open.
        runner.yield_next();
        self.start_runner();
        acquired.await
    }

    /// Runs the next statement.
    async fn run_batch(&self, lease: Lease<DB>) {
        let queries = self.queue.next_batch();
        if queries.is_empty() {
            return lease.release();
        }
        let batch = Batch::new(queries);
        let mut statement = statement(&batch.selects());
        let (is_single, columns) = (batch.is_single(), batch.columns());
        let batch = RefCell::new(batch);
        let began = Instant::now();
        let outcome = {
            let each = &mut |number, row: Option<Row<'_>>| batch.borrow_mut().row(number, row);
            let running = self.run_on(lease, async |connection, persistent| {
                read::<DB>(connection, persistent, &mut statement, columns, each).await
            });
            let limit = if is_single { self.query_timeout * 2 } else { self.query_timeout / 4 };
            let disconnected = poll_fn(|cx| batch.borrow_mut().poll_disconnected(cx));
            tokio::select! {
                biased;
                outcome = timeout(limit, running) => outcome.ok(),
                () = disconnected => None,
            }
        };
        self.adapt(began);
        match (outcome, batch.into_inner()) {
            (Some(outcome), batch) if is_single => batch.end(outcome),
            (Some(outcome @ (Ok(()) | Err(Error::Lost(_)))), batch) => batch.end(outcome),
            // It is slow, or the error may be that of one query.
            (Some(Err(_)) | None, batch) => {
                self.queue.put_back(batch, || Pending::count(&self.metrics));
                self.start_runner();
            }
        }
    }

    /// Records the duration of the statement that ends now, and adapts the sizes of the next ones to it.
    fn adapt(&self, began: Instant) {
        let duration = began.elapsed();
        self.metrics.queries.observe(duration.as_secs_f64());
        self.queue.adapt(duration > self.query_timeout / 20);
    }

    /// Runs a query on the connection for readiness checks, which are done one after the other.
    pub(super) async fn probe<T>(
        &self,
        query: impl AsyncFnOnce(&mut DB::Connection, bool) -> Result<T, sqlx::Error>,
    ) -> Result<T, Error> {
        let lease = Lease::new(self.limit_acquire(self.readiness.get()).await?);
        traced::<DB, _>(self.run_on(lease, query)).await
    }

    /// Runs a query on a connection, within the query time-out. The query learns whether its statement may stay prepared
    /// (`persistent` in sqlx) for the next one.
    ///
    /// A future that is dropped before it is complete, by its time-out or because its client is gone, leaves the
    /// protocol in the middle of an answer. [`recover`] reads its rest before the connection is used again.
    async fn run_on<T>(
        &self,
        mut lease: Lease<DB>,
        query: impl AsyncFnOnce(&mut DB::Connection, bool) -> Result<T, sqlx::Error>,
    ) -> Result<T, Error> {
        lease.in_transaction = self.transaction_pooling;
        let outcome = self.limit(self.pooled(lease.connection(), query)).await;
        self.end(lease, outcome)
    }

    /// Runs `work` in a transaction, and commits it. All statements share one query time-out, and COMMIT is sent only before
    /// it expires. So a transaction that failed has no effect later, either.
    ///
    /// If it conflicts with another one, such as by a deadlock, it is repeated.
    ///
    /// # Errors
    /// The error of the database. None if `work` failed by itself.
    pub(super) async fn transaction(&self, work: &dyn Work) -> Result<(), Option<Error>> {
        let began = Instant::now();
        let mut attempt = 1;
        loop {
            let outcome = self.try_transaction(work).await;
            let is_conflict = outcome.as_ref().is_err_and(|failed| failed.is_conflict);
            let is_repeated = is_conflict && attempt < ATTEMPTS && began.elapsed() < self.query_timeout;
            self.metrics.count(match &outcome {
                Ok(()) => Outcome::Committed,
                Err(failed) if failed.is_unconfirmed => Outcome::Unconfirmed,
                Err(_) if is_repeated => Outcome::Repeated,
                Err(_) => Outcome::RolledBack,
            });
            if !is_repeated {
                return outcome.map_err(|failed| failed.error);
            }
            // Transactions that conflict with each other should not repeat at the same time.
            sleep(CONFLICT_PAUSE.mul_f64(fastrand::f64()) * attempt).await;
            attempt += 1;
        }
    }

    async fn try_transaction(&self, work: &dyn Work) -> Result<(), Failed> {
        let pending = Pending::count(&self.metrics);
        let began = Instant::now();
        let _writer = match &self.writer {
            Some(writer) => match timeout(self.acquire_timeout, writer.acquire()).await {
                Ok(permit) => Some(permit.map_err(|_| Error::Stopped)?),
                Err(_) => return Err(Error::Writer(self.acquire_timeout).into()),
            },
            None => None,
        };
        let left = self.acquire_timeout.saturating_sub(began.elapsed());
        let mut lease = match timeout(left, self.acquire()).await {
            Ok(acquired) => Lease::new(acquired?),
            Err(_) => return Err(Error::Acquire(self.acquire_timeout).into()),
        };
        drop(pending);
        let _timer = self.metrics.transactions.start_timer();
        lease.in_transaction = true;
        let connection = lease.connection();
        let mut transaction = Transaction::new(DB::connection(connection), !self.transaction_pooling);
        let worked = traced::<DB, _>(timeout(self.query_timeout, async {
            transaction.execute_unprepared(self.begin_write.clone()).await?;
            Ok::<_, Error>(work.run(&mut transaction).await)
        }));
        let Ok(worked) = worked.await else {
            return self.end(lease, Err(Error::Timeout(self.query_timeout))).map_err(Failed::from);
        };
        let failure = transaction.into_failure();
        match (worked, failure) {
            (Ok(true), None) => Ok(self.commit(lease).await?),
            (worked, None) => {
                self.roll_back(lease).await;
                Err(Failed { error: worked.err(), is_conflict: false, is_unconfirmed: false })
            }
            (worked, Some(failure)) => {
                let is_conflict = failure.is_conflict();
                if failure.connection_is_reusable() {
                    self.roll_back(lease).await;
                } else {
                    let _ = self.end(lease, Err::<(), _>(failure.clone()));
                }
                // What follows a failure has no effect, even if the caller ignores it.
                let error = (!matches!(worked, Ok(false))).then_some(failure);
                Err(Failed { error, is_conflict, is_unconfirmed: false })
            }
        }
    }

    async fn commit(&self, mut lease: Lease<DB>) -> Result<(), Error> {
        // Its outcome counts, however long the server may take.
        let longest = DB::longest_statement(self.query_timeout);
        match timeout(longest, DB::execute(lease.connection(), "COMMIT")).await {
            Ok(Ok(())) => self.end(lease, Ok(())),
            Ok(Err(cause)) => match Error::from(cause) {
                lost @ Error::Lost(_) => self.end(lease, Err(lost)).map_err(|lost| Error::Unconfirmed(lost.into())),
                // SQLite leaves the transaction open. Its connection is recovered, which ends the transaction.
                refused if refused.connection_is_reusable() => Err(refused),
                refused => self.end(lease, Err(refused)),
            },
            Err(_) => self.end(lease, Err(Error::Unconfirmed(Error::Timeout(longest).into()))),
        }
    }

    /// Rolls a transaction back. If that fails, the connection is recovered.
    async fn roll_back(&self, mut lease: Lease<DB>) {
        if self.limit(DB::execute(lease.connection(), "ROLLBACK")).await.is_ok() {
            lease.release();
        }
    }

    /// Limits the time of statements.
    async fn limit<T>(&self, statements: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Error> {
        // sqlx enters the current span for every row that it reads (`try_stream!` in sqlx-core 0.9), which costs as much
        // as a tenth of the row; out of every span, it has none to enter.
        match timeout(self.query_timeout, statements.with_subscriber(Dispatch::none())).await {
            Ok(outcome) => outcome.map_err(Error::from),
            Err(_) => Err(Error::Timeout(self.query_timeout)),
        }
    }

    /// Returns a connection to the pool, if it can serve another query.
    fn end<T>(&self, lease: Lease<DB>, outcome: Result<T, Error>) -> Result<T, Error> {
        match &outcome {
            Ok(_) => lease.release(),
            Err(error) if error.connection_is_reusable() => lease.release(),
            Err(error @ Error::Lost(_)) => {
                self.shares[self.own].manager().health.fault(error);
                lease.discard();
            }
            Err(Error::Timeout(_)) => drop(lease),
            Err(_) => lease.close(),
        }
        outcome
    }

    /// With transaction pooling, a statement is prepared and executed within one transaction, unnamed: outside of it,
    /// the two could meet different servers.
    async fn pooled<T>(
        &self,
        connection: &mut DB::Connection,
        query: impl AsyncFnOnce(&mut DB::Connection, bool) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        if !self.transaction_pooling {
            return query(connection, true).await;
        }
        DB::execute(connection, self.begin.clone()).await?;
        let outcome = query(&mut *connection, false).await;
        DB::execute(connection, if outcome.is_ok() { "COMMIT" } else { "ROLLBACK" }).await?;
        outcome
    }

    /// Calls `wake` for each notification of a channel, until it is dropped. A pooler does not pass them on.
    pub(super) async fn listen(&self, channel: &'static str, wake: impl Fn()) -> Infallible {
        if self.transaction_pooling {
            return pending().await;
        }
        let options = self.shares[self.own].manager().options.clone();
        DB::listen(options, channel, wake).await
    }

    pub(super) fn connections(&self) -> Connections {
        let mut sum = Connections { idle: 0, used: 0, max: 0 };
        for status in self.shares.iter().map(managed::Pool::status) {
            let idle = status.available.min(status.size);
            sum.idle += idle;
            sum.used += status.size - idle;
            sum.max += status.max_size;
        }
        sum
    }

    /// An acquired connection for one request, which is counted while it waits.
    async fn lease(&self) -> Result<Lease<DB>, Error> {
        let _pending = Pending::count(&self.metrics);
        self.acquire().await.map(Lease::new)
    }

    /// A connection of the own share, or of another one while the own share is in use. While all are in use, the request
    /// first waits for its own share only, and then for any, so that no connection is idle while a request waits for long.
    async fn acquire(&self) -> Result<Object<Connector<DB>>, Error> {
        let connection = async {
            if let Some(free) = self.free().await {
                return free;
            }
            let any_other = async {
                sleep(OWN_SHARE_WAIT).await;
                let waiting: Vec<_> = self.shares_by_preference().skip(1).map(|share| Box::pin(share.get())).collect();
                if waiting.is_empty() { pending().await } else { select_all(waiting).await.0 }
            };
            future::select(pin!(self.shares[self.own].get()), pin!(any_other)).await.factor_first().0
        };
        self.limit_acquire(connection).await
    }

    /// As [`Pool::acquire`]. None if all are in use.
    async fn acquire_free(&self) -> Result<Option<Object<Connector<DB>>>, Error> {
        self.limit_acquire(async { self.free().await.transpose() }).await
    }

    /// A connection that is not in use, if there is one. It may have to be opened.
    async fn free(&self) -> Option<Acquired<DB>> {
        const AT_ONCE: Timeouts = Timeouts { wait: Some(Duration::ZERO), create: None, recycle: None };
        for share in self.shares_by_preference() {
            match share.timeout_get(&AT_ONCE).await {
                Err(PoolError::Timeout(_)) => {}
                outcome => return Some(outcome),
            }
        }
        None
    }

    /// The own share, and then the others.
    fn shares_by_preference(&self) -> impl Iterator<Item = &managed::Pool<Connector<DB>>> {
        let (before, from_own) = self.shares.split_at(self.own);
        from_own.iter().chain(before)
    }

    async fn limit_acquire<T>(
        &self,
        connection: impl Future<Output = Result<T, PoolError<Error>>>,
    ) -> Result<T, Error> {
        match timeout(self.acquire_timeout, connection).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(PoolError::Backend(error))) => Err(error),
            // The pool has no hooks and no time-outs of its own, so it is closed.
            Ok(Err(_)) => Err(Error::Stopped),
            Err(_) => Err(Error::Acquire(self.acquire_timeout)),
        }
    }

    pub(super) async fn close(&self) {
        for share in self.shares.iter().chain([&self.readiness]) {
            let idle = share.retain(|_, _| false).removed;
            share.close();
            for connection in idle.into_iter().filter_map(|session| session.connection) {
                let _ = timeout(PING_TIMEOUT, connection.close()).await;
            }
        }
    }
}

/// A transaction that was not committed, as far as is known.
struct Failed {
    /// None if the work failed by itself.
    error: Option<Error>,
    /// Whether it may succeed if it is repeated.
    is_conflict: bool,
    /// Whether it may have been committed.
    is_unconfirmed: bool,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        let (is_conflict, is_unconfirmed) = (error.is_conflict(), matches!(error, Error::Unconfirmed(_)));
        Self { error: Some(error), is_conflict, is_unconfirmed }
    }
}

/// Dropped, it starts a runner for the queries that wait.
struct NextRunner<'p, DB: Dialect>(&'p Pool<DB>);

impl<DB: Dialect> Drop for NextRunner<'_, DB> {
    fn drop(&mut self) {
        self.0.start_runner();
    }
}

/// The span of a request's query, for traces. For a shared statement, it includes the wait. No filter of the log shows it by
/// default.
async fn traced<DB: Dialect, T>(query: impl Future<Output = T>) -> T {
    query.instrument(tracing::debug_span!("query", otel.kind = "client", db.system.name = DB::SYSTEM)).await
}

/// The metrics of the pool.
impl<DB: Dialect> prometheus::core::Collector for Pool<DB> {
    fn desc(&self) -> Vec<&Desc> {
        self.metrics.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.metrics.set_connections(&self.connections());
        self.metrics.collect()
    }
}

type Acquired<DB> = Result<Object<Connector<DB>>, PoolError<Error>>;

/// A session in the server, as the pool keeps it.
struct Session<DB: Dialect> {
    /// None, once it was closed.
    connection: Option<DB::Connection>,
    abandoned: Abandoned,
}

/// An acquired connection. Dropped, it is recovered or closed; only [`Lease::release`] returns it to the pool as it is.
struct Lease<DB: Dialect> {
    session: Option<Object<Connector<DB>>>,
    /// Whether its statements are several, so that the last one may have begun at any time.
    in_transaction: bool,
    /// Whether a new connection may do what this one cannot.
    is_unsuitable: bool,
}

impl<DB: Dialect> Lease<DB> {
    fn new(session: Object<Connector<DB>>) -> Self {
        Self { session: Some(session), in_transaction: false, is_unsuitable: false }
    }

    fn connection(&mut self) -> &mut DB::Connection {
        let connection = self.session.as_mut().and_then(|session| session.connection.as_mut());
        connection.expect("a lease holds its connection until it ends")
    }

    fn release(mut self) {
        drop(self.session.take());
    }

    /// Replaces the connection.
    fn close(mut self) {
        self.is_unsuitable = true;
    }

    /// Frees the place of a connection whose session has ended already.
    fn discard(mut self) {
        drop(self.session.take().map(Object::take));
    }
}

impl<DB: Dialect> Drop for Lease<DB> {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else { return };
        session.abandoned.store(true, Ordering::Relaxed);
        let limit = Object::pool(&session).map_or(Duration::ZERO, |pool| pool.manager().query_timeout);
        let mut longest = DB::longest_statement(limit);
        if !self.in_transaction {
            longest = longest.saturating_sub(Object::metrics(&session).last_used());
        }
        if let Ok(runtime) = Handle::try_current() {
            let end = end_statement(session, longest, self.in_transaction, self.is_unsuitable);
            runtime.spawn(end.with_subscriber(Dispatch::none()));
        } else {
            // The process ends, and its sessions end with it.
            drop(Object::take(session));
        }
    }
}

/// Waits for the end of an abandoned statement, whose connection keeps its place in the pool meanwhile: a server notices
/// that its client is gone only after the statement. Then the connection returns to the pool, or is replaced.
async fn end_statement<DB: Dialect>(
    mut session: Object<Connector<DB>>,
    longest: Duration,
    in_transaction: bool,
    is_unsuitable: bool,
) {
    // Should this task be dropped, the place stays without its connection.
    let Some(mut connection) = session.connection.take() else { return };
    let abandoned = session.abandoned.clone();
    let ended = async {
        // It is answered behind the statement. An error is an answer, too.
        let _ = connection.ping().await;
        abandoned.store(false, Ordering::Relaxed);
        !is_unsuitable && recover::<DB>(&mut connection, in_transaction).await
    };
    match timeout(longest, ended).await {
        Ok(true) => {
            session.connection = Some(connection);
            return;
        }
        Ok(false) => {
            let _ = timeout(PING_TIMEOUT, connection.close()).await;
            sleep(DB::SESSION_END).await;
        }
        // The server does not answer for longer than a statement may take: it is unreachable.
        Err(_) => drop(connection),
    }
    drop(Object::take(session));
}

/// Reads the rest of an abandoned answer, and ends an abandoned transaction. A connection that does not return a random
/// text then, and nothing else, is out of step with the server: MySQL's driver loses count when it is dropped while it
/// prepares a statement.
async fn recover<DB: Dialect>(connection: &mut DB::Connection, in_transaction: bool) -> bool {
    /// The error of the abandoned statement, and that of a transaction that never began.
    const LEFTOVERS: usize = 3;
    let expected = format!("{:016x}", fastrand::u64(..));
    for _ in 0..LEFTOVERS {
        if in_transaction {
            // There may be none. An answer that is missing shows below.
            let _ = DB::execute(connection, "ROLLBACK").await;
        }
        let mut sql = QueryBuilder::<DB>::new("SELECT '");
        match DB::text(connection, sql.push(&expected).push("'").sql()).await {
            Ok(text) => return text == expected,
            Err(sqlx::Error::Database(_)) => {}
            Err(_) => return false,
        }
    }
    false
}

/// Opens connections, and checks them before they are used again.
struct Connector<DB: Dialect> {
    options: Options<DB>,
    transaction_pooling: bool,
    query_timeout: Duration,
    health: Arc<Health>,
}

impl<DB: Dialect> managed::Manager for Connector<DB> {
    type Type = Session<DB>;
    type Error = Error;

    async fn create(&self) -> Result<Session<DB>, Error> {
        let mut attempt = Attempt { health: &self.health, started: Instant::now(), answered: false };
        let abandoned = Abandoned::default();
        let limit = Some(self.query_timeout);
        let connected = connect::<DB>(&self.options, self.transaction_pooling, limit, &abandoned).await;
        attempt.answered = true;
        match connected {
            Ok(connection) => Ok(Session { connection: Some(connection), abandoned }),
            Err(cause) => {
                let error = Error::connect(&self.health.address, cause);
                self.health.report(&error);
                Err(error)
            }
        }
    }

    async fn recycle(&self, session: &mut Session<DB>, metrics: &managed::Metrics) -> RecycleResult<Error> {
        if metrics.age() > MAX_LIFETIME
            && let Some(old) = session.connection.take()
        {
            let _ = timeout(PING_TIMEOUT, Box::pin(old.close())).await;
        }
        let Some(connection) = &mut session.connection else {
            return Err(RecycleError::message("it was closed"));
        };
        let idle = metrics.last_used();
        if self.health.is_stale(idle) {
            return Err(RecycleError::message("the database disconnected since its last use"));
        }
        if idle > PING_AFTER_IDLE {
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

/// An attempt to connect. An attempt that the acquire time-out ends has no error of its own to report.
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
                    format!("no response within {} ms", self.started.elapsed().as_millis()),
                )
                .into(),
            );
            self.health.report(&error);
        }
    }
}

/// What the pool knows of the server: when it last disconnected, and when that was last logged.
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

    /// Records that the server closed a connection, or did not respond on it.
    fn fault(&self, error: &Error) {
        self.fault.store(self.now(), Ordering::Relaxed);
        self.report(error);
    }

    /// Logs why the database is unavailable, at most once a second.
    fn report(&self, error: &Error) {
        let now = self.now();
        let last = self.logged.load(Ordering::Relaxed);
        let due = last == 0 || now.saturating_sub(last) >= 1000;
        if due && self.logged.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            tracing::warn!(error = %error, "the database is unavailable");
        }
    }

    /// Whether a connection with this idle time was last used before the last fault. What ended one connection probably
    /// ended it, too, and a ping of each would take longer than a new connection.
    fn is_stale(&self, idle: Duration) -> bool {
        let fault = self.fault.load(Ordering::Relaxed);
        fault != 0 && self.now().saturating_sub(fault) < u64::try_from(idle.as_millis()).unwrap_or(u64::MAX)
    }
}

// It needs an engine without a server.
#[cfg(test)]
mod tests_on_sqlite {
    use deadpool::managed::Manager as _;
    use sqlx::Sqlite;
    use sqlx::sqlite::SqliteConnectOptions;

    use super::*;
    use crate::config::UNUSED_URLS;

    fn connector() -> Connector<Sqlite> {
        // A database of this one connection, which is never used for more than a ping.
        let options = SqliteConnectOptions::new().filename(":memory:");
        let health = Arc::new(Health::new("memory"));
        Connector { options, transaction_pooling: false, query_timeout: Duration::from_secs(1), health }
    }

    fn past(ago: Duration) -> Instant {
        Instant::now().checked_sub(ago).expect("an instant may precede the machine's start")
    }

    fn last_used(ago: Duration) -> managed::Metrics {
        managed::Metrics { recycled: Some(past(ago)), ..managed::Metrics::default() }
    }

    #[tokio::test]
    async fn a_connection_is_replaced_when_it_is_old() {
        let connector = connector();
        let mut connection = connector.create().await.expect("it opens");
        let young = managed::Metrics::default();
        assert!(connector.recycle(&mut connection, &young).await.is_ok());
        let old = managed::Metrics { created: past(MAX_LIFETIME + Duration::from_secs(1)), ..young };
        assert!(connector.recycle(&mut connection, &old).await.is_err());
    }

    #[tokio::test]
    async fn a_connection_is_pinged_when_it_was_idle() {
        let connector = connector();
        let mut connection = connector.create().await.expect("it opens");
        assert!(connector.recycle(&mut connection, &last_used(PING_AFTER_IDLE * 2)).await.is_ok());
    }

    #[tokio::test]
    async fn a_worker_whose_share_is_in_use_takes_from_the_others() {
        let vars = [
            ("DATABASE_URL", UNUSED_URLS[0]),
            ("DATABASE_MAX_CONNECTIONS", "3"),
            ("DATABASE_ACQUIRE_TIMEOUT_MS", "50"),
            ("WEB_CONCURRENCY", "2"),
        ];
        let config =
            Config::from_vars(vars.map(|(name, value)| (name.to_owned(), value.to_owned()))).expect("complete");
        let options = SqliteConnectOptions::new().filename(":memory:");
        let pool = Pool::<Sqlite>::new(&options, &config);
        let second = pool.for_worker(1);
        assert_eq!(pool.connections().max, 3);

        let mut leases = Vec::new();
        for _ in 0..3 {
            leases.push(second.acquire().await.expect("there is another connection"));
        }
        assert!(matches!(second.acquire().await, Err(Error::Acquire(_))), "all are in use");
        assert_eq!(pool.connections().used, 3, "both workers see the same pool");

        // The first of them was the only one of its share. A request that already waits gets it, too.
        let returned = async {
            sleep(OWN_SHARE_WAIT * 2).await;
            drop(leases.remove(0));
        };
        let (waited, ()) = tokio::join!(pool.acquire(), returned);
        assert!(waited.is_ok(), "a connection of another share was returned");
    }

    #[tokio::test]
    async fn a_fault_makes_only_the_connections_used_before_it_stale() {
        let connector = connector();
        let mut connection = connector.create().await.expect("it opens");
        sleep(Duration::from_millis(20)).await;
        connector.health.fault(&Error::Timeout(PING_TIMEOUT));
        sleep(Duration::from_millis(20)).await;
        assert!(connector.recycle(&mut connection, &last_used(Duration::from_millis(500))).await.is_err());
        assert!(connector.recycle(&mut connection, &last_used(Duration::ZERO)).await.is_ok());
    }
}
