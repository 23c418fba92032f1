"""A pack trained in stretches, its lanes kept at boundaries, so that a killed run goes on where it was.

What is kept of a run is its own: it may go on in another pack, and gives the same numbers bit for bit.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError

from harness.storage.checkpoints import load_checkpoints, save_checkpoint
from harness.sweep.signals import Stop
from harness.training.state import LaneState, from_tensors
from harness.types import Record
from harness.worker.run_job import PackRun
from harness.worker.trainers import Trainer

STRETCH_SECONDS = 1.0  # between two looks at clock and signals
STATE, RECORDS, HEADS = "state.safetensors", "records.safetensors", "records.json"


class Stopped(Exception):  # noqa: N818 - says what happened
    """A signal was heard and every lane is kept; `steps` of each, by run key."""

    def __init__(self, steps: Mapping[str, int]) -> None:
        self.steps = steps
        super().__init__(f"stopped after {min(steps.values())} steps")


@dataclass(frozen=True, slots=True)
class CheckpointPolicy:
    """How a worker keeps runs: every so many seconds of a pack's training, and when a signal was heard."""

    every: float  # seconds; a pack that ends sooner pays nothing
    stop: Stop = field(default_factory=Stop)


@dataclass(frozen=True, eq=False)
class RunCheckpoint:
    """One run at a boundary: its state, the records that came before, and the seconds that its pack took so far."""

    state: LaneState
    records: tuple[Record, ...]
    seconds: float


def resume(folders: Sequence[Path], keys: Sequence[str], together: bool) -> list[RunCheckpoint | None]:
    """What is kept of each of a pack's runs at its newest whole checkpoint; None for one that begins anew.

    `together`: all at the newest step that every one of them has, or all anew.
    """
    found = [_whole(folder, key) for folder, key in zip(folders, keys, strict=True)]
    if not together:
        return [kept[max(kept)] if kept else None for kept in found]
    common = set(found[0]).intersection(*found[1:])
    return [kept[max(common)] if common else None for kept in found]


def _whole(folder: Path, key: str) -> dict[int, RunCheckpoint]:
    """The whole checkpoints of a run, by step."""
    found: dict[int, RunCheckpoint] = {}
    for step, files in load_checkpoints(folder):
        if _fits(files, key):
            with suppress(SafetensorError, ValueError, KeyError, TypeError):  # whole, but not of this code's making
                found[step] = _unpack(key, files)
    return found


def checkpointed_records(
    trainer: Trainer,
    jobs: Sequence[PackRun],
    keeping: CheckpointPolicy,
    earlier: Sequence[RunCheckpoint | None],
    started: float,
) -> Iterator[Record]:
    """The records of a pack, those from before a resume first; `started` on the monotonic clock, earlier work included.

    Raises Stopped where a signal was heard; all lanes are kept then.
    """
    yield from sorted((r for kept in earlier if kept for r in kept.records), key=lambda record: record.step)
    run = trainer.run
    steps = run.pack.lanes[0].training.steps
    kept_at, kept_step, stretch = time.monotonic(), run.step, 1
    while run.step < steps:
        began, first = time.monotonic(), run.step
        yield from trainer.train(min(run.step + stretch, steps))
        now = time.monotonic()
        pace = max(now - began, 1e-6) / (run.step - first)
        stretch = max(1, min(int(STRETCH_SECONDS / pace), 4 * stretch))
        if run.step == steps:
            break
        if (now - kept_at >= keeping.every or keeping.stop.heard) and run.step > kept_step:
            keep(trainer, jobs, now - started)
            kept_at, kept_step = time.monotonic(), run.step
        if keeping.stop.heard:
            raise Stopped({job.key: trainer.state(job.key).step for job in jobs})
    yield from trainer.train(None)


def keep(trainer: Trainer, jobs: Sequence[PackRun], seconds: float) -> None:
    """Store every lane as it stands between two steps. Raises OSError where the disk is full."""
    for job in jobs:
        kept = RunCheckpoint(trainer.state(job.key), tuple(job.records), seconds)
        save_checkpoint(job.folder, kept.state.step, _pack(job.key, kept))


def _pack(key: str, kept: RunCheckpoint) -> dict[str, bytes]:
    from safetensors.numpy import save as save_numpy
    from safetensors.torch import save

    heads = [
        {"step": r.step, "split": r.split, "ids": list(r.ids), "scalars": dict(r.scalars), "columns": list(r.columns)}
        for r in kept.records
    ]
    arrays = {
        f"{number}/{place}": np.ascontiguousarray(values)
        for number, record in enumerate(kept.records)
        for place, values in enumerate(record.columns.values())
    }
    tensors = {name: tensor.contiguous() for name, tensor in kept.state.tensors().items()}
    return {
        STATE: save(tensors, metadata={"run_key": key}),
        RECORDS: save_numpy(arrays),
        HEADS: json.dumps({"run_key": key, "seconds": kept.seconds, "records": heads}).encode(),
    }


def _fits(files: Mapping[str, bytes], key: str) -> bool:
    """Whether a whole checkpoint is this run's: files may have been moved about."""
    try:
        return set(files) == {STATE, RECORDS, HEADS} and json.loads(files[HEADS])["run_key"] == key
    except (ValueError, KeyError, TypeError):
        return False


def _unpack(key: str, files: Mapping[str, bytes]) -> RunCheckpoint:
    from safetensors.numpy import load as load_numpy
    from safetensors.torch import load

    arrays, heads = load_numpy(files[RECORDS]), json.loads(files[HEADS])
    state = from_tensors(load(files[STATE]))
    records = tuple(
        Record(
            key,
            head["step"],
            head["split"],
            tuple(head["ids"]),
            {name: arrays[f"{number}/{place}"] for place, name in enumerate(head["columns"])},
            head["scalars"],
        )
        for number, head in enumerate(heads["records"])
        if head["step"] < state.step  # a lane that had ended before its pack tells its last records once more
    )
    return RunCheckpoint(state, records, heads["seconds"])
