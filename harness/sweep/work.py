"""One pack from start to committed truth: prepare, train, sample, write. A generator of messages; no tracking here."""

from __future__ import annotations

import json
import math
import resource
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.measure.geometry import constraint_metrics
from harness.models.extras import MISMATCHED
from harness.models.lanes import Pack
from harness.models.logps import build_corpus
from harness.names import plain, run_key
from harness.objectives.table import OBJECTIVES
from harness.objectives.table_budget import family
from harness.rlhf.lanes import RlTraining
from harness.sweep.before import check_prepared
from harness.sweep.costs import work_done
from harness.sweep.jobs import Job
from harness.sweep.keeping import Keeper, keeper
from harness.sweep.lane_sets import build_lane
from harness.sweep.material import Block, Prepared, TrainingSet, corrupted_set, prepare, with_mismatches
from harness.sweep.messages import Message
from harness.sweep.packs import PackTask
from harness.sweep.probing import gradient_probe, probe_table
from harness.sweep.provenance import provenance
from harness.sweep.reference_store import scorer
from harness.sweep.resuming import Keeping, Stopped, resume, stretches
from harness.sweep.rewards import save_rewards
from harness.sweep.sampling import sample_jobs
from harness.sweep.setting import Setting, mythworld_setting
from harness.sweep.stages import reference_key, reference_weights
from harness.sweep.text_setting import text_setting
from harness.sweep.trainers import as_trained, begin, own_model
from harness.sweep.worst import worst_pairs
from harness.tracking import store
from harness.tracking.checkpoints import FOLDER as CHECKPOINTS
from harness.tracking.files import write_json
from harness.tracking.journal import Journal
from harness.training.loop import Training, checkpoint_steps
from harness.training.spans import Spans, gemm_ceiling, summary
from harness.types import Record, RunSpec

# Splits whose metrics go to the journal, with the prefix their names carry.
PREFIXES = {"train_observed": "", "eval_clean": "eval_", "ood": "ood_"}


@dataclass
class Workshop:
    """What one worker process keeps between packs: where things stand, and settings it has already prepared."""

    cache: Path
    folder: Path  # the sweep's
    device: torch.device
    names: Mapping[str, str]  # run key -> readable name
    keeping: Keeping = field(default_factory=lambda: Keeping(math.inf))
    prepared: dict[str, Prepared] = field(default_factory=dict)
    profile: bool = False
    ceilings: dict[str, int] = field(default_factory=dict)  # lanes that fit, by pack key, once memory gave out


def work(task: PackTask, shop: Workshop) -> Iterator[Message]:
    """Train one pack and commit every run of it; yields progress, then one `done` a run.

    Where a signal was heard the runs are kept as they stand and committed as `stopped`.
    """
    began = time.monotonic()
    t0_ms = time.time_ns() // 1_000_000
    spans = Spans(shop.profile)
    with spans("preparation"):
        jobs, pack = _open(task, shop, t0_ms)
    settings = [job.prepared.setting for job in jobs]
    trainer = begin(pack, task.runs, settings, shop.cache, shop.device)
    run = trainer.run
    kind = family(task.runs[0].objective)
    probed = jobs[0].run.evaluation.gradient_probe if isinstance(run, Training) and kind != "reward" else 0
    probes = [gradient_probe(run, pack.lanes, probed, 0)]
    kept = keeper(task.runs, [job.key for job in jobs], settings)
    # The best weights so far are in no checkpoint: runs that keep them begin anew.
    whole = "best" not in kept.rules
    earlier = resume([job.folder for job in jobs], [job.key for job in jobs], kind == "rl") if whole else []
    if any(earlier):
        states = [one.state if one else None for one in earlier]
        trainer = begin(pack, task.runs, settings, shop.cache, shop.device, states)
        run = trainer.run
        began -= max(one.seconds for one in earlier if one)
    if isinstance(run, Training):
        run.spans = spans
    records = stretches(trainer, jobs, shop.keeping, earlier, began)
    with shop.keeping.stop.softly(trainer.answers is None):  # best-of-n has no boundary to look at
        try:
            yield from _follow(task, jobs, records, run, kept, spans)
        except Stopped as stopped:
            yield from _stop(task, jobs, stopped.steps, time.monotonic() - began, t0_ms)
            return
        last = jobs[0].records[-1].step if jobs[0].records else -1
        probes.append(gradient_probe(run, pack.lanes, probed, last))
        chosen = [(job.run, job.prepared) for job in jobs]
        with spans("sampling"):
            samples = sample_jobs(chosen, run.model, trainer.answers) if kind != "reward" else []
        diverged = run.diverged_at[:, 0].tolist()
        if kind == "reward":
            save_rewards(shop.cache, list(task.runs), pack, run.model, [step >= 0 for step in diverged])
        seconds = time.monotonic() - began
        flops = 0.0
        for lane, job in enumerate(jobs):
            status = "done" if diverged[lane] < 0 else "diverged"
            costs = _costs(job, run, seconds / len(jobs), task.number, lane)
            if probed:
                table = probe_table([probe[lane] for probe in probes], job.records, job.lane)
                store.write_table(job.folder / "probes.parquet", table)
            kept.write(lane, job.folder, settings[lane], run.model, pack.lanes[0].training.steps)
            with spans("I/O"):
                _commit(job, samples[lane] if samples else None, status, diverged[lane], costs, t0_ms)
            flops += costs["flops"]
            yield Message("done", task.number, key=job.key, status=status)
        if spans.on:
            found = summary(spans.seconds, flops if isinstance(run, Training) else 0.0, gemm_ceiling(shop.device))
            yield Message("profile", task.number, text=json.dumps(found))


def _follow(
    task: PackTask,
    jobs: Sequence[Job],
    records: Iterator[Record],
    run: Training | RlTraining,
    kept: Keeper,
    spans: Spans,
) -> Iterator[Message]:
    """Take every record of a pack: keep it, and write its metrics to the run's journal."""
    by_key = {job.key: job for job in jobs}
    step, steps = -1, run.pack.lanes[0].training.steps
    for record in records:
        job = by_key[record.run_key]
        kept.see(record, run.pack, run.model)
        job.records.append(record)
        now = run.step if isinstance(run, Training) else record.step
        if now != step:
            step = now
            yield Message("step", task.number, step, steps)
        if record.split in PREFIXES:
            with spans("records"):
                _note(job, record)


def _note(job: Job, record: Record) -> None:
    """Append the metric points of a record to the run's journal."""
    columns = job.all_columns(record)
    points = {**job.points(columns, PREFIXES[record.split]), **record.scalars}
    if record.split == "train_observed" and "multiplier" in columns:
        points |= constraint_metrics(columns, float(job.knobs["margin"]))
    job.journal.append({"kind": "metrics", "step": record.step, **points})


def _stop(
    task: PackTask, jobs: Sequence[Job], steps: Mapping[str, int], seconds: float, t0_ms: int
) -> Iterator[Message]:
    """Commit runs that were stopped after `steps` updates of each; the next command goes on from there."""
    for job in jobs:
        job.journal.append({"kind": "end", "status": "stopped"})
        job.journal.sync()
        job.journal.close()
        store.commit(
            job.folder,
            {
                "run_key": job.key,
                "status": "stopped",
                "steps": steps[job.key],
                "results": {},
                "costs": {"seconds": seconds / len(jobs), "pack": task.number},
                "config": plain(job.run),
                "name": job.folder.name,
                "t0_ms": t0_ms,
            },
        )
        yield Message("done", task.number, key=job.key, status="stopped")


def _open(task: PackTask, shop: Workshop, t0_ms: int) -> tuple[list[Job], Pack]:
    """Prepare settings, corrupted sets, corpus and lanes; open each run's folder and journal."""
    score = scorer(shop.cache, shop.device)
    blocks: list[Block] = []
    offsets: dict[int, int] = {}
    sets: dict[tuple[int, object], TrainingSet] = {}

    def place(block: Block) -> int:
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
        jobs.append(Job(key, run, prepared, data, lane, columns, folder, journal))
    mismatched = None
    if MISMATCHED in OBJECTIVES[task.runs[0].objective.name].needs:
        blocks, mismatched = with_mismatches(blocks)
    corpus = build_corpus([b.rows for b in blocks], [b.reference for b in blocks], shop.device, mismatched)
    steps = checkpoint_steps(jobs[0].lane.training.steps, task.runs[0].evaluation.checkpoints)
    lanes = [job.lane for job in jobs]
    architecture, trained = own_model(jobs[0].prepared.setting.architecture, task.runs, lanes)
    return jobs, Pack(architecture, corpus, trained, steps)


def _prepared(run: RunSpec, shop: Workshop) -> Prepared:
    """The run's setting, prepared once a worker."""
    name = f"{reference_key(run)} {plain(run.world)} {plain(run.evaluation)}"
    if name not in shop.prepared:
        made = prepare(open_setting(run, shop.cache), scorer(shop.cache, shop.device))
        check_prepared(run, made, shop.device)
        shop.prepared[name] = made
    return shop.prepared[name]


def open_setting(run: RunSpec, cache: Path) -> Setting:
    """The setting of a run with its reference. Raises RuntimeError where that is gone from the cache."""
    weights = reference_weights(cache, run)
    return mythworld_setting(run, weights) if run.world is not None else text_setting(run, weights)


def _costs(job: Job, run: Training | RlTraining, seconds: float, number: int, lane: int) -> dict[str, Any]:
    """What the run cost: its share of the pack's time, and the tokens and flops of its training."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if run.model.flat.is_cuda:
        peak = torch.cuda.max_memory_allocated()
    return {
        "seconds": seconds,
        **work_done(job.run.objective, job.run.training, job.run.reward_model, run, len(job.lane.weights)),
        "peak_memory": peak,
        "host": socket.gethostname(),
        "pack": number,
        "lane": lane,
    }


def _commit(
    job: Job,
    drawn: Mapping[str, np.ndarray] | None,
    status: str,
    diverged_at: int,
    costs: Mapping[str, Any],
    t0_ms: int,
) -> None:
    """Write the run's tables, close its journal, and publish `result.json` last."""
    tables = [
        {
            "step": np.full(len(record.ids), record.step, np.int32),
            "split": np.array([record.split] * len(record.ids), dtype=object),
            "id": np.array(record.ids, dtype=object),
            **job.all_columns(record),
        }
        for record in job.records
    ]
    examples = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    for name in ("chosen_len", "rejected_len"):
        examples[name] = examples[name].astype(np.int32)
    store.write_table(job.folder / "examples.parquet", examples)
    if not job.scores:  # a reward model ranks by scores, and has no margin of a policy to be wrong by
        texts = {"eval_clean": job.prepared.setting.evals["eval_clean"], "train_observed": job.data.pairs}
        by_id = {split: {pair.id: pair for pair in pairs} for split, pairs in texts.items()}
        store.write_table(job.folder / "worst.parquet", worst_pairs(examples, by_id))
    if drawn is not None:
        store.write_table(job.folder / "samples.parquet", drawn)
    if job.data.ledger is not None:
        from harness.data.corrupt.ledger import write_ledger

        write_ledger(job.data.ledger, job.folder / "ledger.parquet")
    results = job.results(examples, drawn)
    if job.data.ledger is not None and job.run.corruption.rate is None:
        results["rate"] = job.data.ledger.attrs["manifest"]["rate_realised"]
    steps = job.lane.training.steps
    final = {f"final/{name}": value for name, value in results.items() if value is not None}
    job.journal.append({"kind": "metrics", "step": steps, **final})
    end = {"kind": "end", "status": status} | ({"diverged_step": diverged_at} if diverged_at >= 0 else {})
    job.journal.append(end)
    job.journal.sync()
    job.journal.close()
    write_json(job.folder / "provenance.json", provenance(job.run, job.prepared.setting, job.data))
    store.commit(
        job.folder,
        {
            "run_key": job.key,
            "status": status,
            "steps": steps,
            "results": results,
            "costs": dict(costs),
            "config": plain(job.run),
            "name": job.folder.name,
            "t0_ms": t0_ms,
        },
    )
