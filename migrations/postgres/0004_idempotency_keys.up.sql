-- The keys of requests that may be repeated. All values are hashes but those of the response.
CREATE TABLE idempotency_keys (
    id         TEXT COLLATE "C" PRIMARY KEY,
    request    TEXT NOT NULL,
    location   TEXT NOT NULL,
    response   TEXT NOT NULL,
    -- In whole seconds.
    created_at TIMESTAMPTZ(0) NOT NULL
);

-- Expired keys are removed.
CREATE INDEX idempotency_keys_created_at ON idempotency_keys (created_at);
