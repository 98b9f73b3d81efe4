//! The schema's migrations and their safety (factor XII: admin processes).
//!
//! The files in `migrations/` have the same numbers and the same meaning on every engine. `build.rs` makes them a part of
//! the binary. The table `roster_migrations` is the ledger of applied migrations. It has the columns of sqlx's ledger, but
//! another name, because several applications may share a database.
//!
//! sqlx applies migrations on engines where a migration is a transaction. sqlx's lock is a no-op on SQLite, and ignores
//! that `GET_LOCK` can return NULL on MariaDB. So `engine/` has locks of its own, and the migrations on MySQL:
//!
//! | engine | lock | after a process was killed during a migration |
//! |---|---|---|
//! | PostgreSQL | a session-level advisory lock | the transaction was rolled back |
//! | SQLite | `BEGIN IMMEDIATE` around the whole run | the transaction was rolled back |
//! | MySQL, MariaDB | `GET_LOCK`, with its result checked | the next run checks whether the statement took effect, and completes the migration |
//!
//! On PostgreSQL, a statement that cannot run in a transaction, such as `CREATE INDEX CONCURRENTLY`, is alone in a file
//! whose first line is `-- no transaction`. After a failure or a kill, an operator removes what it left. The line has no
//! effect on MySQL, and is an error of the build on SQLite.

pub(in crate::db) mod engine;
pub(in crate::db) mod error;
pub(in crate::db) mod files;
#[cfg(test)]
mod folder;
mod ledger;
mod lock;
mod rows;
mod steps;

use super::engine::on_engine;
use super::session::Session;
use engine::EngineMigrations as _;
use ledger::{Entry, ensure_ledger, own_ledger, readable_ledger};
use lock::{Wait, reported, with_lock};
use steps::{Step, steps};

pub use super::engine::mysql::reports_done;
pub use error::Error;
pub use files::LATEST;
pub use lock::Limits;
pub use rows::{COUNT_MAX, count_rows};

/// What a run did.
#[derive(Debug)]
pub struct Run {
    /// The migrations that it applied or reverted, in that order.
    pub done: Vec<i64>,
    /// Whether a signal ended it before the last one.
    pub stopped: bool,
}

/// A line of the ledger, or a migration that is not in it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Status {
    /// The migration's number.
    pub version: i64,
    /// Its name, unless the binary is older than the migration.
    pub name: Option<&'static str>,
    /// Its state.
    pub state: State,
    /// When it was applied, in UTC by RFC 3339.
    pub applied_at: Option<String>,
}

/// The state of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its statements ran.
    Applied,
    /// `migrate up` will apply it.
    Pending,
    /// Its process was killed during the migration. `migrate up` completes it, and `migrate down` reverts it.
    Interrupted,
    /// It was applied from a file that has changed since.
    Modified,
    /// It was applied by a newer release.
    Newer,
}

/// Every migration of the binary and of the ledger, in order.
///
/// # Errors
/// Those of the database, and [`Error::LockTimeout`] if another session locks the ledger.
pub async fn status(session: &mut Session, limits: Limits<'_>) -> Result<Vec<Status>, Error> {
    let steps = steps(session);
    let ledger = readable_ledger(session, &steps, limits).await?;
    let mut lines: Vec<Status> = ledger
        .iter()
        .map(|entry| {
            let step = steps.iter().find(|step| step.version == entry.version);
            Status {
                version: entry.version,
                name: step.map(|step| step.name),
                state: match step {
                    _ if !entry.success => State::Interrupted,
                    None => State::Newer,
                    Some(step) if *step.up.checksum != *entry.checksum => State::Modified,
                    Some(_) => State::Applied,
                },
                applied_at: Some(entry.at.clone()),
            }
        })
        .collect();
    for step in steps {
        if !lines.iter().any(|line| line.version == step.version) {
            lines.push(Status {
                version: step.version,
                name: Some(step.name),
                state: State::Pending,
                applied_at: None,
            });
        }
    }
    lines.sort_by_key(|line| line.version);
    Ok(lines)
}

/// The migrations that [`up`] would apply, each with its SQL, without a lock or a change.
///
/// # Errors
/// As those of [`up`].
pub async fn pending(
    session: &mut Session,
    to: Option<i64>,
    limits: Limits<'_>,
) -> Result<Vec<(i64, &'static str, String)>, Error> {
    let steps = steps(session);
    let ledger = readable_ledger(session, &steps, limits).await?;
    check(&ledger, &steps)?;
    Ok(steps
        .into_iter()
        .filter(|step| to.is_none_or(|to| step.version <= to))
        .filter(|step| !ledger.iter().any(|entry| entry.version == step.version && entry.success))
        .map(|step| (step.version, step.name, step.up.sql.as_str().to_owned()))
        .collect())
}

/// Applies every pending migration, or those up to a version. Any number of processes may do so at once: one applies
/// them, and the others wait. Without pending migrations, it reads the ledger and acquires no lock. So it succeeds on a
/// standby, on a read-only server and without the right to change the schema.
///
/// # Errors
/// [`Error::Failed`] names the migration; those before it stay applied, except on SQLite, where the
/// whole run is one transaction.
pub async fn up(session: &mut Session, to: Option<i64>, limits: Limits<'_>) -> Result<Run, Error> {
    let steps = steps(session);
    let wanted = |step: &&Step| to.is_none_or(|to| step.version <= to);
    let is_applied = |ledger: &[Entry], step: &Step| ledger.iter().any(|it| it.version == step.version && it.success);
    let mut wait = Wait::new(limits);
    if let Some(ledger) = own_ledger(session, &mut wait).await? {
        check(&ledger, &steps)?;
        if steps.iter().filter(wanted).all(|step| is_applied(&ledger, step)) {
            return Ok(Run { done: Vec::new(), stopped: false });
        }
    }
    with_lock(session, &mut wait, async |session, wait| {
        let ledger = wait.retry(session, async |session| ensure_ledger(session, &steps).await).await?;
        check(&ledger, &steps)?;
        let mut done = Vec::new();
        for step in steps.iter().filter(wanted).filter(|step| !is_applied(&ledger, step)) {
            if limits.stop.is_cancelled() {
                return Ok(Run { done, stopped: true });
            }
            let version = step.version;
            if ledger.iter().any(|entry| entry.version == version) {
                tracing::warn!(version, "the migration was interrupted; finishing it");
            }
            // A failed attempt may have changed its row of the ledger.
            let apply = wait.retry(session, async |session| match ledger::entry(session, version).await? {
                Some(entry) => on_engine!(Session, session, conn => conn.finish_apply(&step.up, entry.mark).await),
                None => on_engine!(Session, session, conn => conn.apply_step(&step.up).await),
            });
            reported(version, apply).await?;
            tracing::info!(version, name = step.name, "migration applied");
            done.push(version);
        }
        Ok(Run { done, stopped: false })
    })
    .await
}

/// The migrations that [`down`] would revert, the last one first, each with its SQL, without a lock or a change.
///
/// # Errors
/// As those of [`down`].
pub async fn applied(
    session: &mut Session,
    to: Option<i64>,
    limits: Limits<'_>,
) -> Result<Vec<(i64, &'static str, String)>, Error> {
    let steps = steps(session);
    let ledger = readable_ledger(session, &steps, limits).await?;
    reverted(&ledger, to)
        .map(|entry| known(&steps, entry.version))
        .map(|step| step.map(|step| (step.version, step.name, step.down.sql.as_str().to_owned())))
        .collect()
}

/// Reverts the last migration, or every one above a version. If `confirmed` has versions, it reverts exactly these.
///
/// # Errors
/// [`Error::Failed`] names the migration; [`Error::Newer`] one whose down file this binary does not have.
/// [`Error::NotConfirmed`] if the ledger has changed since the versions were confirmed.
pub async fn down(
    session: &mut Session,
    to: Option<i64>,
    confirmed: Option<&[i64]>,
    limits: Limits<'_>,
) -> Result<Run, Error> {
    let steps = steps(session);
    with_lock(session, &mut Wait::new(limits), async |session, wait| {
        let ledger = wait.retry(session, async |session| ensure_ledger(session, &steps).await).await?;
        let versions = reverted(&ledger, to).map(|entry| entry.version);
        if confirmed.is_some_and(|confirmed| !versions.eq(confirmed.iter().copied())) {
            return Err(Error::NotConfirmed);
        }
        let mut done = Vec::new();
        for entry in reverted(&ledger, to) {
            if limits.stop.is_cancelled() {
                return Ok(Run { done, stopped: true });
            }
            let version = entry.version;
            let known = known(&steps, version)?;
            if !entry.success {
                tracing::warn!(version, "the migration was interrupted; reverting it");
            }
            let revert = wait.retry(session, async |session| match ledger::entry(session, version).await? {
                Some(entry) if entry.success => {
                    on_engine!(Session, session, conn => conn.revert_step(&known.down).await)
                }
                Some(entry) => on_engine!(Session, session, conn => conn.finish_revert(&known.down, entry.mark).await),
                None => Ok(()),
            });
            reported(version, revert).await?;
            tracing::info!(version, name = known.name, "migration reverted");
            done.push(version);
        }
        Ok(Run { done, stopped: false })
    })
    .await
}

/// The entries that are reverted, the last one first: the last alone, or every one above a version.
fn reverted(ledger: &[Entry], to: Option<i64>) -> impl Iterator<Item = &Entry> {
    let last = ledger.last().map_or(0, |entry| entry.version);
    let to = to.unwrap_or(last - 1);
    ledger.iter().rev().filter(move |entry| entry.version > to)
}

fn known(steps: &[Step], version: i64) -> Result<&Step, Error> {
    steps.iter().find(|step| step.version == version).ok_or(Error::Newer(version))
}

/// Checks that this binary can continue the history.
fn check(ledger: &[Entry], steps: &[Step]) -> Result<(), Error> {
    for entry in ledger {
        match steps.iter().find(|step| step.version == entry.version) {
            Some(step) if entry.success && *step.up.checksum != *entry.checksum => {
                return Err(Error::Modified(entry.version));
            }
            // A newer release applied it before a roll back. It stays.
            None if !entry.success => return Err(Error::Newer(entry.version)),
            _ => {}
        }
    }
    Ok(())
}
