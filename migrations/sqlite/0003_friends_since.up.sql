-- ALTER TABLE cannot add a column whose default is not constant, so the table is copied.
CREATE TABLE friends_since (
    user_id   INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    friend_id INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- In UTC, in whole seconds, as RFC 3339 writes it. So the order of the text is that of time.
    since     TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
              CONSTRAINT friends_since_form CHECK (since = strftime('%Y-%m-%dT%H:%M:%SZ', since))
              CONSTRAINT friends_since_range CHECK (since BETWEEN '1970-01-01T00:00:00Z' AND '9999-12-31T23:59:59Z'),
    PRIMARY KEY (user_id, friend_id)
) WITHOUT ROWID;
INSERT INTO friends_since (user_id, friend_id) SELECT user_id, friend_id FROM friends;
DROP TABLE friends;
ALTER TABLE friends_since RENAME TO friends;

-- Deleting a user looks here for the friendships that end with it.
CREATE INDEX friends_friend_id ON friends (friend_id);
CREATE INDEX friends_user_id_since ON friends (user_id, since);
