"""`harness clean`: files of a sweep's folder that belong neither to its plan nor to its runs. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from harness.storage.atomic import remove_path
from harness.storage.checkpoints import CHECKPOINTS
from harness.storage.lock import sweep_lock
from harness.storage.plan_file import read_plan_file
from harness.storage.runs import ATTEMPT, load_result, run_status
from harness.types import RunStatus

_RUN = re.compile(r"[0-9a-f]{8}-[a-z0-9._-]+")
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp|.+\.tmp-[0-9a-f]{8}|\.rerun-[0-9a-f]{8}")
_QUARANTINE = re.compile(r".+\.corrupt-[0-9]+")


@dataclass(frozen=True, slots=True)
class Item:
    """A file or folder that nothing needs: why, and how many bytes it has."""

    path: Path
    why: str
    size: int


def clean(folder: Path, remove: bool) -> list[Item]:
    """Leftovers in a sweep's folder and in the caches beside it; removed with `remove`.

    Raises InputError for a folder without a plan, and naming the process where this sweep or another one under the
    same `--out` is running: their temporary files are in use.
    """
    plan = read_plan_file(folder)
    out = folder.resolve().parent
    with ExitStack() as locks:
        for sweep in sorted({path.parent for path in out.glob("*/.lock")} | {folder.resolve()}):
            locks.enter_context(sweep_lock(sweep))
        items = list(_leftovers(folder.resolve(), {run["run_key"][:8] for run in plan["runs"]}))
        for item in items if remove else ():
            remove_path(item.path)
    return items


def _leftovers(folder: Path, planned: set[str]) -> Iterator[Item]:
    for path in sorted(folder.iterdir()):
        if _RUN.fullmatch(path.name) and (path.is_dir() or path.is_symlink()):
            if path.name[:8] not in planned:
                yield _item(path, "a run that is not in the current plan")
            elif not path.is_symlink():
                yield from _in_run(path)
        else:
            yield from _stray(path)
    for place in (folder / "report", folder.parent / "cache", *folder.parent.glob("cache/*")):
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            yield from _stray(path)
    for path in sorted(folder.parent.glob(".rerun-*")):
        yield from _stray(path)


def _in_run(run: Path) -> Iterator[Item]:
    complete = run_status(load_result(run)) not in (RunStatus.PENDING, RunStatus.STOPPED)
    for path in sorted(run.iterdir()):
        if complete and path.name in (CHECKPOINTS, ATTEMPT):
            yield _item(path, "no longer needed: the run is finished")
        elif path.name == CHECKPOINTS:
            for checkpoint in sorted(path.iterdir()):
                yield from _stray(checkpoint)
        else:
            yield from _stray(path)


def _stray(path: Path) -> Iterator[Item]:
    if _TEMPORARY.fullmatch(path.name):
        yield _item(path, "left by a process that was killed")
    elif _QUARANTINE.fullmatch(path.name):
        yield _item(path, "damaged, set aside")


def _item(path: Path, why: str) -> Item:
    plain = not path.is_symlink()
    inside = path.rglob("*") if plain and path.is_dir() else [path]
    return Item(path, why, sum(file.lstat().st_size for file in inside if file.is_symlink() or file.is_file()))
