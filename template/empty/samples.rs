//! Sample rows, for `migrate seed` and `AUTO_SEED`.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::db::{Error, Session};
use crate::listing::Seeded;

/// The name of one row of [`seed`], for messages.
pub const SAMPLE: &str = "sample row";

/// Whether the database has no rows that samples could mix with.
///
/// # Errors
/// Those of the database.
#[expect(clippy::unused_async, reason = "`listing::is_empty` awaits the database once there is a table")]
pub async fn is_empty(_session: &mut Session) -> Result<bool, Error> {
    Ok(false)
}

/// Inserts the first `count` samples that do not exist yet. A second run changes nothing, and one that was interrupted is
/// continued. If `stop` was cancelled, the result has fewer samples than `count`.
///
/// # Errors
/// Those of the database. There are no samples yet.
#[expect(clippy::unused_async, reason = "`listing::insert` awaits the database once there is a table")]
pub async fn seed(
    _session: &mut Session,
    _count: usize,
    _stop: &CancellationToken,
    _progress: impl FnMut(Seeded),
) -> Result<Seeded, Error> {
    let reason = "there are no samples yet; insert them in src/resources/samples.rs";
    Err(Error::Query(Arc::new(sqlx::Error::Configuration(reason.into()))))
}
