"""One attempt at a pack in a folder of its own, published by renaming: of two attempts at a run the later one loses.

On a cluster a node that was given up may train on while its pack runs again elsewhere. Both would write the same
files; here each has its own under `.attempts`, and a run's folder appears in the sweep whole, once, by one rename.
Checkpoints of attempts that died are taken over by the next.
"""

from __future__ import annotations

import errno
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from harness.identity import run_key
from harness.storage import runs as store
from harness.storage.atomic import sync_folder, write_atomic
from harness.storage.checkpoints import load_checkpoints, newest_step, save_checkpoint
from harness.sweep.engines import TaskFunction
from harness.sweep.packing import PackTask
from harness.text import slug
from harness.worker.protocol import DONE, Event, WorkerConfig, WorkerTask

ATTEMPTS = ".attempts"


def perform_apart(function: TaskFunction, order: WorkerTask, shop: WorkerConfig) -> Iterator[Event]:
    """The messages of one order; a pack's runs are written apart and published as they are done."""
    if not isinstance(order.payload, PackTask):
        yield from function(order, shop)
        return
    home = Path(shop.folder)
    place = home / ATTEMPTS / uuid.uuid4().hex[:12]
    place.mkdir(mode=0o700, parents=True)
    for run in order.payload.runs:
        take_over(home, place, run_key(run), shop.names[run_key(run)])
    for message in function(order, replace(shop, folder=str(place))):
        if message.kind == "done":
            staged = store.find_run(place, message.key)
            assert staged is not None  # what is done was committed there
            publish(staged, home, message.key)
        yield message
    shutil.rmtree(place, ignore_errors=True)


def take_over(home: Path, place: Path, key: str, readable: str) -> None:
    """Begin a run's folder in `place`: its number of attempts, and the newest checkpoints that any attempt left."""
    stands = store.find_run(home, key)
    earlier = [path for path in sorted((home / ATTEMPTS).glob(f"*/{key[:8]}-*")) if path.parent != place]
    name = stands.name if stands is not None else f"{key[:8]}-{slug(readable)}"
    (place / name).mkdir(mode=0o700)
    attempts = len(earlier) + (store.attempts_of(stands) if stands is not None else 0)
    write_atomic(place / name / store.ATTEMPT, str(attempts).encode())
    left = [path for path in ([stands] if stands is not None else []) + earlier if newest_step(path)]
    for path in sorted(left, key=newest_step, reverse=True):
        found = list(load_checkpoints(path))
        for step, files in reversed(found):
            save_checkpoint(place / name, step, files)
        if found:
            return


def publish(staged: Path, home: Path, key: str) -> bool:
    """Move a committed run into the sweep; False where another attempt was first, whose result stands."""
    target = store.find_run(home, key) or home / staged.name
    if _stands(target):
        return False
    aside = staged.parent / f"old-{staged.name}"
    try:
        target.rename(aside)  # a failed or stopped attempt
    except FileNotFoundError:
        pass  # the usual case: nothing was there
    else:
        if _stands(aside):  # finished between the look and the move: put back
            return _moved(aside, target) and False
    if not _moved(staged, target):
        return False
    sync_folder(home)
    return True


def _moved(source: Path, target: Path) -> bool:
    """Rename a folder; False where something else stands there already."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def _stands(folder: Path) -> bool:
    result = store.load_result(folder)
    return result is not None and result["status"] in DONE


def sweep_up(home: Path) -> None:
    """Drop what attempts left behind, once no run of theirs is open."""
    shutil.rmtree(home / ATTEMPTS, ignore_errors=True)
