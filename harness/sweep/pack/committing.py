"""Where a run ends: its tables, its costs, and `result.json`, which makes it count, last."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from harness.names import plain
from harness.rlhf.lanes import RlTraining
from harness.sweep.messages import Message
from harness.sweep.pack.costs import work_done
from harness.sweep.pack.jobs import Job
from harness.sweep.pack.provenance import provenance
from harness.sweep.pack.worst import worst_pairs
from harness.sweep.packs import PackTask
from harness.tracking import store
from harness.tracking.files import write_json
from harness.training.loop import Training


def commit_run(
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


def commit_stopped(
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


def run_costs(job: Job, run: Training | RlTraining, seconds: float, number: int, lane: int) -> dict[str, Any]:
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
