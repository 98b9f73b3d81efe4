# shellcheck shell=bash
# The image's entrypoint reads this when it makes the database: `migrate` may change the schema, `web` its rows alone.

# password USER: the one of the URL that this user gets.
password() { sed 's,.*:\(.*\)@.*,\1,' "/run/secrets/database_$1"; }

docker_process_sql <<END
CREATE USER roster_migrate PASSWORD '$(password migrate)';
CREATE USER roster_web PASSWORD '$(password web)';
ALTER DATABASE roster OWNER TO roster_migrate;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR USER roster_migrate GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO roster_web;
ALTER DEFAULT PRIVILEGES FOR USER roster_migrate GRANT SELECT, UPDATE ON SEQUENCES TO roster_web;
END
