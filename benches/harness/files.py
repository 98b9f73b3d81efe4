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
CARGO_BUILD = "cargo", "build", "--release", "--locked", "--quiet"


def require(*programs):
    """Exits if a program is not installed."""
    if missing := [name for name in ("cargo", *programs) if not shutil.which(name)]:
        sys.exit(f"not installed: {', '.join(missing)}")


def replace(path, content):
    """Replaces a file atomically: an interrupted run leaves the old content."""
    new = path.with_name(f".bench-{path.name}")
    try:
        new.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)
