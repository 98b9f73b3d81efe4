//! The clock: enqueues jobs at scheduled times. Any number of clocks enqueue one job for each time.

use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

use super::job::{NewJob, enqueue};
use crate::config::Schedule;
use crate::db::{Db, Error, Sql, Timestamp};

/// The longest sleep. The clock of the machine may be set meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(30);
/// The pause after an error of the database.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// A kind of job, and when it is enqueued.
pub struct Scheduled {
    /// The name of the schedule, which its jobs have in their unique keys.
    pub name: &'static str,
    /// The kind of the jobs. Their payload is empty.
    pub kind: &'static str,
    /// When.
    pub schedule: Schedule,
}

/// Enqueues the jobs of these schedules until a stop is requested. If a time passed while no clock was running, it enqueues
/// one job, however many times passed. A new schedule begins with its next time.
pub async fn run(db: &Db, schedules: &[Scheduled], stop: &CancellationToken) {
    let mut is_registered = false;
    while !stop.is_cancelled() {
        let outcome = async {
            if !is_registered {
                register(db, schedules).await?;
                is_registered = true;
            }
            for scheduled in schedules {
                fire(db, scheduled).await?;
            }
            Ok(())
        };
        let outcome: Result<(), Error> = outcome.await;
        let pause = match outcome {
            Ok(()) => until_next(schedules),
            Err(error) => {
                tracing::warn!(error = %error, "the schedules are delayed: the database is unavailable");
                RETRY_PAUSE
            }
        };
        stop.run_until_cancelled(tokio::time::sleep(pause)).await;
    }
}

/// Stores the schedules that are new.
async fn register(db: &Db, schedules: &[Scheduled]) -> Result<(), Error> {
    db.transaction(async |transaction| {
        for Scheduled { name, .. } in schedules {
            let mut sql = Sql::new("INSERT INTO schedules (name, fired_at) VALUES (");
            sql.bind(*name).push(", ").bind(Timestamp::now().unix()).push(")");
            transaction.insert_missing(&sql, "name").await?;
        }
        Ok(())
    })
    .await
}

/// Enqueues the job for the last time of a schedule, unless a clock has done so already.
async fn fire(db: &Db, scheduled: &Scheduled) -> Result<(), Error> {
    let Some(time) = scheduled.schedule.last_until(Timestamp::now().unix()) else { return Ok(()) };
    let is_first = db.transaction(async |transaction| {
        let mut sql = Sql::new("UPDATE schedules SET fired_at = ");
        sql.bind(time).push(" WHERE name = ").bind(scheduled.name).push(" AND fired_at < ").bind(time);
        // Of several clocks, the others wait for this row, and do not find it then.
        let is_first = transaction.execute(&sql).await? > 0;
        if is_first {
            let key = format!("{}@{time}", scheduled.name);
            enqueue(transaction, &NewJob::new(scheduled.kind, &()).unique(key)).await?;
        }
        Ok::<_, Error>(is_first)
    });
    if is_first.await? {
        let scheduled_at = Timestamp::from_unix(time).map(|time| time.to_string());
        tracing::info!(schedule = scheduled.name, scheduled_at, "a scheduled job was enqueued");
    }
    Ok(())
}

/// The time until the next job.
fn until_next(schedules: &[Scheduled]) -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(now.as_secs()).unwrap_or_default();
    let next = schedules.iter().filter_map(|scheduled| scheduled.schedule.next_after(seconds)).min();
    let next = next.and_then(|next| u64::try_from(next).ok()).map(Duration::from_secs);
    next.map_or(SLEEP_MAX, |next| next.saturating_sub(now).min(SLEEP_MAX))
}
