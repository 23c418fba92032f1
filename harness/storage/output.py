"""Folders that a command writes a page into: new ones, and those that hold an earlier page of the same command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.types import InputError

PAGE = ("index.html", "report.md")


def check_own(out: Path, marks: Sequence[str]) -> None:
    """Raise InputError where `out` holds a page or figures of something else.

    `marks` are files that this command leaves beside its page. Figures matter, too: those that a new page has not are
    removed.
    """
    there = [name for name in PAGE if (out / name).exists()]
    there += sorted(f"figures/{path.name}" for path in (out / "figures").glob("*.svg"))
    if there and not any((out / mark).exists() for mark in marks):
        raise InputError(
            f"--out {out}: {there[0]} is there and no {' or '.join(marks)}, so it is of something else; choose another "
            "folder"
        )
