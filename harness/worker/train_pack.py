"""One pack from start to committed truth: prepare, train, sample, write. A generator of messages; no tracking here."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence

from harness.metrics.geometry import constraint_metrics
from harness.objectives.budget import family
from harness.rlhf.lanes import RlTraining
from harness.storage import runs as store
from harness.sweep.packing import PackTask
from harness.training.loop import Training
from harness.training.timing import Spans, gemm_ceiling, summary
from harness.types import Record
from harness.worker.checkpointing import Stopped, checkpointed_records, resume
from harness.worker.commit import commit_run, commit_stopped, run_costs
from harness.worker.gradient_probe import gradient_probe, probe_table
from harness.worker.prepare import Worker, open_pack
from harness.worker.protocol import Event
from harness.worker.reward_models import save_rewards
from harness.worker.run_job import PackRun
from harness.worker.samples import sample_jobs
from harness.worker.saved_weights import SavedWeights, saved_weights
from harness.worker.trainers import build_trainer

# Splits whose metrics go to the journal, with the prefix their names carry.
PREFIXES = {"train_observed": "", "eval_clean": "eval_", "ood": "ood_"}


def work(task: PackTask, shop: Worker) -> Iterator[Event]:
    """Train one pack and commit every run of it; yields progress, then one `done` a run.

    Where a signal was heard the runs are kept as they stand and committed as `stopped`.
    """
    began = time.monotonic()
    t0_ms = time.time_ns() // 1_000_000
    spans = Spans(shop.profile)
    with spans("preparation"):
        jobs, pack = open_pack(task, shop, t0_ms)
    settings = [job.prepared.inputs for job in jobs]
    trainer = build_trainer(pack, task.runs, settings, shop.cache, shop.device)
    run = trainer.run
    kind = family(task.runs[0].objective)
    probed = jobs[0].run.evaluation.gradient_probe if isinstance(run, Training) and kind != "reward" else 0
    probes = [gradient_probe(run, pack.lanes, probed, 0)]
    kept = saved_weights(task.runs, [job.key for job in jobs], settings)
    # The best weights so far are in no checkpoint: runs that keep them begin anew.
    whole = "best" not in kept.rules
    earlier = resume([job.folder for job in jobs], [job.key for job in jobs], kind == "rl") if whole else []
    if any(earlier):
        states = [one.state if one else None for one in earlier]
        trainer = build_trainer(pack, task.runs, settings, shop.cache, shop.device, states)
        run = trainer.run
        began -= max(one.seconds for one in earlier if one)
    if isinstance(run, Training):
        run.spans = spans
    records = checkpointed_records(trainer, jobs, shop.keeping, earlier, began)
    with shop.keeping.stop.softly(trainer.answers is None):  # best-of-n has no boundary to look at
        try:
            yield from _follow(task, jobs, records, run, kept, spans)
        except Stopped as stopped:
            yield from commit_stopped(task, jobs, stopped.steps, time.monotonic() - began, t0_ms)
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
            costs = run_costs(job, run, seconds / len(jobs), task.number, lane)
            if probed:
                table = probe_table([probe[lane] for probe in probes], job.records, job.lane)
                store.write_table(job.folder / "probes.parquet", table)
            kept.write(lane, job.folder, settings[lane], run.model, pack.lanes[0].training.steps)
            with spans("I/O"):
                commit_run(job, samples[lane] if samples else None, status, diverged[lane], costs, t0_ms)
            flops += costs["flops"]
            yield Event("done", task.number, key=job.key, status=status)
        if spans.on:
            found = summary(spans.seconds, flops if isinstance(run, Training) else 0.0, gemm_ceiling(shop.device))
            yield Event("profile", task.number, text=json.dumps(found))


def _follow(
    task: PackTask,
    jobs: Sequence[PackRun],
    records: Iterator[Record],
    run: Training | RlTraining,
    kept: SavedWeights,
    spans: Spans,
) -> Iterator[Event]:
    """Take every record of a pack: keep it, and write its metrics to the run's journal."""
    by_key = {job.key: job for job in jobs}
    step, steps = -1, run.pack.lanes[0].training.steps
    for record in records:
        job = by_key[record.run_key]
        kept.see(record, run.pack, run.model)
        job.records.append(record)
        if run.step != step:
            step = run.step
            yield Event("step", task.number, step, steps)
        if record.split in PREFIXES:
            with spans("records"):
                _note(job, record)


def _note(job: PackRun, record: Record) -> None:
    """Append the metric points of a record to the run's journal."""
    columns = job.all_columns(record)
    points = {**job.points(columns, PREFIXES[record.split]), **record.scalars}
    if record.split == "train_observed" and "multiplier" in columns:
        points |= constraint_metrics(columns, float(job.knobs["margin"]))
    job.journal.append({"kind": "metrics", "step": record.step, **points})
