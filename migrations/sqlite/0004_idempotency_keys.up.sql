-- The keys of requests that may be repeated. All values are hashes but those of the response.
CREATE TABLE idempotency_keys (
    id         TEXT NOT NULL PRIMARY KEY,
    request    TEXT NOT NULL,
    location   TEXT NOT NULL,
    response   TEXT NOT NULL,
    -- In UTC, in whole seconds, as RFC 3339 writes it.
    created_at TEXT NOT NULL
) WITHOUT ROWID;

-- Expired keys are removed.
CREATE INDEX idempotency_keys_created_at ON idempotency_keys (created_at);
