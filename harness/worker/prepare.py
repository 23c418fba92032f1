"""The start of a pack: its inputs, training sets and corpus, and the folder and journal of every run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from harness.config.cells import check_plugins
from harness.identity import plain
from harness.inputs.encoded import EncodedInputs, EncodedPairs, encode_inputs, open_inputs
from harness.inputs.reference_cache import scorer
from harness.inputs.reference_models import reference_key
from harness.models.logps import build_corpus
from harness.models.loss_inputs import MISMATCHED
from harness.models.pack import Lane, Pack
from harness.objectives.budget import scalar_head
from harness.objectives.registry import OBJECTIVES
from harness.signals import Stop
from harness.storage.checkpoints import CHECKPOINTS
from harness.storage.journal import Journal
from harness.storage.runs import open_run
from harness.training.loop import checkpoint_steps
from harness.types import InputError, PlannedRun, RunSpec
from harness.worker.check_reference import check_reference
from harness.worker.commit import PackRun
from harness.worker.datasets import TrainingSet, training_set, with_mismatches
from harness.worker.lanes import build_lane
from harness.worker.protocol import PackTask, WorkerConfig
from harness.worker.trainers import as_trained, with_reward_heads


@dataclass
class Worker:
    """The state of a worker process, and what it keeps from task to task."""

    config: WorkerConfig
    device: torch.device
    stop: Stop = field(default_factory=Stop)
    encoded: dict[str, EncodedInputs] = field(default_factory=dict)  # by source, seed and evaluation
    checked: set[str] = field(default_factory=set)  # of them, those whose reference has been checked
    lane_limits: dict[str, int] = field(default_factory=dict)  # lanes to try, by pack group, after memory ran out


def pick_device(name: str) -> torch.device:
    """The torch device of a spec's `device`: auto takes a GPU where there is one. Never falls back silently."""
    available = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if available else "cpu")
    if name.startswith("cuda") and not available:
        raise InputError(f"device: '{name}' was asked for, but torch {torch.__version__} sees no GPU; use device: cpu")
    return torch.device(name)


@dataclass(frozen=True, slots=True, eq=False)
class PreparedRun:
    """A run before it has a folder: its inputs, training set and lane, and the fixed columns of its records."""

    planned: PlannedRun
    encoded: EncodedInputs
    data: TrainingSet
    lane: Lane
    columns: Mapping[str, np.ndarray]


def open_pack(task: PackTask, worker: Worker, t0_ms: int) -> tuple[list[PackRun], Pack]:
    """Prepare a pack; open each run's folder and journal."""
    prepared, pack = prepare_pack(task, worker)
    runs = []
    for one in prepared:
        planned = one.planned
        folder, attempt = open_run(worker.config.folder, planned.key, planned.name, keep=CHECKPOINTS)
        journal = Journal(folder / "events.jsonl")
        journal.append({"kind": "start", "run_key": planned.key, "attempt": attempt, "t0_ms": t0_ms})
        runs.append(PackRun(planned, one.encoded, one.data, one.lane, one.columns, folder, journal))
    return runs, pack


def prepare_pack(task: PackTask, worker: Worker, check: bool = True) -> tuple[list[PreparedRun], Pack]:
    """Inputs, training sets, corpus and lanes of a pack; with `check` its reference is checked first. Writes no run."""
    score = scorer(worker.config.cache, worker.device)
    parts: list[EncodedPairs] = []
    offsets: dict[int, int] = {}
    sets: dict[tuple[int, object], TrainingSet] = {}

    def place(pairs: EncodedPairs) -> int:
        """The offset of the pairs in the corpus; pairs that runs share are in it once."""
        if id(pairs) not in offsets:
            offsets[id(pairs)] = sum(len(part.rows.pair_ids) for part in parts)
            parts.append(pairs)
        return offsets[id(pairs)]

    places = []
    for planned in task.runs:
        run = planned.run
        check_plugins(run)
        encoded = encoded_inputs(run, worker, check)
        source = (id(encoded), run.corruption)
        if source not in sets:
            sets[source] = training_set(encoded, run.corruption, run.seed, score)
        data = sets[source]
        places.append((planned, encoded, data, place(encoded.pairs), place(data.extra) if data.extra else 0))
    runs = []
    for planned, encoded, data, base, extra in places:
        lane, columns = build_lane(planned.key, as_trained(planned.run), encoded, data, base, extra)
        runs.append(PreparedRun(planned, encoded, data, lane, columns))
    first, mismatched = task.runs[0].run, None
    if MISMATCHED in OBJECTIVES[first.objective.name].needs:
        parts, mismatched = with_mismatches(parts)
    corpus = build_corpus([part.rows for part in parts], [part.reference for part in parts], worker.device, mismatched)
    steps = checkpoint_steps(runs[0].lane.training.steps, first.evaluation.checkpoints)
    architecture, lanes = runs[0].encoded.inputs.architecture, tuple(run.lane for run in runs)
    if scalar_head(first.objective):
        architecture, lanes = with_reward_heads(architecture, lanes)
    inputs = runs[0].encoded.inputs
    return runs, Pack(architecture, corpus, lanes, steps, inputs.ladder, inputs.other)


def encoded_inputs(run: RunSpec, worker: Worker, check: bool) -> EncodedInputs:
    """The run's inputs, encoded once per worker, and checked once with `check`."""
    name = f"{reference_key(run)} {plain(run.world)} {plain(run.evaluation)}"
    cache = worker.config.cache
    if name not in worker.encoded:
        worker.encoded[name] = encode_inputs(open_inputs(run, cache), scorer(cache, worker.device))
    if check and name not in worker.checked:
        check_reference(run, worker.encoded[name], worker.device)
        worker.checked.add(name)
    return worker.encoded[name]
