-- The schedules of the clock.
CREATE TABLE schedules (
    name     VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- The time for which it last enqueued a job, in seconds since 1970.
    fired_at BIGINT NOT NULL,
    PRIMARY KEY (name)
) ENGINE = InnoDB;
