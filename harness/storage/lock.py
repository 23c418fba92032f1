"""File lock: at most one driver per sweep folder. The lock ends with its process, however that ends."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.storage.atomic import write_atomic
from harness.types import InputError


@contextmanager
def sweep_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a sweep folder. Raises InputError naming the process that holds it."""
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


def lock_holder(folder: Path) -> str | None:
    """The process that is running this sweep now, or None."""
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
