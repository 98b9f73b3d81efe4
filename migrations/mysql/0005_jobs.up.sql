-- The queue. Times are in seconds since 1970, by the clock of the database.
CREATE TABLE jobs (
    id          BIGINT NOT NULL AUTO_INCREMENT,
    kind        VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    payload     TEXT NOT NULL,
    -- A second job with this key is not enqueued.
    unique_key  VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin,
    -- waiting, running, done or dead.
    state       VARCHAR(8) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- When a worker may take it: for a running job, when its lease ends. NULL if it is done or dead.
    due_at      BIGINT,
    -- The worker that holds the lease, or an empty text.
    worker      VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT '',
    attempts    BIGINT NOT NULL DEFAULT 0,
    last_error  VARCHAR(1000) NOT NULL DEFAULT '',
    -- The request that enqueued it, or empty texts.
    request_id  VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT '',
    traceparent VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT '',
    created_at  BIGINT NOT NULL,
    finished_at BIGINT,
    PRIMARY KEY (id),
    CONSTRAINT jobs_unique_key UNIQUE (unique_key),
    -- Workers take the jobs in this order. It begins with the jobs that are done or dead, which they skip as one range.
    INDEX jobs_due_at (due_at, id),
    -- Old jobs are removed, and jobs of a state are listed and counted.
    INDEX jobs_state (state, finished_at)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
