"""One starter a sweep: a claim on its folder that ends with its process, however that ends."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.storage.atomic import write_atomic
from harness.types import InputError


@contextmanager
def claim_sweep(folder: Path) -> Iterator[None]:
    """Hold the sweep for this process; a dead holder's claim ends with it. Raises InputError naming a live holder."""
    from filelock import FileLock, Timeout

    lock = FileLock(str(folder / ".lock"), timeout=0, mode=0o600)
    note = folder / ".holder"
    try:
        lock.acquire()
    except Timeout:
        holder = note.read_text() if note.exists() else "another process"
        raise InputError(f"{folder}: {holder} is running this sweep; wait for it or stop it") from None
    try:
        write_atomic(note, f"process {os.getpid()} (since {time.strftime('%H:%M:%S')})".encode())
        yield
    finally:
        lock.release()


def claimed_by(folder: Path) -> str | None:
    """Who is running this sweep now, or None: a claim ends with its process, however that ends."""
    from filelock import FileLock, Timeout

    if not (folder / ".lock").exists():
        return None
    lock = FileLock(str(folder / ".lock"), timeout=0, mode=0o600)
    try:
        with lock:
            return None
    except Timeout:
        note = folder / ".holder"
        return note.read_text() if note.exists() else "another process"
