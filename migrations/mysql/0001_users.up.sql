-- lower() would fold É and friends as well. Read as hebrew, a one-byte character set in which
-- A-Z alone have another case, it folds just those and passes every other byte through.
CREATE TABLE users (
    id           BIGINT NOT NULL AUTO_INCREMENT,
    username     VARCHAR(80)  NOT NULL,
    email        VARCHAR(120) NOT NULL,
    username_key VARBINARY(320) GENERATED ALWAYS AS (LOWER(CONVERT(CAST(username AS BINARY) USING hebrew))) STORED,
    email_key    VARBINARY(480) GENERATED ALWAYS AS (LOWER(CONVERT(CAST(email AS BINARY) USING hebrew))) STORED,
    PRIMARY KEY (id),
    CONSTRAINT users_username_key UNIQUE (username_key),
    CONSTRAINT users_email_key UNIQUE (email_key),
    CONSTRAINT users_username_length CHECK (CHAR_LENGTH(username) BETWEEN 1 AND 80),
    CONSTRAINT users_email_length CHECK (CHAR_LENGTH(email) BETWEEN 1 AND 120)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
