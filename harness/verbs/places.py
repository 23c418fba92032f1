"""What must be so of a folder before a verb begins."""

from __future__ import annotations

import os
from pathlib import Path

from harness.types import InputError


def existing(path: Path) -> None:
    """Raises InputError where `path` is no folder."""
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; expected a folder that `harness sweep` has written")


def writable(out: Path) -> None:
    """The nearest existing folder of `out` must take new files; said before anything is built."""
    existing = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise InputError(f"--out {out}: {existing} is a file; expected a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"--out {out}: no permission to write in {existing}; choose another --out")
    os.umask(0o077)  # what is written from here on is for its owner only, on shared machines, too
