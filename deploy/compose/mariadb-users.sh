# shellcheck shell=bash
# The entrypoint of the image sources this when it creates the database. `migrate` may change the schema, and `web` only
# rows.

# password USER: prints the password in the URL of this user.
password() { sed 's,.*:\(.*\)@.*,\1,' "/run/secrets/database_$1"; }

docker_process_sql <<END
CREATE USER roster_migrate IDENTIFIED BY '$(password migrate)';
GRANT ALL ON \`roster\`.* TO roster_migrate;
CREATE USER roster_web IDENTIFIED BY '$(password web)';
GRANT SELECT, INSERT, UPDATE, DELETE ON \`roster\`.* TO roster_web;
END
