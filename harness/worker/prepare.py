"""The start of a pack: its inputs, corrupted sets and corpus, and the folder and journal of every run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from harness.identity import plain
from harness.inputs.reference_cache import scorer
from harness.inputs.references import reference_key, reference_weights
from harness.inputs.run_inputs import RunInputs, mythworld_setting
from harness.inputs.text import text_setting
from harness.models.logps import build_corpus
from harness.models.loss_inputs import MISMATCHED
from harness.models.pack import Pack
from harness.objectives.budget import family
from harness.objectives.registry import OBJECTIVES
from harness.signals import Stop
from harness.storage.checkpoints import FOLDER as CHECKPOINTS
from harness.storage.journal import Journal
from harness.storage.runs import open_run
from harness.training.loop import checkpoint_steps
from harness.types import InputError, RunSpec
from harness.worker.check_reference import check_reference
from harness.worker.commit import PackRun
from harness.worker.datasets import EncodedInputs, EncodedPairs, TrainingSet, corrupted_set, prepare, with_mismatches
from harness.worker.lanes import build_lane
from harness.worker.protocol import PackTask, WorkerConfig
from harness.worker.trainers import as_trained, with_reward_heads


@dataclass
class Worker:
    """The state of a worker process, and what it keeps from task to task."""

    config: WorkerConfig
    device: torch.device
    stop: Stop = field(default_factory=Stop)
    prepared: dict[str, EncodedInputs] = field(default_factory=dict)  # by source, seed and evaluation
    lane_limits: dict[str, int] = field(default_factory=dict)  # lanes to try, by pack group, after memory ran out


def pick_device(name: str) -> torch.device:
    """The torch device of a spec's `device`: auto takes a GPU where there is one. Never falls back silently."""
    available = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if available else "cpu")
    if name.startswith("cuda") and not available:
        raise InputError(f"device: '{name}' was asked for, but torch {torch.__version__} sees no GPU; use device: cpu")
    return torch.device(name)


def open_pack(task: PackTask, worker: Worker, t0_ms: int) -> tuple[list[PackRun], Pack]:
    """Prepare inputs, corrupted sets, corpus and lanes; open each run's folder and journal."""
    score = scorer(worker.config.cache, worker.device)
    blocks: list[EncodedPairs] = []
    offsets: dict[int, int] = {}
    sets: dict[tuple[int, object], TrainingSet] = {}

    def place(block: EncodedPairs) -> int:
        if id(block) not in offsets:
            offsets[id(block)] = sum(len(b.rows.pair_ids) for b in blocks)
            blocks.append(block)
        return offsets[id(block)]

    parts = []
    for planned in task.runs:
        run = planned.run
        prepared = _prepared(run, worker)
        source = (id(prepared), run.corruption)
        if source not in sets:
            sets[source] = corrupted_set(prepared, run.corruption, run.seed, score)
        data = sets[source]
        parts.append((planned, prepared, data, place(prepared.block), place(data.extra) if data.extra else 0))
    runs = []
    for planned, prepared, data, base, extra in parts:
        lane, columns = build_lane(planned.key, as_trained(planned.run), prepared, data, base, extra)
        folder, attempt = open_run(worker.config.folder, planned.key, planned.name, keep=CHECKPOINTS)
        journal = Journal(folder / "events.jsonl")
        journal.append({"kind": "start", "run_key": planned.key, "attempt": attempt, "t0_ms": t0_ms})
        runs.append(PackRun(planned, prepared, data, lane, columns, folder, journal))
    first = task.runs[0].run
    mismatched = None
    if MISMATCHED in OBJECTIVES[first.objective.name].needs:
        blocks, mismatched = with_mismatches(blocks)
    corpus = build_corpus([b.rows for b in blocks], [b.reference for b in blocks], worker.device, mismatched)
    steps = checkpoint_steps(runs[0].lane.training.steps, first.evaluation.checkpoints)
    architecture, lanes = runs[0].prepared.setting.architecture, tuple(run.lane for run in runs)
    if family(first.objective) == "reward":
        architecture, lanes = with_reward_heads(architecture, lanes)
    return runs, Pack(architecture, corpus, lanes, steps)


def _prepared(run: RunSpec, worker: Worker) -> EncodedInputs:
    """The run's inputs, prepared once per worker."""
    name = f"{reference_key(run)} {plain(run.world)} {plain(run.evaluation)}"
    if name not in worker.prepared:
        cache = worker.config.cache
        prepared = prepare(open_setting(run, cache), scorer(cache, worker.device))
        check_reference(run, prepared, worker.device)
        worker.prepared[name] = prepared
    return worker.prepared[name]


def open_setting(run: RunSpec, cache: Path) -> RunInputs:
    """The inputs of a run with its reference. Raises RuntimeError where that is gone from the cache."""
    weights = reference_weights(cache, run)
    return mythworld_setting(run, weights) if run.world is not None else text_setting(run, weights)
