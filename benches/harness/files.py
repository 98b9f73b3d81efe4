"""The files that the benchmark reads and writes, and the setup of its tools."""

import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BENCHES = ROOT / "benches"
PEERS = BENCHES / "peers"
TOOLS = ROOT / "target/bench"
PROGRAMS = ROOT / "target/programs"
# Debian's packages of Go code, and the one that the peer in Go needs.
GO_CODE = Path("/usr/share/gocode")
PGX = GO_CODE / "src/github.com/jackc/pgx/v4"
CARGO_BUILD = "cargo", "build", "--release", "--locked", "--quiet"


def require(*programs):
    """Exits if a program is not installed."""
    if missing := [name for name in ("cargo", *programs) if not shutil.which(name)]:
        sys.exit(f"not installed: {', '.join(missing)}")


def require_go():
    """Exits if the peer in Go cannot be built."""
    if not shutil.which("go") or not PGX.is_dir():
        sys.exit("not installed: Go and pgx, for the peer in Go on PostgreSQL; run apt install "
                 "--no-install-recommends golang-go golang-github-jackc-pgx-v4-dev")


def replace(path, content):
    """Replaces a file atomically: an interrupted run leaves the old content."""
    new = path.with_name(f".bench-{path.name}")
    try:
        new.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)
