//! The migration lock, table locks, and how long a run waits for them.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::engine::EngineMigrations;
use super::error::Error;
use crate::db::engine::on_engine;
use crate::db::error::Error as DbError;
use crate::db::session::Session;

/// The names of the locks in log lines and errors.
const MIGRATIONS: &str = "the migration lock";
const TABLE: &str = "a table lock";
/// The interval between two attempts to take a lock.
const LOCK_POLL: Duration = Duration::from_millis(100);
/// The interval between two log lines of a waiting run.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// The longest time for a statement that needs no table lock.
const SHORT_STATEMENT: Duration = Duration::from_secs(10);

/// When a run stops early: at a signal, or after a wait for locks.
#[derive(Clone, Copy)]
pub struct Limits<'a> {
    /// Cancelled by a signal. A run then ends before the next migration.
    pub stop: &'a CancellationToken,
    /// The longest time that a run waits for locks of other sessions.
    pub lock_timeout: Duration,
}

impl<'a> Limits<'a> {
    /// The default of [`Limits::lock_timeout`], in seconds.
    pub const LOCK_TIMEOUT_SECONDS: u16 = 600;

    /// The default limits.
    #[must_use]
    pub const fn new(stop: &'a CancellationToken) -> Self {
        Self { stop, lock_timeout: Duration::from_secs(Self::LOCK_TIMEOUT_SECONDS as u64) }
    }
}

/// Does some work while no other process can. The lock ends with the work, or with the session when the work fails.
pub(super) async fn with_lock<T>(
    session: &mut Session,
    wait: &mut Wait<'_>,
    work: impl AsyncFnOnce(&mut Session, &mut Wait<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    set_lock_timeout(session, LockTimeout::Short).await?;
    while !on_engine!(Session, &mut *session, conn => short(conn.try_lock()).await)? {
        let holder = async { on_engine!(Session, &mut *session, conn => conn.lock_holder().await) };
        wait.pause(MIGRATIONS, holder).await?;
    }
    let done = work(session, wait).await?;
    on_engine!(Session, &mut *session, conn => conn.unlock().await)?;
    set_lock_timeout(session, LockTimeout::Default).await?;
    Ok(done)
}

/// How long a session waits for a lock.
#[derive(Clone, Copy)]
pub(super) enum LockTimeout {
    /// For so short a time that a signal or the time limit ends the run.
    Short,
    /// As long as the driver or the server does by default.
    Default,
}

pub(super) async fn set_lock_timeout(session: &mut Session, timeout: LockTimeout) -> Result<(), DbError> {
    fn statement<C: EngineMigrations>(_: &C, timeout: LockTimeout) -> &'static str {
        match timeout {
            LockTimeout::Short => C::SHORT_LOCK_TIMEOUT,
            LockTimeout::Default => C::DEFAULT_LOCK_TIMEOUT,
        }
    }
    let sql = on_engine!(Session, &*session, conn => statement(conn, timeout));
    short(session.execute(sql)).await
}

/// Limits the time of a statement that needs no table lock, so that an unresponsive server is detected.
pub(super) async fn short<T, E: From<DbError>>(statement: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    timeout(SHORT_STATEMENT, statement).await.unwrap_or_else(|_| Err(DbError::Timeout(SHORT_STATEMENT).into()))
}

/// Logs at intervals that a migration is still running. It has no time limit, because it may take long on a large
/// table.
pub(super) async fn reported<T>(version: i64, migration: impl Future<Output = T>) -> T {
    let started = Instant::now();
    tokio::pin!(migration);
    loop {
        if let Ok(done) = timeout(REPORT_INTERVAL, &mut migration).await {
            return done;
        }
        tracing::info!(version, seconds = started.elapsed().as_secs(), "the migration is still running");
    }
}

/// Whether a statement failed because another session held a table lock. The statement then had no effect.
fn is_lock_timeout(error: &Error) -> bool {
    let (Error::Failed { cause, .. } | Error::Interrupted { cause, .. } | Error::Database(cause)) = error else {
        return false;
    };
    cause.is_lock_timeout()
}

/// The wait of one run for locks that other sessions hold.
pub(super) struct Wait<'a> {
    limits: Limits<'a>,
    started: Option<Instant>,
    last_reported: Option<Instant>,
}

impl<'a> Wait<'a> {
    pub(super) const fn new(limits: Limits<'a>) -> Self {
        Self { limits, started: None, last_reported: None }
    }

    /// Executes statements, again while another session holds a table lock.
    pub(super) async fn retry<T>(
        &mut self,
        session: &mut Session,
        mut statements: impl AsyncFnMut(&mut Session) -> Result<T, Error>,
    ) -> Result<T, Error> {
        loop {
            match statements(session).await {
                Err(error) if is_lock_timeout(&error) => {
                    let holder = async { on_engine!(Session, session, conn => conn.transaction_holder().await) };
                    self.pause(TABLE, holder).await?;
                }
                done => return done,
            }
        }
    }

    /// Waits for the next attempt, or fails after the time limit.
    async fn pause(&mut self, lock: &'static str, holder: impl Future<Output = Option<String>>) -> Result<(), Error> {
        let waited = self.started.get_or_insert_with(Instant::now).elapsed();
        let is_over = waited >= self.limits.lock_timeout;
        if is_over || self.last_reported.is_none_or(|last| last.elapsed() >= REPORT_INTERVAL) {
            self.last_reported = Some(Instant::now());
            let holder = timeout(SHORT_STATEMENT, holder).await.ok().flatten();
            let holder = holder.unwrap_or_else(|| "the engine does not report it".to_owned());
            if is_over {
                return Err(Error::LockTimeout { lock, waited, holder });
            }
            tracing::warn!(lock, holder, seconds = waited.as_secs(), "waiting for a lock of another session");
        }
        tokio::select! {
            () = sleep(LOCK_POLL) => Ok(()),
            () = self.limits.stop.cancelled() => Err(Error::Stopped),
        }
    }
}
