"""Attempts at a pack on a cluster, each in a folder of its own; what a second attempt finishes later is dropped.

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

from harness.storage.atomic import sync_folder, write_atomic
from harness.storage.checkpoints import load_checkpoints, newest_step, save_checkpoint
from harness.storage.runs import ATTEMPT, attempts_of, find_run, load_result, run_status
from harness.sweep.engines import TaskFunction
from harness.text import slug
from harness.types import PlannedRun
from harness.worker.protocol import Event, PackTask, RunDone, Task, WorkerConfig

ATTEMPTS = ".attempts"


def run_attempt(function: TaskFunction, task: Task, config: WorkerConfig) -> Iterator[Event]:
    """The events of one task; the runs of a pack are written to an attempt's folder and published as they are done."""
    if not isinstance(task, PackTask):
        yield from function(task, config)
        return
    sweep = config.folder
    attempt = sweep / ATTEMPTS / uuid.uuid4().hex[:12]
    attempt.mkdir(mode=0o700, parents=True)
    for planned in task.runs:
        take_over(sweep, attempt, planned)
    for event in function(task, replace(config, folder=attempt)):
        if isinstance(event, RunDone):
            run = find_run(attempt, event.key)
            assert run is not None  # what is done was committed there
            publish(run, sweep, event.key)
        yield event
    shutil.rmtree(attempt, ignore_errors=True)


def take_over(sweep: Path, attempt: Path, planned: PlannedRun) -> None:
    """Start a run's folder in `attempt`: its number of attempts, and the newest checkpoints that any attempt left."""
    published = find_run(sweep, planned.key)
    others = [path for path in sorted((sweep / ATTEMPTS).glob(f"*/{planned.key[:8]}-*")) if path.parent != attempt]
    run = attempt / (published.name if published is not None else f"{planned.key[:8]}-{slug(planned.name)}")
    run.mkdir(mode=0o700)
    count = len(others) + (attempts_of(published) if published is not None else 0)
    write_atomic(run / ATTEMPT, str(count).encode())
    resumable = [path for path in ([published] if published is not None else []) + others if newest_step(path)]
    for path in sorted(resumable, key=newest_step, reverse=True):
        checkpoints = list(load_checkpoints(path))
        for step, files in reversed(checkpoints):
            save_checkpoint(run, step, files)
        if checkpoints:
            return


def publish(run: Path, sweep: Path, key: str) -> bool:
    """Move a committed run into the sweep; False where another attempt was first."""
    target = find_run(sweep, key) or sweep / run.name
    if _is_final(target):
        return False
    aside = run.parent / f"old-{run.name}"
    try:
        target.rename(aside)  # a failed or stopped attempt
    except FileNotFoundError:
        pass  # the usual case: nothing was there
    else:
        if _is_final(aside):  # finished between the check and the move: put back
            return _moved(aside, target) and False
    if not _moved(run, target):
        return False
    sync_folder(sweep)
    return True


def _moved(source: Path, target: Path) -> bool:
    """Rename a folder; False where something else is there already."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def _is_final(folder: Path) -> bool:
    return run_status(load_result(folder)).final


def remove_attempts(sweep: Path) -> None:
    """Remove what attempts left behind, once none is running."""
    shutil.rmtree(sweep / ATTEMPTS, ignore_errors=True)
