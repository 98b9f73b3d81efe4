ALTER TABLE friends
    -- In UTC, whatever the time zone of a session. A TIMESTAMP would end in 2038.
    ADD COLUMN since DATETIME NOT NULL DEFAULT (UTC_TIMESTAMP()),
    ADD CONSTRAINT friends_since_range CHECK (since BETWEEN '1970-01-01 00:00:00' AND '9999-12-31 23:59:59'),
    -- The index includes the primary key, so it orders friends of the same moment, too.
    ADD INDEX friends_user_id_since (user_id, since);
