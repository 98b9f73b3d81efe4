ALTER TABLE friends DROP INDEX friends_user_id_since, DROP CONSTRAINT friends_since_range, DROP COLUMN since;
