DROP INDEX friends_user_id_since;
ALTER TABLE friends DROP COLUMN since;
