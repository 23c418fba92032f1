"""Where a pack begins: its settings, corrupted sets and corpus, and the folder and journal of every run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from harness.identity import plain, run_key
from harness.inputs.reference_cache import scorer
from harness.inputs.references import reference_key, reference_weights
from harness.inputs.run_inputs import RunInputs, mythworld_setting
from harness.inputs.text import text_setting
from harness.models.logps import build_corpus
from harness.models.loss_inputs import MISMATCHED
from harness.models.pack import Pack
from harness.objectives.registry import OBJECTIVES
from harness.storage import runs as store
from harness.storage.checkpoints import FOLDER as CHECKPOINTS
from harness.storage.journal import Journal
from harness.sweep.packing import PackTask
from harness.sweep.preflight import check_prepared
from harness.training.loop import checkpoint_steps
from harness.types import RunSpec
from harness.worker.checkpointing import CheckpointPolicy
from harness.worker.datasets import EncodedInputs, EncodedPairs, TrainingSet, corrupted_set, prepare, with_mismatches
from harness.worker.lanes import build_lane
from harness.worker.run_job import PackRun
from harness.worker.trainers import as_trained, own_model


@dataclass
class Worker:
    """What one worker process keeps between packs: where things stand, and settings it has already prepared."""

    cache: Path
    folder: Path  # the sweep's
    device: torch.device
    names: Mapping[str, str]  # run key -> readable name
    keeping: CheckpointPolicy = field(default_factory=lambda: CheckpointPolicy(math.inf))
    prepared: dict[str, EncodedInputs] = field(default_factory=dict)
    profile: bool = False
    ceilings: dict[str, int] = field(default_factory=dict)  # lanes that fit, by pack key, once memory gave out


def open_pack(task: PackTask, shop: Worker, t0_ms: int) -> tuple[list[PackRun], Pack]:
    """Prepare settings, corrupted sets, corpus and lanes; open each run's folder and journal."""
    score = scorer(shop.cache, shop.device)
    blocks: list[EncodedPairs] = []
    offsets: dict[int, int] = {}
    sets: dict[tuple[int, object], TrainingSet] = {}

    def place(block: EncodedPairs) -> int:
        if id(block) not in offsets:
            offsets[id(block)] = sum(len(b.rows.pair_ids) for b in blocks)
            blocks.append(block)
        return offsets[id(block)]

    parts = []
    for run in task.runs:
        prepared = _prepared(run, shop)
        source = (id(prepared), run.corruption)
        if source not in sets:
            sets[source] = corrupted_set(prepared, run.corruption, run.seed, score)
        data = sets[source]
        parts.append((run, prepared, data, place(prepared.block), place(data.extra) if data.extra else 0))
    jobs = []
    for run, prepared, data, base, extra in parts:
        key = run_key(run)
        lane, columns = build_lane(key, as_trained(run), prepared, data, base, extra)
        folder, attempt = store.open_run(shop.folder, key, shop.names[key], keep=CHECKPOINTS)
        journal = Journal(folder / "events.jsonl")
        journal.append({"kind": "start", "run_key": key, "attempt": attempt, "t0_ms": t0_ms})
        jobs.append(PackRun(key, run, prepared, data, lane, columns, folder, journal))
    mismatched = None
    if MISMATCHED in OBJECTIVES[task.runs[0].objective.name].needs:
        blocks, mismatched = with_mismatches(blocks)
    corpus = build_corpus([b.rows for b in blocks], [b.reference for b in blocks], shop.device, mismatched)
    steps = checkpoint_steps(jobs[0].lane.training.steps, task.runs[0].evaluation.checkpoints)
    lanes = [job.lane for job in jobs]
    architecture, trained = own_model(jobs[0].prepared.setting.architecture, task.runs, lanes)
    return jobs, Pack(architecture, corpus, trained, steps, jobs[0].prepared.setting.ladder)


def _prepared(run: RunSpec, shop: Worker) -> EncodedInputs:
    """The run's setting, prepared once a worker."""
    name = f"{reference_key(run)} {plain(run.world)} {plain(run.evaluation)}"
    if name not in shop.prepared:
        made = prepare(open_setting(run, shop.cache), scorer(shop.cache, shop.device))
        check_prepared(run, made, shop.device)
        shop.prepared[name] = made
    return shop.prepared[name]


def open_setting(run: RunSpec, cache: Path) -> RunInputs:
    """The setting of a run with its reference. Raises RuntimeError where that is gone from the cache."""
    weights = reference_weights(cache, run)
    return mythworld_setting(run, weights) if run.world is not None else text_setting(run, weights)
