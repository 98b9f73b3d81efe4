"""The programs that a run compares: the service and its peers, each with its command and environment."""

import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field

from harness.files import CARGO_BUILD, GO_CODE, PEERS, PROGRAMS, ROOT, TOOLS

PORT = 5501
# Database connections of each peer.
CONNECTIONS = 16
# The drivers of Node.js, with their names in the report.
NODE_DRIVERS = {
    "PostgreSQL": {"pg": "pg", "postgres": "postgres.js"},
    "MariaDB": {"mysql2": "mysql2"},
    "SQLite": {"better-sqlite3": "better-sqlite3"},
}


@dataclass
class Contender:
    name: str
    command: tuple
    environment: dict = field(default_factory=dict)
    # What `after` contains: the "number" of an id, or the service's own "cursor".
    cursor: str = "number"


def roster(url, name="roster", program=PROGRAMS / "web", **environment):
    """The program of a release in its default configuration, except for these variables."""
    environment = {"DATABASE_URL": url, "HOST": "127.0.0.1", **environment}
    return Contender(name, (program,), environment, "cursor")


def build(url, description):
    """The contender that an argument of `--build` describes: NAME=PROGRAM, then VARIABLE=VALUE for each setting."""
    named, *settings = shlex.split(description)
    name, _, program = named.partition("=")
    return roster(url, name, program, **dict(variable.split("=", 1) for variable in settings))


def peers(engine):
    """The contenders other than the service, for one database engine."""
    if engine.name == "SQLite":
        yield Contender("a blocking driver inline", (TOOLS / "inline/release/inline",),
                        {"DATABASE_FILE": str(engine.file)})
    if engine.name == "PostgreSQL":
        yield compiled(engine.peer_url, "axum, sqlx", TOOLS / "axum/release/axum_users", "sqlx")
        for connections in 2, CONNECTIONS:
            yield compiled(engine.peer_url, f"axum, tokio-postgres × {connections}", TOOLS / "axum/release/axum_users",
                           "tokio-postgres", connections=connections)
        yield compiled(engine.peer_url, "Go, pgx", TOOLS / "go_users")
    yield from flask(engine.peer_url)
    yield fastapi(engine.peer_url)
    for driver, name in NODE_DRIVERS[engine.name].items():
        yield fastify(engine.peer_url, driver, name)


def compiled(url, name, *command, connections=CONNECTIONS):
    return Contender(name, command, {"DATABASE_URL": url, "CONNECTIONS": str(connections)})


def python(url, name, *command, connections=0):
    environment = {"DATABASE_URL": url, "PYTHONPATH": str(PEERS), "PYTHONPYCACHEPREFIX": str(TOOLS / "pycache"),
                   "CONNECTIONS": str(connections)}
    return Contender(name, (TOOLS / "venv/bin" / command[0], *command[1:]), environment)


def flask(url):
    gunicorn = "gunicorn", f"--bind=127.0.0.1:{PORT}", "flask_users:app"
    threads = CONNECTIONS // 2
    yield python(url, "Flask, 4 sync workers", *gunicorn, "--workers=4")
    yield python(url, f"Flask, 2 × {threads} threads", *gunicorn, "--worker-class=gthread", "--workers=2",
                 f"--threads={threads}", "--keep-alive=75")


def fastapi(url):
    return python(url, "FastAPI, granian", "granian", "--interface=asgi", "--workers=2", "--loop=uvloop", "--no-ws",
                  "--host=127.0.0.1", f"--port={PORT}", "fastapi_users:app", connections=CONNECTIONS // 2)


def fastify(url, driver, name):
    environment = {"DATABASE_URL": url, "CONNECTIONS": str(CONNECTIONS // 2), "NODE_ENV": "production",
                   "NODE_PATH": str(TOOLS / "node_modules")}
    return Contender(f"Fastify, {name}", ("node", PEERS / "fastify_users.js", driver), environment)


def install_peers(engines):
    """Builds or installs the peers on these engines into target/bench, in the versions that benches/peers pins."""
    TOOLS.mkdir(parents=True, exist_ok=True)
    # A target folder of its own: two workspaces in one would invalidate each other's dependencies.
    for engine, name in ("sqlite", "inline"), ("postgres", "axum"):
        if engine in engines:
            subprocess.run((*CARGO_BUILD, f"--manifest-path={PEERS}/{name}/Cargo.toml", f"--target-dir={TOOLS}/{name}"),
                           check=True, cwd=ROOT)
    if "postgres" in engines:
        # pgx is the version of the Debian package, in a folder of packages instead of modules. No download is needed.
        subprocess.run(("go", "build", "-o", TOOLS / "go_users", PEERS / "go/users.go"), check=True,
                       env={**os.environ, "GO111MODULE": "off", "GOPATH": str(GO_CODE), "CGO_ENABLED": "0"})

    def changed(manifest):
        wanted, installed = PEERS / manifest, TOOLS / manifest
        return not installed.exists() or installed.read_bytes() != wanted.read_bytes()

    if changed("requirements.txt"):
        venv = TOOLS / "venv"
        subprocess.run((sys.executable, "-m", "venv", "--clear", venv), check=True)
        subprocess.run((venv / "bin/pip", "install", "--quiet", "--disable-pip-version-check",
                        "--requirement", PEERS / "requirements.txt"), check=True)
        shutil.copy(PEERS / "requirements.txt", TOOLS)
    if changed("package.json"):
        shutil.copy(PEERS / "package.json", TOOLS)
        # By default, npm trusts only its built-in certificate authorities, not those of the system.
        authorities = os.environ.get("NODE_EXTRA_CA_CERTS", "/etc/ssl/certs/ca-certificates.crt")
        try:
            subprocess.run(("npm", "install", "--loglevel=error", "--no-audit", "--no-fund"), cwd=TOOLS, check=True,
                           env={**os.environ, "NODE_EXTRA_CA_CERTS": authorities})
        except subprocess.CalledProcessError:
            (TOOLS / "package.json").unlink()
            raise
