//! Sample rows, for `migrate seed` and `AUTO_SEED`.

use std::ops::Range;

use tokio_util::sync::CancellationToken;

use crate::db::{Error, Session};
use crate::listing::{self, Resource as _, Seeded};
use crate::users::Users;
use crate::{friends, users};

/// The name of one row of [`seed`], for messages.
pub const SAMPLE: &str = "sample user";

/// Samples that one transaction inserts: enough that its cost is that of its rows.
const BATCH: usize = 5_000;

/// Whether the database has no rows that samples could mix with.
///
/// # Errors
/// Those of the database.
pub async fn is_empty(session: &mut Session) -> Result<bool, Error> {
    listing::is_empty(session, Users::TABLE).await
}

/// Inserts the first `count` sample users that do not exist yet, and their friendships. A second run changes nothing, and
/// one that was interrupted is continued. If `stop` was cancelled, the result has fewer samples than `count`.
///
/// # Errors
/// Those of the database. Completed batches stay.
pub async fn seed(
    session: &mut Session,
    count: usize,
    stop: &CancellationToken,
    mut progress: impl FnMut(Seeded),
) -> Result<Seeded, Error> {
    let mut ids: Vec<Option<i64>> = Vec::new();
    let mut seeded = Seeded::default();
    while ids.len() < count && !stop.is_cancelled() {
        let start = ids.len();
        // The stopped statement may wait for a lock of another session. Its batch is not committed.
        let inserted = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(seeded),
            inserted = insert_batch(session, start..count.min(start + BATCH), &mut ids) => inserted?,
        };
        session.execute("COMMIT").await?;
        seeded = Seeded { processed: ids.len() as u64, inserted: seeded.inserted + inserted as u64 };
        progress(seeded);
    }
    Ok(seeded)
}

/// Inserts a batch, and returns the number of new samples.
async fn insert_batch(session: &mut Session, range: Range<usize>, ids: &mut Vec<Option<i64>>) -> Result<usize, Error> {
    let start = range.start;
    session.begin().await?;
    let (batch, inserted) = users::sample::insert_range(session, range).await?;
    ids.extend(batch);
    friends::sample::insert_from(session, start, ids).await?;
    Ok(inserted)
}
