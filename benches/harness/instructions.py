"""The number of instructions of one request under callgrind, which is the same on every machine."""

import http.client
import json
import re
import sys

from harness.contenders import PORT
from harness.databases import ENGINES, database
from harness.files import BENCHES, PROGRAMS, replace
from harness.load import LIMIT, get
from harness.processes import abort, eventually, scratch, start, stop

ACCEPTED = BENCHES / "instructions.json"
# The largest increase that passes.
MARGIN = 0.05
FEW, MANY = 200, 1200


def run(engine, requests):
    """The instructions of a process that serves this number of requests."""
    log = scratch / "callgrind.log"
    environment = {"DATABASE_URL": engine.url, "HOST": "127.0.0.1", "PORT": str(PORT), "WEB_CONCURRENCY": "1",
                   "DATABASE_MAX_CONNECTIONS": "1"}
    process = start("roster", "valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null",
                    f"--log-file={log}", PROGRAMS / "web", **environment)
    eventually("the service responds under callgrind", lambda: get("/readyz"))
    connection = http.client.HTTPConnection("127.0.0.1", PORT)
    for _ in range(requests):
        connection.request("GET", f"/users?limit={LIMIT}")
        response = connection.getresponse()
        if response.status != 200 or len(json.load(response)) != LIMIT:
            abort(f"/users responds with {response.status}")
    connection.close()
    stop(process)
    return int(re.search(r"Collected : (\d+)", log.read_text())[1])


def check_instructions(options):
    """Compares each engine's count with the accepted one, or accepts the new counts."""
    accepted = json.loads(ACCEPTED.read_text())
    failed = []
    for name in options.engine or ENGINES:
        with database(name, 1000) as engine:
            # The difference of two runs excludes the start and the end of the process.
            count = round((run(engine, MANY) - run(engine, FEW)) / (MANY - FEW))
        change = count / accepted[name] - 1 if name in accepted else 0
        print(f"{engine.name}: {count:,} instructions per request, {change:+.1%}", flush=True)
        if change > MARGIN:
            failed.append(engine.name)
        accepted[name] = count
    if options.accept:
        replace(ACCEPTED, json.dumps(accepted, indent=2) + "\n")
    elif failed:
        sys.exit(f"a request has over {MARGIN:.0%} more instructions than {ACCEPTED.name} on {', '.join(failed)}; "
                 "if the profile does not match the code any more, take it anew with benches/run --train; "
                 "to accept the new counts, run benches/run --instructions --accept")
