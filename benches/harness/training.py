"""The profile that a release is compiled with: execution counts of its functions under a load of frequent requests."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

from harness.contenders import roster
from harness.databases import ENGINES, database
from harness.files import CARGO_BUILD, ROOT, replace, require
from harness.load import LIMIT, PAGE, first_response, wrk
from harness.processes import command, scratch, stop

PROFILE = ROOT / "bin/build.profdata.gz"
USERS = 10_000
# A function that was never called has a record if it has this many counters.
COUNTERS_MIN = 9
# Each request, and its seconds of load.
LOAD = {
    PAGE: 8, "/users?sort=email&limit=50": 2, "/users?q=ad": 1, "/": 2, "/users/1": 2, "/users/1/friends": 2,
    "/users.ndjson": 2, "/livez": 1, "/readyz": 1, "/metrics": 1,
}


def train():
    """Takes a new profile and replaces the committed one."""
    sysroot = Path(command("rustc", "--print=sysroot").strip())
    llvm_profdata = next(sysroot.glob("lib/rustlib/*/bin/llvm-profdata"), None)
    if not llvm_profdata:
        sys.exit("not installed: llvm-profdata; run rustup component add llvm-tools")
    require("wrk")
    # The same target as that of a release, because function names in the profile depend on it.
    target = command("rustc", "--print=host-tuple").strip()
    subprocess.run((*CARGO_BUILD, f"--target={target}", f"--target-dir={ROOT}/target/train", "--bin=roster"),
                   check=True, cwd=ROOT,
                   env={**os.environ, "RUSTFLAGS": "-C target-feature=+crt-static -C profile-generate"})
    for program in "web", "migrate":
        (scratch / program).symlink_to(ROOT / f"target/train/{target}/release/roster")
    os.environ["LLVM_PROFILE_FILE"] = f"{scratch}/%p-%m.profraw"
    for name in ENGINES:
        with database(name, USERS, scratch / "migrate") as engine:
            process, _ = first_response(roster(engine.url, program=scratch / "web",
                                               LLVM_PROFILE_FILE=os.environ["LLVM_PROFILE_FILE"]))
            for path, seconds in LOAD.items():
                requests = wrk(path, "cursor", (0, USERS - LIMIT - 1), seconds)["requests"]
                print(f"{engine.name}: {requests} × {path}", flush=True)
            stop(process)
    text, merged = scratch / "profile.txt", scratch / "profdata"
    command(llvm_profdata, "merge", "--text", f"--output={text}", *scratch.glob("*.profraw"))
    text.write_bytes(trimmed(text.read_bytes()))
    command(llvm_profdata, "merge", f"--output={merged}", text)
    replace(PROFILE, gzip.compress(merged.read_bytes(), mtime=0))


def trimmed(profile):
    """A profile without most of the functions that were never called. The largest of them are kept, and are then compiled
    for size. The others would be more than half of the file."""
    header, *records = profile.replace(b"\n:ir\n", b"\n:ir\n\n", 1).strip().split(b"\n\n")

    def is_kept(record):
        lines = record.split(b"\n")
        first = lines.index(b"# Counter Values:") + 1
        count = int(lines[lines.index(b"# Num Counters:") + 1])
        return count >= COUNTERS_MIN or any(int(value) for value in lines[first:first + count])

    return b"\n\n".join((header, *filter(is_kept, records))) + b"\n"
