//! PgBouncer and poolers like it, between this process and PostgreSQL.
//!
//! With transaction pooling, the pooler assigns a server session to a client for one transaction. The settings and
//! locks of the session then apply to the next client, and the first client may get another session.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection, Postgres, Row as _, raw_sql};
use tokio::time::timeout;

use crate::db::dialect::{Abandoned, connect};
use crate::db::error::Error;

/// The longest wait for a second server session. A pooler may have no free one.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// The number of probes. Other clients of the pooler can change the result of a single one.
const PROBES: usize = 8;

/// Whether other clients share this connection's server session.
///
/// # Errors
/// Those of the database.
pub(in crate::db) async fn shares_session(conn: &mut PgConnection, options: &PgConnectOptions) -> Result<bool, Error> {
    match has_own_statements(conn).await {
        Ok(true) => {}
        Ok(false) | Err(Error::Statement(_)) => return Ok(true),
        Err(error) => return Err(error),
    }
    if is_direct(conn).await? {
        return Ok(false);
    }
    let mut other = connect::<Postgres>(options, true, None, &Abandoned::default()).await?;
    let shared = probe(conn, &mut other).await;
    let _ = other.close().await;
    shared
}

/// Whether the connection is directly to the server. The driver requests `extra_float_digits=2` when it connects.
/// PgBouncer accepts that parameter only if it is configured to ignore it, so its sessions have another value.
async fn is_direct(conn: &mut PgConnection) -> Result<bool, Error> {
    Ok(raw_sql("SELECT current_setting('extra_float_digits') = '2'").fetch_one(conn).await?.try_get(0)?)
}

/// Whether the server session has prepared statements by the names that the driver gave them. A pooler that tracks
/// prepared statements replaces the names, and one that does not track them loses the statements.
async fn has_own_statements(conn: &mut PgConnection) -> Result<bool, Error> {
    const SQL: &str = "SELECT EXISTS (SELECT FROM pg_prepared_statements WHERE name LIKE 'sqlx%')";
    Ok(sqlx::query_scalar(SQL).fetch_one(conn).await?)
}

/// Whether two connections use the same server session, or one connection uses two. While `other` is in a transaction,
/// a pooler that shares sessions must assign another session to `conn`, or none.
async fn probe(conn: &mut PgConnection, other: &mut PgConnection) -> Result<bool, Error> {
    let first = process(conn).await?;
    for _ in 0..PROBES {
        let round = async {
            raw_sql("BEGIN").execute(&mut *other).await?;
            let shared = process(other).await? == first || process(conn).await? != first;
            raw_sql("ROLLBACK").execute(&mut *other).await?;
            Ok(shared)
        };
        match timeout(PROBE_TIMEOUT, round).await {
            Ok(Ok(false)) => {}
            Ok(outcome) => return outcome,
            Err(_) => return Ok(true),
        }
    }
    Ok(false)
}

/// The id of the server process. The simple protocol needs no prepared statement.
async fn process(conn: &mut PgConnection) -> Result<i32, Error> {
    Ok(raw_sql("SELECT pg_backend_pid()").fetch_one(conn).await?.try_get(0)?)
}
