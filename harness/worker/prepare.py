"""Where a pack begins: its inputs, training sets and corpus, and the folder and journal of every run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from harness.config.cells import check_plugins
from harness.identity import plain, run_key
from harness.inputs.encoded import EncodedInputs, EncodedPairs, encode_inputs, open_inputs
from harness.inputs.reference_cache import scorer
from harness.inputs.references import reference_key
from harness.models.logps import build_corpus
from harness.models.loss_inputs import MISMATCHED
from harness.models.pack import Pack
from harness.objectives.registry import OBJECTIVES
from harness.storage import runs as store
from harness.storage.checkpoints import FOLDER as CHECKPOINTS
from harness.storage.journal import Journal
from harness.sweep.packing import PackTask
from harness.training.loop import checkpoint_steps
from harness.types import RunSpec
from harness.worker.check_reference import check_reference
from harness.worker.checkpointing import CheckpointPolicy
from harness.worker.datasets import TrainingSet, training_set, with_mismatches
from harness.worker.lanes import build_lane
from harness.worker.run_job import PackRun
from harness.worker.trainers import as_trained, own_model


@dataclass
class Worker:
    """What one worker process keeps between packs: where things stand, and the inputs that it has already encoded."""

    cache: Path
    folder: Path  # the sweep's
    device: torch.device
    names: Mapping[str, str]  # run key -> readable name
    keeping: CheckpointPolicy = field(default_factory=lambda: CheckpointPolicy(math.inf))
    encoded: dict[str, EncodedInputs] = field(default_factory=dict)
    profile: bool = False
    ceilings: dict[str, int] = field(default_factory=dict)  # lanes that fit, by pack key, once memory gave out


def open_pack(task: PackTask, shop: Worker, t0_ms: int) -> tuple[list[PackRun], Pack]:
    """Prepare inputs, training sets, corpus and lanes; open each run's folder and journal."""
    score = scorer(shop.cache, shop.device)
    parts: list[EncodedPairs] = []
    offsets: dict[int, int] = {}
    sets: dict[tuple[int, object], TrainingSet] = {}

    def place(pairs: EncodedPairs) -> int:
        """The offset of the pairs in the corpus; pairs that runs share stand in it once."""
        if id(pairs) not in offsets:
            offsets[id(pairs)] = sum(len(part.rows.pair_ids) for part in parts)
            parts.append(pairs)
        return offsets[id(pairs)]

    places = []
    for run in task.runs:
        check_plugins(run)
        encoded = _encoded(run, shop)
        source = (id(encoded), run.corruption)
        if source not in sets:
            sets[source] = training_set(encoded, run.corruption, run.seed, score)
        data = sets[source]
        places.append((run, encoded, data, place(encoded.pairs), place(data.extra) if data.extra else 0))
    jobs = []
    for run, encoded, data, base, extra in places:
        key = run_key(run)
        lane, columns = build_lane(key, as_trained(run), encoded, data, base, extra)
        folder, attempt = store.open_run(shop.folder, key, shop.names[key], keep=CHECKPOINTS)
        journal = Journal(folder / "events.jsonl")
        journal.append({"kind": "start", "run_key": key, "attempt": attempt, "t0_ms": t0_ms})
        jobs.append(PackRun(key, run, encoded, data, lane, columns, folder, journal))
    mismatched = None
    if MISMATCHED in OBJECTIVES[task.runs[0].objective.name].needs:
        parts, mismatched = with_mismatches(parts)
    corpus = build_corpus([part.rows for part in parts], [part.reference for part in parts], shop.device, mismatched)
    steps = checkpoint_steps(jobs[0].lane.training.steps, task.runs[0].evaluation.checkpoints)
    lanes = [job.lane for job in jobs]
    architecture, trained = own_model(places[0][1].inputs.architecture, task.runs, lanes)
    return jobs, Pack(architecture, corpus, trained, steps)


def _encoded(run: RunSpec, shop: Worker) -> EncodedInputs:
    """The run's inputs, encoded and checked once per worker."""
    name = f"{reference_key(run)} {plain(run.world)} {plain(run.evaluation)}"
    if name not in shop.encoded:
        encoded = encode_inputs(open_inputs(run, shop.cache), scorer(shop.cache, shop.device))
        check_reference(run, encoded, shop.device)
        shop.encoded[name] = encoded
    return shop.encoded[name]
