#!/bin/sh
# A server that refuses this user has answered too.
exec mariadb-admin --protocol=tcp --host=127.0.0.1 --silent ping
