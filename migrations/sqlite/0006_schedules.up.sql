-- The schedules of the clock.
CREATE TABLE schedules (
    name     TEXT NOT NULL PRIMARY KEY,
    -- The time for which it last enqueued a job, in seconds since 1970.
    fired_at INTEGER NOT NULL
) WITHOUT ROWID;
