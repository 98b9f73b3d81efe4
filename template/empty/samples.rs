//! Sample rows, for `migrate seed` and `AUTO_SEED`. There are none yet.

use std::future::{Future, ready};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::db::{Error, Session};
use crate::listing::Seeded;

/// The name of one row of [`seed`], for messages.
pub const SAMPLE: &str = "sample row";

/// Whether the database has no rows that samples could mix with. `listing::is_empty` reads this for one table.
///
/// # Errors
/// Those of the database.
pub fn is_empty(_: &mut Session) -> impl Future<Output = Result<bool, Error>> {
    ready(Ok(true))
}

/// Inserts the first `count` samples that do not exist yet, by `listing::insert`. A second run changes nothing, and one that
/// was interrupted is continued. If `stop` was cancelled, the result has fewer samples than `count`.
///
/// # Errors
/// Those of the database. Without samples, always.
pub fn seed(
    _: &mut Session,
    _: usize,
    _: &CancellationToken,
    _: impl FnMut(Seeded),
) -> impl Future<Output = Result<Seeded, Error>> {
    let reason = "there are no samples yet; insert them in src/resources/samples.rs";
    ready(Err(Error::Query(Arc::new(sqlx::Error::Configuration(reason.into())))))
}
