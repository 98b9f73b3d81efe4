"""Requests to a contender: single ones whose responses are checked, and load by wrk."""

import contextlib
import http.client
import json
import os
import re
import subprocess
import threading
import time
from base64 import urlsafe_b64encode

from harness.contenders import PORT
from harness.databases import DATABASE_PORT
from harness.files import BENCHES
from harness.processes import abort, busy, command, cpu, memory, scratch, start

# Users in a page, and clients of wrk.
LIMIT, CLIENTS = 20, 32
PAGE = f"/users?limit={LIMIT}&after=AFTER"


def get(path):
    """The status and body of one request on a new connection, or None if no server listens yet."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=20)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        response = connection.getresponse()
        return response.status, response.read()
    except ConnectionError:
        return None
    finally:
        connection.close()


def page(contender, after):
    """Requests a page of users and checks it. Returns None if no server listens yet."""
    # The service's cursor: the letter of the column, and the key in eight bytes.
    cursor = urlsafe_b64encode(b"i" + after.to_bytes(8, "big")).decode() if contender.cursor == "cursor" else after
    response = get(f"/users?limit={LIMIT}&after={cursor}")
    if not response:
        return None
    status, body = response
    users = json.loads(body) if status == 200 else []
    if [user["id"] for user in users] != list(range(after + 1, after + LIMIT + 1)) or any(
        user.keys() != {"id", "username", "email"} for user in users
    ):
        abort(f"{contender.name} responds with {status} {body}")
    return users


def first_response(contender):
    """Starts a contender. Returns its process, and the seconds until it responded with a page of users."""
    # The database is still closing the connections of the previous contender.
    time.sleep(1)
    began = time.monotonic()
    process = start("roster" if contender.cursor == "cursor" else "peer", *contender.command,
                    PORT=str(PORT), **contender.environment)
    while not page(contender, 0):
        if process.poll() is not None or time.monotonic() - began > 60:
            abort(f"{contender.name} does not start")
        time.sleep(0.001)
    return process, time.monotonic() - began


def run_wrk(script, arguments, seconds, clients=CLIENTS, during=lambda: None):
    """Runs wrk with a script of this folder, and calls `during` in the middle. Any failed request ends the run."""
    process = subprocess.Popen(
        ("wrk", f"--threads={min(clients, 2)}", f"--connections={clients}", f"--duration={seconds}s", "--timeout=10s",
         f"--script={BENCHES}/{script}", f"http://127.0.0.1:{PORT}", "--", *map(str, arguments)),
        stdout=subprocess.PIPE, text=True,
    )
    time.sleep(seconds / 2)
    during()
    output = process.communicate()[0]
    outcome = json.loads(output.strip().splitlines()[-1]) if process.returncode == 0 else None
    if not outcome or outcome["failed"] or not outcome["requests"]:
        abort(f"requests of {script} failed: {arguments}: {output}")
    return outcome


def wrk(path, kind, ids, seconds, clients=CLIENTS, during=lambda: None):
    """Runs wrk with requests for a path. Any response other than 200 ends the run."""
    return run_wrk("load.lua", (path, kind, *ids), seconds, clients, during)


@contextlib.contextmanager
def pages_of_1000(rate, clients=4):
    """Requests pages of 1,000 users at this rate per second. A response other than 200 ends the run."""
    is_over, statuses = threading.Event(), []

    def request():
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=20)
        due = time.monotonic()
        while not is_over.wait(max(0, due - time.monotonic())):
            connection.request("GET", "/users?limit=1000")
            response = connection.getresponse()
            response.read()
            statuses.append(response.status)
            due += clients / rate

    threads = [threading.Thread(target=request) for _ in range(clients)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    yield
    is_over.set()
    for thread in threads:
        thread.join()
    if set(statuses) != {200} or len(statuses) < rate * (time.monotonic() - began) / 2:
        abort(f"{len(statuses)} pages of 1,000 users, with the statuses {set(statuses)}")


def measured(run, process, database):
    """Calls `run` with a function that it calls under load. Returns the figures of the load, and the processor time of
    the contender and of its database for each request."""
    def spent():
        children = os.times()
        return time.monotonic(), busy(), children.children_user + children.children_system, cpu(process), cpu(database)

    pss = []
    before = spent()
    outcome = run(lambda: pss.append(memory(process)))
    took, machine, load, app, server = (end - begin for begin, end in zip(before, spent()))
    return {
        "requests_per_second": outcome["requests"] / outcome["seconds"],
        "app_cpu_us": app / outcome["requests"] * 1e6, "database_cpu_us": server / outcome["requests"] * 1e6,
        "p50_us": outcome["p50_us"], "p99_us": outcome["p99_us"], "pss_bytes": pss[0],
        "others_cpu_share": max(0, machine - load - app - server) / took / os.cpu_count(),
    }


def measured_load(path, kind, ids, seconds, process, database, clients=CLIENTS):
    """The same for requests for a path."""
    return measured(lambda during: wrk(path, kind, ids, seconds, clients, during), process, database)


def pgbench(engine, host, script, connections, seconds):
    """The figures of pgbench with a script: PostgreSQL's own client."""
    file = scratch / "pgbench.sql"
    file.write_text(script)
    before = cpu(engine.process), os.times().children_user + os.times().children_system
    output = command("pgbench", "--no-vacuum", "--protocol=prepared", f"--client={connections}", "--jobs=2",
                     f"--time={seconds}", f"--file={file}", f"--host={host}", f"--port={DATABASE_PORT}",
                     "--username=roster", "roster", env={**os.environ, "PGSSLMODE": "disable"}, stderr=subprocess.PIPE)
    after = cpu(engine.process), os.times().children_user + os.times().children_system
    count = int(re.search(r"actually processed: (\d+)", output)[1])
    if not re.search(r"failed transactions: 0 ", output):
        abort(f"pgbench: {output}")
    return {
        "requests_per_second": float(re.search(r"tps = ([\d.]+)", output)[1]),
        "app_cpu_us": (after[1] - before[1]) / count * 1e6,
        "database_cpu_us": (after[0] - before[0]) / count * 1e6,
    }
