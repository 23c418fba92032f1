"""A pilot: the first steps of a run, of which nothing is kept but what they did to the held-out pairs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.evaluation.heldout import evaluate
from harness.metrics.records import Columns
from harness.training.loop import start, train
from harness.types import PlannedRun, Split
from harness.worker.commit import PackRun
from harness.worker.prepare import Worker, open_pack, pick_device
from harness.worker.protocol import PackTask, Phase, WorkerConfig

SHOWN_EVERY = 5  # updates between two looks at progress
COLUMNS = (
    "policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected", "chosen_len", "rejected_len",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Pilot:
    """A run's held-out pairs after its first steps: record columns and gold margins `(n,)` in the clean orientation.

    `trained` counts the pairs that it trains on.
    """

    columns: Columns
    trained: int


def train_pilots(
    runs: Sequence[PlannedRun], steps: int, cache: Path, device: str, show: Callable[[int, Phase], None]
) -> list[Pilot]:
    """Train runs that may share a pack for `steps` updates of their own schedule. Their references are in `cache`.

    `show` is told of updates done, and what comes next.
    """
    with tempfile.TemporaryDirectory() as folder:
        worker = Worker(WorkerConfig(cache, Path(folder), device), pick_device(device))
        show(0, Phase.PREPARING)
        opened, pack = open_pack(PackTask(0, tuple(runs)), worker, 0)
        training = start(pack, worker.device)
        for until in (*range(SHOWN_EVERY, steps, SHOWN_EVERY), steps):
            show(training.step, Phase.TRAINING)
            for _ in train(training, until):
                pass  # what it measures on the way
        show(steps, Phase.EVALUATING)
        measured = {
            record.run_key: record.columns
            for record in evaluate(pack, training.model, training.live, training.groups, steps)
            if record.split == Split.HELDOUT
        }
        return [_pilot(run, measured[run.key]) for run in opened]


def _pilot(run: PackRun, measured: Columns) -> Pilot:
    ends = np.cumsum([0, *(len(part.ids) for part in run.lane.evals)])
    place = [part.split for part in run.lane.evals].index(Split.HELDOUT)
    gold = run.columns["gold_margin"][ends[place] : ends[place + 1]]
    return Pilot({**{name: measured[name] for name in COLUMNS}, "gold_margin": gold}, len(run.data.pairs))
