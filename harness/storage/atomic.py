"""Files that are complete or absent: atomic writes that survive a power loss, checked reads, damaged files."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.storage.failpoints import failpoint
from harness.types import InputError


def write_atomic(path: Path, data: bytes) -> None:
    """Replace `path` by `data` so that a crash leaves the old file or the new one, never a part. Mode 0600."""
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    failpoint("write.begin")
    try:
        write_synced(temporary, data)
        failpoint("write.middle")
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    failpoint("write.renamed")
    sync_folder(path.parent)


def write_together(files: Mapping[Path, bytes]) -> None:
    """Replace several files of one folder. A full disk leaves all of them as they were. Mode 0600."""
    fresh = {path: path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp" for path in files}
    try:
        for path, temporary in fresh.items():
            failpoint("write.begin")
            write_synced(temporary, files[path])
        failpoint("write.middle")
        for path, temporary in fresh.items():
            temporary.replace(path)
    except OSError:
        for temporary in fresh.values():
            temporary.unlink(missing_ok=True)
        raise
    for folder in {path.parent for path in files}:
        sync_folder(folder)


def write_synced(path: Path, data: bytes) -> None:
    """A new file with `data`, on the disk when this returns. Mode 0600; raises FileExistsError where it exists."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]
        os.fsync(file)
    finally:
        os.close(file)


def sync_folder(folder: Path) -> None:
    """Make renames and new names in `folder` survive a power loss."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_full(error: OSError) -> bool:
    """Whether a write failed because there is no room: disk, quota or file-size limit."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_json(path: Path, value: Any) -> None:
    """`value` as readable JSON, atomically. Raises ValueError for NaN or infinity."""
    write_atomic(path, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8"))


def read_json(path: Path) -> Any:
    """The JSON value of a file. Raises InputError naming the file where it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def remove_path(path: Path) -> None:
    """Remove a file, or a folder with all it holds. Of a link only the link itself."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def set_aside(path: Path) -> None:
    """Rename a damaged file, so that it is written again and can still be inspected."""
    path.replace(path.with_name(f"{path.name}.corrupt-{time.time_ns() // 1_000_000}"))
