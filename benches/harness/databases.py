"""The databases of a run: new servers and files in a temporary folder, migrated and seeded by `migrate`."""

import contextlib
import os
import pwd
import re
import subprocess

from harness.files import PROGRAMS, ROOT
from harness.processes import command, eventually, scratch, start, stop

DATABASE_PORT = 5500


def unprivileged(name):
    """The account that runs a server: `name` if this script runs as root, else the current user."""
    return pwd.getpwnam(name) if os.getuid() == 0 else pwd.getpwuid(os.getuid())


def folder(name, account):
    path = scratch / name
    path.mkdir()
    os.chown(path, account.pw_uid, account.pw_gid)
    return path


class PostgreSQL:
    name = "PostgreSQL"
    peer_url = f"postgres://roster@127.0.0.1:{DATABASE_PORT}/roster"
    url = f"{peer_url}?sslmode=disable"

    def __init__(self):
        account = unprivileged("postgres")
        self.folder = folder("postgres", account)
        self.socket_url = f"postgres://roster@localhost:{DATABASE_PORT}/roster?host={self.folder}&sslmode=disable"
        command("initdb", "--auth=trust", "--username=roster", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8",
                f"--pgdata={self.folder}/data", user=account.pw_uid)
        self.run()
        command("createdb", *self.server, "roster")
        self.version = command("postgres", "--version").split()[2]

    server = "--host=127.0.0.1", f"--port={DATABASE_PORT}", "--username=roster"

    def run(self):
        """Starts the server, or starts it again. No commit is lost when it is killed, because the system keeps running."""
        self.process = start(
            "postgres", "postgres", "-D", f"{self.folder}/data", "-p", str(DATABASE_PORT), "-k", str(self.folder),
            "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "autovacuum=off",
            # The table fits into memory. Each contender's statement keeps its plan, as the service's own does.
            "-c", "shared_buffers=1GB", "-c", "plan_cache_mode=force_generic_plan",
            user=unprivileged("postgres").pw_uid,
        )
        eventually("PostgreSQL accepts connections", lambda: not subprocess.call(
            ("pg_isready", "--quiet", *self.server)))

    def flush(self):
        """Completes background work, so that it does not disturb the measurement."""
        command("psql", "--quiet", self.url, "--command=VACUUM ANALYZE", "--command=CHECKPOINT")


class MariaDB:
    name = "MariaDB"
    peer_url = f"mysql://roster@127.0.0.1:{DATABASE_PORT}/roster"
    url = f"{peer_url}?ssl-mode=DISABLED"

    def __init__(self):
        account = unprivileged("mysql")
        self.folder = folder("mysql", account)
        data = f"--datadir={self.folder}/data"
        command("mariadb-install-db", "--no-defaults", data, "--auth-root-authentication-method=normal",
                "--skip-test-db", f"--user={account.pw_name}")
        self.run()
        self.execute("CREATE DATABASE roster; CREATE USER roster@'127.0.0.1'; "
                     "GRANT ALL ON roster.* TO roster@'127.0.0.1'")
        self.version = re.search(r"Ver (\S+?)-", command("mariadbd", "--version"))[1]

    def run(self):
        """Starts the server, or starts it again. No commit is lost when it is killed, because the system keeps running."""
        self.process = start(
            "mysql", "mariadbd", "--no-defaults", f"--datadir={self.folder}/data", f"--socket={self.folder}/socket",
            f"--port={DATABASE_PORT}", "--bind-address=127.0.0.1", "--skip-name-resolve",
            "--innodb-buffer-pool-size=1G", "--innodb-flush-log-at-trx-commit=2", f"--pid-file={self.folder}/pid",
            user=unprivileged("mysql").pw_uid,
        )
        eventually("MariaDB accepts connections", lambda: not subprocess.call(
            (*self.client(), "--execute=SELECT 1"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    def client(self):
        return "mariadb", "--no-defaults", f"--socket={self.folder}/socket", "--user=root"

    def execute(self, sql, *database):
        return command(*self.client(), *database, f"--execute={sql}")

    def flush(self):
        for sql in "ANALYZE TABLE users", "SET GLOBAL innodb_max_dirty_pages_pct = 0":
            self.execute(sql, "roster")


class SQLite:
    name = "SQLite"
    process = None

    def __init__(self):
        self.file = scratch / "roster.db"
        self.peer_url = f"sqlite://{self.file}"
        self.url = f"sqlite:{self.file}?mode=rwc"
        # The version that the service embeds. The peers have their own.
        bindings = next((ROOT / "target").glob("*/release/build/libsqlite3-sys-*/out/bindgen.rs")).read_text()
        self.version = re.search(r"SQLITE_VERSION: .*\"([\d.]+)", bindings)[1]

    def flush(self):
        pass


ENGINES = {"postgres": PostgreSQL, "sqlite": SQLite, "mysql": MariaDB}


@contextlib.contextmanager
def database(name, users, migrate=PROGRAMS / "migrate"):
    """A new database with sample users. Its server is stopped at the end."""
    engine = ENGINES[name]()
    environment = {**os.environ, "DATABASE_URL": engine.url, "RUST_LOG": "warn"}
    for task in ("up",), ("seed", str(users)):
        command(migrate, *task, env=environment)
    engine.flush()
    yield engine
    if engine.process:
        stop(engine.process)
