"""The journal of a run: append only, one record per line, each with its length and CRC-32. Imports no torch."""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.storage.failpoints import failpoint


class JournalDamaged(Exception):  # noqa: N818 - says what was found
    """A record in the middle of a journal does not match its checksum: the file cannot be trusted."""

    def __init__(self, path: Path, line: int) -> None:
        self.path, self.line = path, line
        super().__init__(f"{path}:{line}: journal record is damaged")


class Journal:
    """An append-only writer. Opening truncates a torn last line (a crash mid-write) and notes that in the journal."""

    def __init__(self, path: Path) -> None:
        torn = _cut_torn_tail(path)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        if torn:
            self.append({"kind": "note", "text": f"a torn record of {torn} bytes was cut off"})

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one record with a single write.

        Raises ValueError for NaN or infinity (callers leave those out) and OSError where the disk is full.
        """
        line = encode(record)
        failpoint("journal.append")
        if os.write(self._file, line) != len(line):
            raise OSError(errno.ENOSPC, "no room for a whole journal record")

    def sync(self) -> None:
        """Make everything appended so far survive a power loss."""
        os.fsync(self._file)

    def close(self) -> None:
        """Close the file; the journal takes no more records."""
        os.close(self._file)


def append_record(path: Path, record: Mapping[str, Any], sync: bool = False) -> None:
    """Add one record to a journal; with `sync` it survives a power loss."""
    journal = Journal(path)
    try:
        journal.append(record)
        if sync:
            journal.sync()
    finally:
        journal.close()


def encode(record: Mapping[str, Any]) -> bytes:
    """One journal line."""
    text = json.dumps(record, ensure_ascii=True, allow_nan=False, separators=(", ", ": "))
    return f'{{"crc": "{zlib.crc32(text.encode()):08x}", "len": {len(text)}, "record": {text}}}\n'.encode()


def _decode(line: bytes) -> dict[str, Any] | None:
    """The record of a line, or None where the line is not whole."""
    try:
        head, text = line[:22], line.decode("ascii")
        crc, length = head[9:17].decode("ascii"), int(text[27 : text.index(",", 27)])
        body = text[text.index('"record": ') + 10 : -1]
        if len(body) != length or f"{zlib.crc32(body.encode()):08x}" != crc or text[-1] != "}":
            return None
        record = json.loads(body)
    except (ValueError, UnicodeDecodeError, IndexError):
        return None
    return record if isinstance(record, dict) else None


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Every whole record in order. A torn last line is left out; raises JournalDamaged for a bad one before it."""
    lines = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(lines, 1):
        record = _decode(line) if line else None
        if record is not None:
            records.append(record)
        elif number < len(lines):
            raise JournalDamaged(path, number)
    return records


def _cut_torn_tail(path: Path) -> int:
    """Remove an unfinished last line; returns how many bytes it had."""
    if not path.exists():
        return 0
    with path.open("r+b") as file:
        size = end = file.seek(0, os.SEEK_END)
        while end:  # back to the last newline, a block at a time: journals are opened often and may be long
            start = max(0, end - 65536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            file.truncate(end)
    return size - end
