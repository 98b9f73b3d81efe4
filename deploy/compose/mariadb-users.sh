# shellcheck shell=bash
# The image's entrypoint reads this when it makes the database: `migrate` may change the schema, `web` its rows alone.

# password USER: the one of the URL that this user gets.
password() { sed 's,.*:\(.*\)@.*,\1,' "/run/secrets/database_$1"; }

docker_process_sql <<END
CREATE USER roster_migrate IDENTIFIED BY '$(password migrate)';
GRANT ALL ON roster.* TO roster_migrate;
CREATE USER roster_web IDENTIFIED BY '$(password web)';
GRANT SELECT, INSERT, UPDATE, DELETE ON roster.* TO roster_web;
END
