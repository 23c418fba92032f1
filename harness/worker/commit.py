"""Where a run ends: its tables, costs and provenance, and `result.json`, which makes it count, written last."""

from __future__ import annotations

import importlib.metadata
import platform
import resource
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.identity import content_hash, plain, run_key
from harness.inputs.run_inputs import RunInputs
from harness.metrics.margins import delta
from harness.metrics.records import Array, Columns, select, size, steps, where
from harness.objectives.budget import budget, family
from harness.rlhf.lanes import RlTraining
from harness.storage import runs as store
from harness.storage.atomic import write_json
from harness.sweep.packing import PackTask
from harness.training.loop import Training
from harness.types import ObjectiveSpec, PreferencePair, RunSpec, TrainingSpec
from harness.worker.datasets import TrainingSet
from harness.worker.protocol import Event
from harness.worker.run_job import PackRun


def work_done(
    objective: ObjectiveSpec,
    training: TrainingSpec,
    reward_model: ObjectiveSpec | None,
    run: Training | RlTraining,
    parameters: int,
) -> dict[str, Any]:
    """`tokens` (trained and generated), `generated_tokens`, `flops`, and `reward_flops`: those of training the reward
    model that the run learns from, which are in no other number of it and are shared by all that learn from it.
    `training` is what the spec gives every run; `parameters` are those that are trained.

    A token costs 2 flops for each parameter in a forward pass. A backward pass costs as much again for the gradient of
    the activations, through frozen parameters too, and as much again for that of the trained parameters.
    """
    forward = 2 * (parameters + run.model.frozen)
    update = 2 * forward + 2 * parameters
    width = int(run.pack.corpus.ids.shape[1])
    own = dict(objective.hyperparameters)
    real = budget(objective, training)
    rewards = 0 if reward_model is None else _steps(budget(reward_model, training)) * width * update
    if family(objective) != "rl" or not isinstance(run, RlTraining):
        tokens = _steps(real) * width
        return {"tokens": tokens, "generated_tokens": 0, "flops": update * tokens, "reward_flops": rewards}
    scored, trained = _rows(own, real, run, width)
    generated = run.generated + run.asked * run.sampling.width
    frozen = 1 + (run.scorer is not None)
    if objective.name == "best_of_n":
        frozen -= 1  # no KL is paid: the reference only samples
    return {
        "tokens": trained + run.generated,
        "generated_tokens": run.generated,
        "flops": forward * (generated + frozen * scored) + update * trained,
        "reward_flops": rewards,
    }


def _steps(training: TrainingSpec) -> int:
    return training.steps * training.batch_size


def _rows(own: Mapping[str, Any], training: TrainingSpec, run: RlTraining, width: int) -> tuple[int, int]:
    """Tokens that a frozen model scored, and tokens that the policy was trained on."""
    scored = run.asked * run.sampling.width + run.generated
    trained = scored * int(own.get("epochs", 1)) if training.steps else 0
    return scored, trained + training.steps * int(own.get("pairs", 0)) * width


PACKAGES = ("preference-harness", "torch", "transformers", "numpy", "pandas", "pyarrow", "safetensors", "mlflow")

TIE_TOL = {"float32": 1e-4, "bfloat16": 0.05}  # nats by which a stored reference and a live policy may differ


def provenance(run: RunSpec, setting: RunInputs, data: TrainingSet) -> dict[str, Any]:
    """The record of one run: what was computed, from what, by what, on what kind of machine."""
    dtype = run.model.dtype if run.model is not None else "float32"
    return {
        "run_key": run_key(run),
        "code": _code(),
        "data": {
            "pairs": len(data.ids),
            "sha256": content_hash([[p.id, p.prompt, p.chosen, p.rejected] for p in data.pairs]),
            "corrupted": int(data.corrupted.sum()),
            "flipped": int(data.flipped.sum()),
        },
        "reference": {
            "setting": setting.name,
            "sha256": setting.reference_sha256,
            "parameters": len(setting.weights),
        },
        "machine": {
            "python": platform.python_version(),
            "platform": platform.system(),
            "processor": platform.machine(),
            "threads": torch.get_num_threads(),
            "device": "cuda" if torch.cuda.is_available() and run.device != "cpu" else "cpu",
            "dtype": dtype,
            "mode": run.training.mode,
            "tie_tol": TIE_TOL[dtype],
        },
        "notes": list(setting.notes),
    }


@lru_cache(maxsize=1)
def _code() -> dict[str, Any]:
    """Package versions, and the commit where the package runs from a git checkout."""
    versions: dict[str, str] = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    root = Path(__file__).resolve().parents[3]
    commit, dirty = "", False
    if (root / ".git").exists():
        commit = _git(root, "rev-parse", "HEAD")
        dirty = bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    return {"versions": versions, "commit": commit, "dirty": dirty}


def _git(root: Path, *arguments: str) -> str:
    """Output of a git command, or "" where git is not installed or the checkout cannot be read."""
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments
            ["git", "-C", str(root), *arguments],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


KEPT = 8  # pairs a split


def worst_pairs(examples: Columns, pairs: Mapping[str, Mapping[str, PreferencePair]]) -> dict[str, Array]:
    """Columns split, id, prompt, chosen, rejected of at most `KEPT` pairs a split, the worst first.

    Beside them what names a pair without its texts, where it is known: `row` of the data file, `group`.

    Of `eval_clean` those with the lowest policy margin at the last step; of `train_observed` the wrongly labelled ones
    whose label the policy follows most strongly (`chosen` is what the label says). `pairs` holds them by split and id.
    Pairs with a margin that is not finite are left out.
    """
    last = steps(examples)[-1]
    found: list[tuple[str, PreferencePair]] = []
    for split, sign in (("eval_clean", 1.0), ("train_observed", -1.0)):
        rows = where(examples, last, split)
        if split == "train_observed":
            rows = select(rows, np.asarray(rows["clean_label"]) < 0)
        margin = sign * delta(rows) if size(rows) else np.zeros(0)
        ids = np.asarray(rows["id"]).astype(str)
        order = [i for i in np.lexsort((ids, margin)) if np.isfinite(margin[i])][:KEPT]
        found += [(split, pairs[split][ids[i]]) for i in order]
    texts = {name: [getattr(pair, name) for _, pair in found] for name in ("id", "prompt", "chosen", "rejected")}
    columns = {"split": [split for split, _ in found], **texts}
    table = {name: np.array(values, dtype=object) for name, values in columns.items()}
    return table | known([pair for _, pair in found], "row", "group")


def known(pairs: Sequence[PreferencePair], *names: str) -> dict[str, Array]:
    """Columns of what the pairs' `meta` says under `names`, each only where every pair has it."""
    return {
        name: np.array([pair.meta[name] for pair in pairs], dtype=np.int64 if name == "row" else object)
        for name in names
        if pairs and all(name in pair.meta for pair in pairs)
    }


def commit_run(
    job: PackRun,
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
        texts = {"eval_clean": job.prepared.inputs.evals["eval_clean"], "train_observed": job.data.pairs}
        by_id = {split: {pair.id: pair for pair in pairs} for split, pairs in texts.items()}
        store.write_table(job.folder / "worst.parquet", worst_pairs(examples, by_id))
    if drawn is not None:
        store.write_table(job.folder / "samples.parquet", drawn)
    if job.data.ledger is not None:
        from harness.corruptions.ledger import write_ledger

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
    write_json(job.folder / "provenance.json", provenance(job.run, job.prepared.inputs, job.data))
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
    task: PackTask, jobs: Sequence[PackRun], steps: Mapping[str, int], seconds: float, t0_ms: int
) -> Iterator[Event]:
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
        yield Event("done", task.number, key=job.key, status="stopped")


def run_costs(job: PackRun, run: Training | RlTraining, seconds: float, number: int, lane: int) -> dict[str, Any]:
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
