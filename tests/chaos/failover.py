"""Shared by the scripts for database clusters: processes that end with the script, load without retries, and a line of
figures for each phase."""

import contextlib
import http.client
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
READERS = 8
PAUSE = 0.01

os.environ["PATH"] += ":/usr/sbin"
signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
processes = []
scratch = Path(tempfile.mkdtemp(prefix="roster-"))
# The servers do not run as root.
scratch.chmod(0o755)


@contextlib.contextmanager
def cleaning_up():
    """Kills all processes and deletes all files at the end."""
    try:
        yield
    finally:
        while processes:
            kill(processes[-1])
        shutil.rmtree(scratch)


def unprivileged(name):
    """The account that runs a server: `name` if this script runs as root, else the current user."""
    return pwd.getpwnam(name) if os.getuid() == 0 else pwd.getpwuid(os.getuid())


def start(name, *command, user=None, **environment):
    """Starts a process in its own group."""
    log = (scratch / f"{name}.log").open("a")
    environment = {**os.environ, **environment}
    process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True, user=user)
    processes.append(process)
    return process


def kill(process):
    """Kills a process and its group by SIGKILL."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    processes.remove(process)


def eventually(what, condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            for log in sorted(scratch.glob("*.log")):
                print(f"-- {log.name}\n{log.read_text(errors='replace')[-3000:]}", file=sys.stderr)
            sys.exit(f"not within {seconds} s: {what}; the ends of the logs are above")
        time.sleep(0.1)


def is_ok(url):
    """Whether the response is 200."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def migrate(database_url):
    for task in (("up",), ("seed", "1000")):
        environment = {**os.environ, "DATABASE_URL": database_url, "RUST_LOG": "warn"}
        subprocess.run((ROOT / "target/programs/migrate", *task), check=True, env=environment, stdout=subprocess.DEVNULL)


def serve(database_url, ports):
    for port in ports:
        start(f"web-{port}", ROOT / "target/programs/web",
              DATABASE_URL=database_url, HOST="127.0.0.1", PORT=str(port), RUST_LOG="error")
        eventually(f"web is ready at {port}", lambda: is_ok(f"http://127.0.0.1:{port}/readyz"))


def end(client):
    client.kill()
    client.communicate()


class Load:
    """Clients that read users, and one that writes numbers with the SQL client `command`. No client retries."""

    def __init__(self, ports, command):
        self.reads, self.writes, self.acknowledged = [], [], []
        self.failed = self.stopped = False
        readers = [threading.Thread(target=self.read, args=(port,)) for port in ports for _ in range(READERS)]
        self.threads = [*readers, threading.Thread(target=self.write, args=(command,))]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopped = True
        for thread in self.threads:
            thread.join()

    def read(self, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        while not self.stopped:
            try:
                connection.request("GET", "/users?limit=20")
                answer = connection.getresponse()
                answer.read()
                outcome = answer.status
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                outcome = type(error).__name__
            self.reads.append((time.monotonic(), outcome))
            time.sleep(PAUSE)

    def write(self, command):
        number, client = 0, None
        while not self.stopped:
            # The SQL client ends at its first error.
            if client is None or client.poll() is not None:
                client = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
                )
            number += 1
            try:
                client.stdin.write(f"INSERT INTO written VALUES ({number}); SELECT {number};\n")
                client.stdin.flush()
                acknowledged = client.stdout.readline() == f"{number}\n"
            except BrokenPipeError:
                acknowledged = False
            if acknowledged:
                self.acknowledged.append(number)
            else:
                end(client)
            self.writes.append((time.monotonic(), "acknowledged" if acknowledged else "failed"))
            time.sleep(PAUSE)
        end(client)

    @contextlib.contextmanager
    def phase(self, name, may_fail=False):
        """Prints the outcome of the requests while its block ran, and the notes that the block appends."""
        began, notes = time.monotonic(), []
        yield notes
        ended = time.monotonic()
        figures = []
        for what, events, success in ("reads", self.reads, 200), ("writes", self.writes, "acknowledged"):
            events = sorted(event for event in list(events) if began <= event[0] < ended)
            good = [at for at, outcome in events if outcome == success]
            bad = Counter(outcome for _, outcome in events if outcome != success)
            gap = max(after - before for before, after in zip([began, *good], [*good, ended]))
            line = ", ".join([f"{len(events):6} {what}", *(f"{count} × {outcome}" for outcome, count in bad.items())])
            line += f", longest gap {gap:.2f} s"
            if bad:
                last = max(at for at, outcome in events if outcome != success)
                recovered = next((f"after {at - began:.2f} s" for at in good if at > last), "never")
                line += f", recovered {recovered}"
            figures.append(line)
            # The service has recovered if requests succeed until the end.
            self.failed |= bool(bad) and not may_fail or not good or ended - good[-1] > 2 or events[-1][1] != success
        print(f"{name:<32}" + "; ".join([*figures, *notes]), flush=True)

    def check(self, name, rows):
        """Fails if an acknowledged row is not in `rows`."""
        lost = set(self.acknowledged) - rows
        print(f"{name}: {len(self.acknowledged)} rows acknowledged, {len(lost)} lost")
        self.failed |= bool(lost)
