CREATE TABLE friends (
    user_id   BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    friend_id BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    PRIMARY KEY (user_id, friend_id)
);

-- Deleting a user looks here for the friendships that end with it.
CREATE INDEX friends_friend_id ON friends (friend_id);
