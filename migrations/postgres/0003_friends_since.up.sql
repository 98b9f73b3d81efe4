-- In whole seconds.
ALTER TABLE friends ADD COLUMN since TIMESTAMPTZ(0) NOT NULL DEFAULT CURRENT_TIMESTAMP
    CONSTRAINT friends_since_range CHECK (since BETWEEN '1970-01-01T00:00:00Z' AND '9999-12-31T23:59:59Z');
CREATE INDEX friends_user_id_since ON friends (user_id, since, friend_id);
