"""The ledger: a line for each release, each with a hash of itself and that of the line before."""

import hashlib
import json
import os
import pathlib

from .refusal import Refusal


def append(file, entry):
    """Appends an entry durably, or leaves the file unchanged."""
    size = os.fstat(file.fileno()).st_size
    line = json.dumps(entry | {"hash": sha256(entry)}).encode() + b"\n"
    try:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    except BaseException:
        os.ftruncate(file.fileno(), size)
        raise


def read(ledger):
    """The entries of a ledger whose every line is what was written, where it was written. Before the first release,
    there is no file."""
    entries, file = [], pathlib.Path(ledger)
    lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            content = {field: value for field, value in entry.items() if field != "hash"}
            intact = entry["hash"] == sha256(content) and line == json.dumps(entry).encode() + b"\n"
        except (ValueError, AttributeError, KeyError):
            intact = False
        if not intact:
            raise Refusal(f"{ledger}:{number} was changed, or not written to its end: restore that line")
        if entry["previous"] != (entries[-1]["hash"] if entries else None):
            raise Refusal(f"{ledger}:{number} does not follow the line before: one was removed or moved; restore it")
        entries.append(entry)
    return entries


def find(ledger, release_id):
    """A release of the ledger."""
    for entry in read(ledger):
        if entry["id"] == release_id:
            return entry
    raise Refusal(f"{ledger} has no release {release_id}: `release list` shows those that it has")


def sha256(value):
    return "sha256:" + hashlib.sha256(json.dumps(value).encode()).hexdigest()
