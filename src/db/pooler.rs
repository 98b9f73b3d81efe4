//! PgBouncer and poolers like it, between this process and PostgreSQL.
//!
//! With transaction pooling, a server session belongs to a client for one transaction at a time. What a client sets in
//! it, and the locks that it holds, then also apply to the next client, and the client itself may not meet them again.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection, Row as _, raw_sql};
use tokio::time::timeout;

use super::{Error, connect};

/// The longest wait for a second server session. A pooler may have no free one.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the probe is repeated, because other clients of the pooler can hide its answer.
const PROBES: usize = 8;

/// Whether other clients share this connection's server session.
///
/// # Errors
/// Those of the database.
pub(super) async fn shares_session(conn: &mut PgConnection, options: &PgConnectOptions) -> Result<bool, Error> {
    match has_own_statements(conn).await {
        Ok(true) => {}
        Ok(false) | Err(Error::Statement(_)) => return Ok(true),
        Err(error) => return Err(error),
    }
    if is_direct(conn).await? {
        return Ok(false);
    }
    let mut other = connect(options).await?;
    let shared = probe(conn, &mut other).await;
    let _ = other.close().await;
    shared
}

/// Whether this is a session of the server itself. The driver requests `extra_float_digits=2` when it connects.
/// PgBouncer accepts that parameter only if it is configured to ignore it, so behind it the value is another one.
async fn is_direct(conn: &mut PgConnection) -> Result<bool, Error> {
    Ok(raw_sql("SELECT current_setting('extra_float_digits') = '2'").fetch_one(conn).await?.try_get(0)?)
}

/// Whether the server session has prepared statements by the names that the driver gave them. A pooler that tracks
/// prepared statements replaces the names, and one that does not track them loses the statements.
async fn has_own_statements(conn: &mut PgConnection) -> Result<bool, Error> {
    const SQL: &str = "SELECT EXISTS (SELECT FROM pg_prepared_statements WHERE name LIKE 'sqlx%')";
    Ok(sqlx::query_scalar(SQL).fetch_one(conn).await?)
}

/// Whether two connections meet the same server session, or one connection meets two. While `other` is in a transaction,
/// a pooler that shares sessions has to give `conn` another one, or none.
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

/// The id of the server process, by the simple protocol, which needs no prepared statement.
async fn process(conn: &mut PgConnection) -> Result<i32, Error> {
    Ok(raw_sql("SELECT pg_backend_pid()").fetch_one(conn).await?.try_get(0)?)
}
