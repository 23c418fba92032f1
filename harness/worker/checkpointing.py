"""A pack's steps in blocks, with checkpoints: looks at the stop flag, saves, stops, and continues where a run was.

A checkpoint belongs to one run: the run may continue in another pack, and gives the same numbers bit for bit.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError

from harness.signals import Stop
from harness.storage.checkpoints import load_checkpoints, save_checkpoint
from harness.training.state import LaneState, from_tensors
from harness.types import Record
from harness.worker.commit import PackRun
from harness.worker.trainers import Trainer

CHECK_SECONDS = 1.0  # of training between two looks at the clock and at signals
STATE, RECORDS, HEADS = "state.safetensors", "records.safetensors", "records.json"


class Stopped(Exception):  # noqa: N818 - says what happened
    """A signal was received and every run is checkpointed; `steps` of each, by run key."""

    def __init__(self, steps: Mapping[str, int]) -> None:
        self.steps = steps
        super().__init__(f"stopped after {min(steps.values())} steps")


@dataclass(frozen=True, eq=False)
class RunCheckpoint:
    """One run between two steps: its state, the records so far, and the seconds that its pack has trained."""

    state: LaneState
    records: tuple[Record, ...]
    seconds: float


def resume(runs: Sequence[tuple[Path, str]], together: bool, last: float = math.inf) -> list[RunCheckpoint | None]:
    """The newest whole checkpoint of each of a pack's runs (folder and run key); None for a run that starts anew.

    `together`: all at the newest step that every one of them has, or all anew, but for runs that came to step `last`.
    """
    checkpoints = [_whole(folder, key) for folder, key in runs]
    ended = [bool(steps) and max(steps) >= last for steps in checkpoints]
    left = [set(steps) for steps, over in zip(checkpoints, ended, strict=True) if not over]
    common = set.intersection(*left) if left else set()
    if together and not common:
        checkpoints = [steps if over else {} for steps, over in zip(checkpoints, ended, strict=True)]
    return [
        steps[max(common) if together and not over else max(steps)] if steps else None
        for steps, over in zip(checkpoints, ended, strict=True)
    ]


def state_at(folder: Path, key: str, step: int) -> LaneState:
    """The state of a run at a step that `resume` found. Raises KeyError where it is gone."""
    return _whole(folder, key)[step].state


def _whole(folder: Path, key: str) -> dict[int, RunCheckpoint]:
    """The whole checkpoints of a run, by step."""
    checkpoints: dict[int, RunCheckpoint] = {}
    for step, files in load_checkpoints(folder):
        if _is_of(files, key):
            with suppress(SafetensorError, ValueError, KeyError, TypeError):  # whole, but not written by this code
                checkpoints[step] = _unpack(key, files)
    return checkpoints


def checkpointed_records(
    trainer: Trainer,
    runs: Sequence[PackRun],
    resumed: Sequence[RunCheckpoint | None],
    started: float,
    checkpoint_seconds: float,
    stop: Stop,
) -> Iterator[Record | None]:
    """The records of a pack, those of the resumed checkpoints first; None before it trains on or measures.

    Saves a checkpoint every `checkpoint_seconds`.

    `started` is on the monotonic clock, earlier training included. Raises Stopped after a signal, runs checkpointed.
    """
    earlier = [record for checkpoint in resumed if checkpoint for record in checkpoint.records]
    yield from sorted(earlier, key=lambda record: record.step)
    training = trainer.run
    steps = training.pack.lanes[0].training.steps
    saved_at, saved_step, block = time.monotonic(), training.step, 1
    while training.step < steps:
        yield None
        began, first = time.monotonic(), training.step
        due = [step for step in training.pack.checkpoints if step > first]
        yield from trainer.train(min(first + block, steps, *due[:1]))
        now = time.monotonic()
        step_seconds = max(now - began, 1e-6) / (training.step - first)
        block = max(1, min(int(CHECK_SECONDS / step_seconds), 4 * block))
        if training.step == steps:
            break
        if (now - saved_at >= checkpoint_seconds or stop.received) and training.step > saved_step:
            save(trainer, runs, now - started)
            saved_at, saved_step = time.monotonic(), training.step
        if stop.received:
            raise Stopped({run.key: trainer.state(run.key).step for run in runs})
    yield None
    yield from trainer.train(None)


def save(trainer: Trainer, runs: Sequence[PackRun], seconds: float) -> None:
    """Save a checkpoint of every run of the pack. Raises OSError where the disk is full."""
    for run in runs:
        checkpoint = RunCheckpoint(trainer.state(run.key), tuple(run.records), seconds)
        save_checkpoint(run.folder, checkpoint.state.step, _pack(run.key, checkpoint))


def _pack(key: str, checkpoint: RunCheckpoint) -> dict[str, bytes]:
    from safetensors.numpy import save as save_numpy
    from safetensors.torch import save as save_torch

    heads = [
        {"step": r.step, "split": r.split, "ids": list(r.ids), "scalars": dict(r.scalars), "columns": list(r.columns)}
        for r in checkpoint.records
    ]
    arrays = {
        f"{number}/{place}": np.ascontiguousarray(values)
        for number, record in enumerate(checkpoint.records)
        for place, values in enumerate(record.columns.values())
    }
    tensors = {name: tensor.contiguous() for name, tensor in checkpoint.state.tensors().items()}
    return {
        STATE: save_torch(tensors, metadata={"run_key": key}),
        RECORDS: save_numpy(arrays),
        HEADS: json.dumps({"run_key": key, "seconds": checkpoint.seconds, "records": heads}).encode(),
    }


def _is_of(files: Mapping[str, bytes], key: str) -> bool:
    """Whether a whole checkpoint is this run's: somebody may have moved files."""
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
        if head["step"] < state.step  # a lane that ended before its pack yields its last records once more
    )
    return RunCheckpoint(state, records, heads["seconds"])
