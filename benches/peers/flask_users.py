"""Flask with blocking drivers, and a connection for each thread."""

import os
import sqlite3
import threading
from urllib.parse import unquote, urlsplit

from flask import Flask, jsonify, request

URL = urlsplit(os.environ["DATABASE_URL"])
SELECT = "SELECT id, username, email FROM users WHERE id > {0} ORDER BY id LIMIT {0}"
app = Flask(__name__)
local = threading.local()


def connect():
    """Returns a cursor on a new connection, and the query with the driver's placeholders."""
    match URL.scheme:
        case "sqlite":
            return sqlite3.connect(unquote(URL.path), isolation_level=None).cursor(), SELECT.format("?")
        case "mysql":
            import pymysql

            connection = pymysql.connect(
                host=URL.hostname, port=URL.port, user=URL.username, database=URL.path[1:], autocommit=True
            )
            return connection.cursor(), SELECT.format("%s")
        case "postgres":
            import psycopg2

            connection = psycopg2.connect(URL.geturl())
            connection.autocommit = True
            cursor = connection.cursor()
            # psycopg2 does not prepare statements itself.
            cursor.execute(f"PREPARE users (bigint, bigint) AS {SELECT.format('${}').format(1, 2)}")
            return cursor, "EXECUTE users (%s, %s)"


@app.get("/users")
def users():
    if not hasattr(local, "database"):
        local.database = connect()
    cursor, select = local.database
    cursor.execute(select, (request.args.get("after", 0, int), request.args.get("limit", 100, int)))
    return jsonify([{"id": id, "username": username, "email": email} for id, username, email in cursor.fetchall()])
