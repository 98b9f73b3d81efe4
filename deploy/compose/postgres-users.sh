# shellcheck shell=bash
# The entrypoint of the image sources this when it creates the database. `migrate` may change the schema, and `web` only
# rows.

# password USER: prints the password in the URL of this user.
password() { sed 's,.*:\(.*\)@.*,\1,' "/run/secrets/database_$1"; }

docker_process_sql <<END
CREATE USER roster_migrate PASSWORD '$(password migrate)';
CREATE USER roster_web PASSWORD '$(password web)';
ALTER DATABASE "roster" OWNER TO roster_migrate;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR USER roster_migrate GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO roster_web;
ALTER DEFAULT PRIVILEGES FOR USER roster_migrate GRANT SELECT, UPDATE ON SEQUENCES TO roster_web;
END
