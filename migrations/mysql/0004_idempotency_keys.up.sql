-- The keys of requests that may be repeated. All values are hashes but those of the response.
CREATE TABLE idempotency_keys (
    id         CHAR(43) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    request    CHAR(43) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    location   VARCHAR(255) NOT NULL,
    response   MEDIUMTEXT NOT NULL,
    -- In UTC, whatever the time zone of a session.
    created_at DATETIME NOT NULL,
    PRIMARY KEY (id),
    -- Expired keys are removed.
    INDEX idempotency_keys_created_at (created_at)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
