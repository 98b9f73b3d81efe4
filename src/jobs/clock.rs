//! The clock: enqueues jobs at scheduled times. Any number of clocks enqueue one job for each time.

use std::time::{Duration, Instant, SystemTime};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::job::{NewJob, enqueue};
use super::outage::Outage;
use crate::config::Schedule;
use crate::db::{Db, Error, Sql, Timestamp};

/// The longest sleep. The clock of the machine may be set meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(30);
/// The pause after an error of the database.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// No right clock is this many seconds ahead of another.
const CLOCKS_DIFFER: i64 = 24 * 60 * 60;

/// A kind of job, and when it is enqueued.
pub struct Scheduled {
    /// The name of the schedule, which its jobs have in their unique keys.
    pub name: &'static str,
    /// The kind of the jobs. Their payload is empty.
    pub kind: &'static str,
    /// When its jobs are enqueued, in UTC.
    pub schedule: Schedule,
}

/// Enqueues the jobs of these schedules until a stop is requested. If a time passed while no clock was running, it enqueues
/// one job, however many times passed. A new schedule begins with its next time.
pub async fn run(db: &Db, schedules: &[Scheduled], stop: &CancellationToken) {
    for Scheduled { name, schedule, .. } in schedules {
        let next = schedule.next_after(Timestamp::now().unix()).and_then(Timestamp::from_unix);
        tracing::info!(schedule = name, next = next.map(|next| next.to_string()), "a schedule begins");
    }
    let outage = Outage::default();
    while !stop.is_cancelled() {
        let began = Instant::now();
        // One moment for both, so that no time is between them.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(now.as_secs()).unwrap_or_default();
        let outcome = async {
            for scheduled in schedules {
                fire(db, scheduled, seconds).await?;
            }
            Ok(())
        };
        let pause = outage.observe(outcome.await).map_or(RETRY_PAUSE, |()| {
            let next = schedules.iter().filter_map(|scheduled| scheduled.schedule.next_after(seconds)).min();
            let next = next.and_then(|next| u64::try_from(next).ok()).map(Duration::from_secs);
            next.map_or(SLEEP_MAX, |next| next.saturating_sub(now).min(SLEEP_MAX))
        });
        // The time since `now` is a part of the pause.
        stop.run_until_cancelled(sleep(pause.saturating_sub(began.elapsed()))).await;
    }
}

/// Enqueues the job for the last time of a schedule, unless a clock has done so already.
async fn fire(db: &Db, scheduled: &Scheduled, now: i64) -> Result<(), Error> {
    let Some(time) = scheduled.schedule.last_until(now) else { return Ok(()) };
    let is_first = db.transaction(async |transaction| {
        // It may be new, or removed with its table.
        let mut sql = Sql::new("INSERT INTO schedules (name, fired_at) VALUES (");
        sql.bind(scheduled.name).push(", ").bind(now).push(")");
        transaction.insert_missing(&sql, "name").await?;
        let mut sql = Sql::new("UPDATE schedules SET fired_at = ");
        sql.bind(time).push(" WHERE name = ").bind(scheduled.name).push(" AND (fired_at < ").bind(time);
        // The machine that recorded such a time had a wrong clock.
        sql.push(" OR fired_at > ").bind(now + CLOCKS_DIFFER).push(")");
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
