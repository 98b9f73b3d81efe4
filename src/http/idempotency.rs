//! Requests that a client may repeat: the header `Idempotency-Key`
//! (<https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/>).
//!
//! The key, a hash of the request and the response are stored in the transaction of the write. So a repeated request has the
//! response of the first one, whatever happened between the two: a lost response, a restart, a fail-over.

use std::time::Duration;

use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use super::middleware::Client;
use super::problem::Problem;
use super::representation::created;
use crate::db::{self, Db, Select, Sql, Timestamp, Transaction};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// The longest key, in bytes.
const KEY_MAX: usize = 255;
/// How long a key is stored.
const LIFETIME: Duration = Duration::from_hours(24);
/// The most keys that one statement removes.
const REMOVAL_MAX: i64 = 1000;

/// What a request created.
pub struct Created {
    /// The URL of the new resource, relative to the request.
    pub location: String,
    /// Its representation.
    pub json: Vec<u8>,
}

/// Runs `write` in a transaction, and responds with 201. If the request has a key, it is done once: a repeated request has
/// the response of the first.
///
/// # Errors
/// Those of `write` and of the database. 400 for a key that is not valid, 409 while another request with this key is running,
/// and 422 if the key was used for another request.
pub async fn once(
    request: &HttpRequest,
    body: &[u8],
    db: &Db,
    write: impl AsyncFn(&mut Transaction<'_>) -> Result<Created, Problem>,
) -> Result<HttpResponse, Problem> {
    let Some(key) = key(request)? else {
        return db.transaction(write).await.map(|done| created(&done.location, done.json));
    };
    let key = Key::new(request, &key, body);
    // A key that exists may be removed before it is read.
    for _ in 0..3 {
        let done = db.transaction(async |transaction| {
            transaction.execute(&key.claim()).await.map_err(Failure::of_claim)?;
            let done = write(transaction).await?;
            transaction.execute(&key.complete(&done)).await?;
            Ok(done)
        });
        match done.await {
            Ok(done) => return Ok(created(&done.location, done.json)),
            Err(Failure::Other(problem)) => return Err(problem),
            Err(Failure::Used) => {}
        }
        // The first request may have been done.
        if let Some(done) = key.stored(db).await.map_err(Problem::with_unknown_outcome)? {
            let mut response = created(&done.location, done.json);
            response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
            return Ok(response);
        }
    }
    Err(still_running())
}

fn still_running() -> Problem {
    Problem::still_running("Idempotency-Key: another request with this key is still running")
}

/// The key of a request, if it has one.
fn key(request: &HttpRequest) -> Result<Option<Vec<u8>>, Problem> {
    let mut keys = request.headers().get_all(IDEMPOTENCY_KEY).map(HeaderValue::as_bytes);
    match (keys.next(), keys.next()) {
        (None, _) => Ok(None),
        (Some(key), None) if (1..=KEY_MAX).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic) => {
            Ok(Some(key.to_owned()))
        }
        _ => {
            let expected = format_args!("expected one key of 1 to {KEY_MAX} visible ASCII characters");
            Err(Problem::bad_parameter("Idempotency-Key", expected))
        }
    }
}

/// Why a transaction with a key failed.
enum Failure {
    /// The key is stored already.
    Used,
    Other(Problem),
}

impl Failure {
    fn of_claim(error: db::Error) -> Self {
        match error {
            db::Error::Constraint(_) => Self::Used,
            error if error.is_lock_timeout() => Self::Other(still_running()),
            error => Self::Other(error.into()),
        }
    }
}

impl From<db::Error> for Failure {
    fn from(error: db::Error) -> Self {
        Self::Other(error.into())
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Other(problem)
    }
}

/// A key, and the request that it is for. Only hashes are stored.
struct Key {
    /// A hash of the client and the key, so that two clients can use the same key.
    id: String,
    request: String,
}

impl Key {
    fn new(request: &HttpRequest, key: &[u8], body: &[u8]) -> Self {
        let extensions = request.extensions();
        let client = extensions.get::<Client>().map_or("", |client| &client.0);
        let hash = |parts: &[&[u8]]| {
            // No part contains a NUL but the last.
            let hash = parts.iter().fold(Sha256::new(), |hash, part| hash.chain_update(part).chain_update([0]));
            BASE64_URL_SAFE_NO_PAD.encode(hash.finalize())
        };
        Self {
            id: hash(&[client.as_bytes(), key]),
            request: hash(&[request.method().as_str().as_bytes(), request.path().as_bytes(), body]),
        }
    }

    /// Stores the key. Another transaction with the same key waits for the end of this one.
    fn claim(&self) -> Sql {
        let mut sql = Sql::new("INSERT INTO idempotency_keys (id, request, location, response, created_at) VALUES (");
        sql.bind(self.id.clone()).push(", ").bind(self.request.clone()).push(", '', '', ").bind(Timestamp::now());
        sql.push(")");
        sql
    }

    /// Stores the response.
    fn complete(&self, done: &Created) -> Sql {
        let mut sql = Sql::new("UPDATE idempotency_keys SET location = ");
        sql.bind(done.location.clone()).push(", response = ").bind(String::from_utf8_lossy(&done.json).into_owned());
        sql.push(" WHERE id = ").bind(self.id.clone());
        sql
    }

    /// The response that is stored with the key. None if the key is not stored, or no longer.
    async fn stored(&self, db: &Db) -> Result<Option<Created>, Problem> {
        let columns = ["request", "location", "response", "created_at"];
        let mut select = Select::of(columns.into_iter(), "idempotency_keys");
        select.push(" WHERE id = ").bind(self.id.clone());
        let found = db
            .fetch(&select, None, |found, row| {
                let done = Created { location: row.text(1)?.to_owned(), json: row.text(2)?.into() };
                *found = Some((row.text(0)? == self.request, done, row.time(3)?));
                Ok(())
            })
            .await?;
        let Some((is_same_request, done, created_at)) = found else { return Ok(None) };
        if created_at < expired_since() {
            let mut sql = Sql::new("DELETE FROM idempotency_keys WHERE id = ");
            sql.bind(self.id.clone()).push(" AND created_at = ").bind(created_at);
            db.transaction(async |transaction| transaction.execute(&sql).await).await?;
            return Ok(None);
        }
        if !is_same_request {
            let detail = "Idempotency-Key: this key was used for another request; send a new key for a new request";
            return Err(Problem::unprocessable(detail, Vec::new()));
        }
        Ok(Some(done))
    }
}

/// Keys that were stored before this time are expired.
fn expired_since() -> Timestamp {
    Timestamp::now().before(LIFETIME)
}

/// Removes expired keys. Returns their number.
///
/// # Errors
/// Those of the database. What was removed before is removed.
pub async fn remove_expired_keys(db: &Db) -> Result<u64, db::Error> {
    let expired = || {
        let mut select = Select::of(["id"].into_iter(), "idempotency_keys");
        select.push(" WHERE created_at < ").bind(expired_since());
        select.push(" ORDER BY created_at").push_limit(REMOVAL_MAX);
        select
    };
    db.remove_selected("idempotency_keys", expired, |row| Ok(row.text(0)?.to_owned().into())).await
}
