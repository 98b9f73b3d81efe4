"""The processes that the benchmark starts: their logs, processor time and memory. All of them are stopped at exit."""

import atexit
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")

os.environ["PATH"] += f":/usr/sbin:{max(Path('/usr/lib/postgresql').glob('*/bin'), default='')}"
scratch = Path(tempfile.mkdtemp(prefix="roster-bench-"))
# The database servers run as other users and must reach their folders.
scratch.chmod(0o755)
running = []


@atexit.register
def clean_up():
    for _, process in reversed(running.copy()):
        stop(process)
    shutil.rmtree(scratch)


def start(name, *command, user=None, **environment):
    """Starts a process in a session of its own. Its environment is `environment` and PATH."""
    log = (scratch / f"{name}.log").open("wb")
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL if name == "roster" else log, stderr=log,
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **environment}, start_new_session=True, user=user,
    )
    running.append((name, process))
    return process


def stop(process):
    running[:] = [(name, other) for name, other in running if other is not process]
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def abort(reason):
    """Prints the end of each running process's log, and exits."""
    for name, _ in running:
        log = (scratch / f"{name}.log").read_text(errors="replace")
        print(f"-- the end of {name}'s log\n{log[-2000:]}", file=sys.stderr)
    sys.exit(f"the run is not valid: {reason}")


def eventually(what, condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            abort(f"not within {seconds} s: {what}")
        time.sleep(0.1)


def command(*words, **options):
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, **options).stdout


def tree(process):
    """The fields of /proc/PID/stat from the state on, for a process and all its descendants."""
    stats, children = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The second field is the name in parentheses, which may contain spaces.
            fields = path.read_text().rpartition(")")[2].split()
            pid = int(path.parent.name)
            stats[pid] = fields
            children.setdefault(int(fields[1]), []).append(pid)
    found = [process.pid]
    for pid in found:
        found.extend(children.get(pid, ()))
    return {pid: stats[pid] for pid in found if pid in stats}


def busy():
    """Seconds that all processors together were not idle."""
    user, nice, system, _, _, *interrupts_and_stolen = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + sum(interrupts_and_stolen)) / TICK


def cpu(process):
    """Seconds of processor time of a process tree, including children that have ended."""
    if process is None:
        return 0
    return sum(int(ticks) for fields in tree(process).values() for ticks in fields[11:15]) / TICK


def memory(process):
    """The memory of a process tree in bytes. Pages that several processes share are counted once."""
    total = 0
    for pid in tree(process):
        with contextlib.suppress(OSError):
            total += int(re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)[1]) * 1024
    return total
