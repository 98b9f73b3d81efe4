-- lower() folds A-Z alone in SQLite, so the keys order as on the other engines.
CREATE TABLE users (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    username     VARCHAR(80)  NOT NULL CONSTRAINT users_username_length CHECK (length(username) BETWEEN 1 AND 80),
    email        VARCHAR(120) NOT NULL CONSTRAINT users_email_length CHECK (length(email) BETWEEN 1 AND 120),
    username_key TEXT NOT NULL GENERATED ALWAYS AS (lower(username)) VIRTUAL,
    email_key    TEXT NOT NULL GENERATED ALWAYS AS (lower(email)) VIRTUAL,
    CONSTRAINT users_username_key UNIQUE (username_key),
    CONSTRAINT users_email_key UNIQUE (email_key)
);
