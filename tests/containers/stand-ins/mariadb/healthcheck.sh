#!/bin/sh
# The ping also succeeds if the server rejects this user.
exec mariadb-admin --protocol=tcp --host=127.0.0.1 --silent ping
