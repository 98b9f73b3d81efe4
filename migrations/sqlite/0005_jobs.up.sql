-- The queue. Times are in seconds since 1970.
CREATE TABLE jobs (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    kind        TEXT NOT NULL,
    payload     TEXT NOT NULL,
    -- A second job with this key is not enqueued.
    unique_key  TEXT,
    -- waiting, running, done or dead.
    state       TEXT NOT NULL,
    -- When a worker may take it: for a running job, when its lease ends. NULL if it is done or dead.
    due_at      INTEGER,
    -- The worker that holds the lease, or an empty text.
    worker      TEXT NOT NULL DEFAULT '',
    attempts    INTEGER NOT NULL DEFAULT 0,
    last_error  TEXT NOT NULL DEFAULT '',
    -- The request that enqueued it, or empty texts.
    request_id  TEXT NOT NULL DEFAULT '',
    traceparent TEXT NOT NULL DEFAULT '',
    created_at  INTEGER NOT NULL,
    finished_at INTEGER,
    CONSTRAINT jobs_unique_key UNIQUE (unique_key)
);

-- Workers take the jobs in this order. Jobs that are done or dead are not in it.
CREATE INDEX jobs_due_at ON jobs (due_at, id) WHERE due_at IS NOT NULL;

-- Old jobs are removed, and jobs of a state are listed and counted.
CREATE INDEX jobs_state ON jobs (state, finished_at);
