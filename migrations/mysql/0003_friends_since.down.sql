ALTER TABLE friends DROP INDEX friends_user_id_since, DROP COLUMN since;
