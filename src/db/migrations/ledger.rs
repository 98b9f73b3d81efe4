//! The ledger: the table of applied migrations.

use sqlx::QueryBuilder;
use sqlx::migrate::Migrate as _;

use super::engine::{EngineMigrations, LEDGER};
use super::error::Error;
use super::lock::{Limits, LockTimeout, Wait, set_lock_timeout, short};
use super::steps::Step;
use crate::db::engine::on_engine;
use crate::db::error::Error as DbError;
use crate::db::session::Session;

/// The ledger while it is created.
const NEW_LEDGER: &str = "roster_migrations_new";
/// The default ledger of sqlx, which several applications may share. Earlier releases of this one wrote it, too.
const SHARED_LEDGER: &str = "_sqlx_migrations";

/// A row of the ledger.
pub(super) struct Entry {
    pub(super) version: i64,
    name: String,
    pub(super) checksum: Vec<u8>,
    pub(super) success: bool,
    /// The column `execution_time`. In an interrupted row on MySQL, it identifies the interrupted operation.
    pub(super) mark: i64,
    pub(super) at: String,
}

/// The rows of a ledger.
async fn entries(session: &mut Session, table: &'static str) -> Result<Vec<Entry>, DbError> {
    fn installed_on<C: EngineMigrations>(_: &C) -> &'static str {
        C::INSTALLED_ON
    }
    let rows: Vec<(i64, String, Vec<u8>, bool, i64, String)> = on_engine!(Session, session, conn => {
        let mut query = QueryBuilder::new("SELECT version, description, checksum, success, execution_time, ");
        query.push(installed_on(conn)).push(" FROM ").push(table).push(" ORDER BY version");
        query.build_query_as().persistent(false).fetch_all(conn).await?
    });
    let entry = |(version, name, checksum, success, mark, at)| Entry { version, name, checksum, success, mark, at };
    Ok(rows.into_iter().map(entry).collect())
}

/// Copies a row of the shared ledger into the new one.
async fn adopt(session: &mut Session, entry: &Entry) -> Result<(), DbError> {
    on_engine!(Session, session, conn => {
        let mut query = QueryBuilder::new("INSERT INTO ");
        query.push(NEW_LEDGER).push(" (version, description, success, checksum, execution_time) VALUES (");
        query.push_bind(entry.version).push(", ").push_bind(entry.name.as_str()).push(", ");
        query.push_bind(entry.success).push(", ").push_bind(entry.checksum.as_slice()).push(", ");
        query.push_bind(entry.mark).push(")").build().execute(conn).await?;
    });
    Ok(())
}

/// Reads the rows of the ledger without a change. If the ledger does not exist, reads this application's rows of the
/// shared ledger.
pub(super) async fn readable_ledger(
    session: &mut Session,
    steps: &[Step],
    limits: Limits<'_>,
) -> Result<Vec<Entry>, Error> {
    let mut wait = Wait::new(limits);
    match own_ledger(session, &mut wait).await? {
        Some(ledger) => Ok(ledger),
        None => read(session, &mut wait, async |session| shared_entries(session, steps).await).await,
    }
}

/// The rows of the ledger, if it exists.
pub(super) async fn own_ledger(session: &mut Session, wait: &mut Wait<'_>) -> Result<Option<Vec<Entry>>, Error> {
    let rows = async |session: &mut Session| match short(entries(session, LEDGER)).await {
        Err(DbError::Schema(_)) => Ok(None),
        rows => Ok(Some(rows?)),
    };
    read(session, wait, rows).await
}

/// Reads with a short lock timeout, again while another session holds a table lock.
async fn read<T>(
    session: &mut Session,
    wait: &mut Wait<'_>,
    statements: impl AsyncFnMut(&mut Session) -> Result<T, Error>,
) -> Result<T, Error> {
    set_lock_timeout(session, LockTimeout::Short).await?;
    let rows = wait.retry(session, statements).await?;
    set_lock_timeout(session, LockTimeout::Default).await?;
    Ok(rows)
}

/// A row of the ledger.
pub(super) async fn entry(session: &mut Session, version: i64) -> Result<Option<Entry>, DbError> {
    Ok(short(entries(session, LEDGER)).await?.into_iter().find(|entry| entry.version == version))
}

/// The rows of the shared ledger that this application wrote. They have the version, the name and the checksum of one
/// of its migrations.
async fn shared_entries(session: &mut Session, steps: &[Step]) -> Result<Vec<Entry>, Error> {
    let is_ours = |entry: &Entry| {
        let step = steps.iter().find(|step| step.version == entry.version && step.name == entry.name);
        step.is_some_and(|step| *step.up.checksum == *entry.checksum)
    };
    match short(entries(session, SHARED_LEDGER)).await {
        Ok(entries) => Ok(entries.into_iter().filter(is_ours).collect()),
        Err(DbError::Schema(_)) => Ok(Vec::new()),
        Err(error @ DbError::Query(_)) => {
            if error.is_refusal() && has_first_table(session, steps).await {
                return Err(Error::SharedLedger(error));
            }
            tracing::info!(%error, "_sqlx_migrations is ignored, because it is not a ledger of this application");
            Ok(Vec::new())
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether the table of the first migration exists, which has its name. Without it, no earlier release has applied a
/// migration.
async fn has_first_table(session: &mut Session, steps: &[Step]) -> bool {
    let Some(first) = steps.first() else { return false };
    let selected: Result<(), DbError> = on_engine!(Session, session, conn => {
        let mut query = QueryBuilder::new("SELECT 1 FROM ");
        let query = query.push(first.name).push(" WHERE 1 = 0").build().persistent(false);
        short(async { Ok(query.execute(conn).await.map(drop)?) }).await
    });
    !matches!(selected, Err(DbError::Schema(_)))
}

/// Creates the ledger with this application's rows of the shared ledger, unless it exists, and returns its rows. The
/// table is renamed when it is complete, because not every engine can create and fill a table in one transaction. The
/// shared ledger is kept for a roll back.
pub(super) async fn ensure_ledger(session: &mut Session, steps: &[Step]) -> Result<Vec<Entry>, Error> {
    match short(entries(session, LEDGER)).await {
        Err(DbError::Schema(_)) => {}
        other => return Ok(other?),
    }
    let adopted = shared_entries(session, steps).await?;
    short(session.execute("DROP TABLE IF EXISTS roster_migrations_new")).await?;
    on_engine!(Session, &mut *session, conn => conn.ensure_migrations_table(NEW_LEDGER).await)?;
    for entry in &adopted {
        short(adopt(session, entry)).await?;
        tracing::info!(version = entry.version, "migration adopted from _sqlx_migrations");
    }
    short(session.execute("ALTER TABLE roster_migrations_new RENAME TO roster_migrations")).await?;
    Ok(short(entries(session, LEDGER)).await?)
}
