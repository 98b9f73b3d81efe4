-- In whole seconds.
ALTER TABLE friends ADD COLUMN since TIMESTAMPTZ(0) NOT NULL DEFAULT CURRENT_TIMESTAMP;
CREATE INDEX friends_user_id_since ON friends (user_id, since, friend_id);
