"""A run of a pack in training, and what is written of it: journal, tables, provenance, and `result.json` last."""

from __future__ import annotations

import importlib.metadata
import platform
import resource
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.corruptions.ledger import write_ledger
from harness.identity import content_hash
from harness.inputs.encoded import EncodedInputs
from harness.metrics.geometry import checkpoint_metrics, constraint_metrics
from harness.metrics.margin_columns import delta
from harness.metrics.records import Array, Columns, select, size, steps, where
from harness.metrics.results import results_row
from harness.metrics.reward_model import reward_metrics, reward_row
from harness.metrics.slices import MAX_VALUES, MIN_SLICE, SLICE
from harness.models.pack import Lane
from harness.objectives.budget import budget, family
from harness.rlhf.best_of_n import kl_bound
from harness.rlhf.lanes import RlTraining
from harness.storage.atomic import write_json
from harness.storage.journal import Journal
from harness.storage.runs import commit, run_result, write_table
from harness.text import slug
from harness.training.loop import Training, tokens_by_update
from harness.types import (
    PathModelSpec,
    PlannedRun,
    PreferencePair,
    Record,
    RunSpec,
    RunStatus,
    Split,
    TrainingSpec,
)
from harness.worker.datasets import TrainingSet
from harness.worker.protocol import PackTask

# Splits whose metrics go to the journal, with the prefix that their names have.
PREFIXES: dict[str, str] = {Split.TRAIN_OBSERVED: "", Split.HELDOUT: "eval_", Split.OOD: "ood_"}


@dataclass(frozen=True, eq=False)
class PackRun:
    """One run of a pack: its inputs and lane, the fixed columns of its records, its folder, journal and records."""

    planned: PlannedRun
    encoded: EncodedInputs
    data: TrainingSet
    lane: Lane
    columns: Mapping[str, np.ndarray]
    folder: Path
    journal: Journal
    records: list[Record] = field(default_factory=list)
    kept_step: int | None = None  # of a reward model that stopped early; None: the last

    @property
    def key(self) -> str:
        """The run key."""
        return self.planned.key

    @property
    def run(self) -> RunSpec:
        """What is trained."""
        return self.planned.run

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The objective's hyperparameters by name."""
        return dict(self.run.objective.hyperparameters)

    @property
    def is_reward_model(self) -> bool:
        """Whether the run is a reward model, which is measured by its rewards alone."""
        return family(self.run.objective) == "reward"

    def all_columns(self, record: Record) -> dict[str, Any]:
        """A record's columns with the fixed ones of its split; of a reward model its rewards, without log-probs."""
        first = 0
        for part in self.lane.evals:
            if part.split == record.split:
                break
            first += len(part.ids)
        rows = slice(first, first + len(record.ids))
        dropped = ("policy_", "reference_") if self.is_reward_model else ()
        measured = {name: values for name, values in record.columns.items() if not name.startswith(dropped)}
        return {**measured, **{name: values[rows] for name, values in self.columns.items()}}

    def journal_metrics(self, record: Record) -> None:
        """Append the metrics of a record to the journal, where its split has any."""
        if record.split not in PREFIXES:
            return
        columns = self.all_columns(record)
        points = {**self._metrics(columns, PREFIXES[record.split]), **record.scalars}
        if record.split == Split.TRAIN_OBSERVED and "multiplier" in columns:
            points |= constraint_metrics(columns, float(self.hyperparameters["margin"]))
        self.journal.append({"kind": "metrics", "step": record.step, **points})

    def _metrics(self, columns: Mapping[str, Any], prefix: str) -> dict[str, float]:
        """The metrics of one split at one step."""
        objective, knobs = self.run.objective, self.hyperparameters
        if self.is_reward_model:
            return reward_metrics(columns, prefix)
        if family(objective) == "rl":  # no loss of labelled pairs; beta where it is a price in units of true reward
            in_gold = knobs["reward"] == "gold" and not knobs.get("reward_scale")
            return checkpoint_metrics(columns, prefix, objective.beta if in_gold else None)
        return checkpoint_metrics(columns, prefix, objective.beta, objective=objective.name, hyperparameters=knobs)

    def results(self, examples: Mapping[str, Any], samples: Mapping[str, Any] | None) -> dict[str, float | None]:
        """The measured columns of `results.csv`."""
        if self.is_reward_model:
            return {**reward_row(examples, self.kept_step), **self.data.votes}
        best_of_n = self.run.objective.name == "best_of_n"
        bound = {"kl_bound": kl_bound(self.hyperparameters["n"])} if best_of_n else {}
        return {**results_row(examples, samples, self.run.objective.beta), **bound, **self.data.votes}


def run_costs(run: PackRun, training: Training | RlTraining, seconds: float, number: int, lane: int) -> dict[str, Any]:
    """What the run cost: its share of the pack's time, memory, and the tokens and flops of its training."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if training.model.flat.is_cuda:
        peak = torch.cuda.max_memory_allocated()
    return {
        "seconds": seconds,
        **work_done(run.run, training, run.lane),
        "parameters": len(run.lane.weights) + training.model.frozen,
        "peak_memory": peak,
        "host": socket.gethostname(),
        "pack": number,
        "lane": lane,
    }


def work_done(spec: RunSpec, training: Training | RlTraining, trained_lane: Lane) -> dict[str, Any]:
    """`tokens` (trained and generated), `generated_tokens`, `flops`, and `reward_flops`: those of training the reward
    model that the run learns from, which are in no other number of it and are shared by all that learn from it.

    A token costs 2 flops for each parameter in a forward pass. A backward pass costs as much again for the gradient of
    the activations, through frozen parameters too, and as much again for that of the trained parameters.
    """
    knobs = dict(spec.objective.hyperparameters)
    parameters = len(trained_lane.weights)
    forward = 2 * (parameters + training.model.frozen)
    update = 2 * forward + 2 * parameters
    width = int(training.pack.corpus.ids.shape[1])
    real = budget(spec.objective, spec.training)
    reward_pairs = 0 if spec.reward_model is None else _trained_pairs(budget(spec.reward_model, spec.training))
    rewards = reward_pairs * width * update
    if family(spec.objective) != "rl" or not isinstance(training, RlTraining):
        assert isinstance(training, Training)
        tokens = sum(tokens_by_update(training.pack, trained_lane, training.model))
        return {"tokens": tokens, "generated_tokens": 0, "flops": update * tokens, "reward_flops": rewards}
    generated = training.generated + training.asked * training.sampling.width
    scored = generated  # tokens that a frozen model scores
    trained = scored * int(knobs.get("epochs", 1)) if real.steps else 0
    trained += real.steps * int(knobs.get("pairs", 0)) * width
    frozen = 1 + (training.scorer is not None)
    if spec.objective.name == "best_of_n":
        frozen -= 1  # no KL is paid: the reference only samples
    return {
        "tokens": trained + training.generated,
        "generated_tokens": training.generated,
        "flops": forward * (generated + frozen * scored) + update * trained,
        "reward_flops": rewards,
    }


def _trained_pairs(training: TrainingSpec) -> int:
    return training.steps * training.batch_size


PACKAGES = ("preference-harness", "torch", "transformers", "numpy", "pandas", "pyarrow", "safetensors", "mlflow")

TIE_TOL = {"float32": 1e-4, "bfloat16": 0.05}  # nats by which a stored reference and a live policy may differ


def provenance(run: PackRun) -> dict[str, Any]:
    """The record of one run: what was computed, from what, by what, on what kind of machine."""
    spec, inputs, data = run.run, run.encoded.inputs, run.data
    dtype = spec.model.dtype if spec.model is not None else "float32"
    return {
        "run_key": run.key,
        "code": _code(),
        "data": {
            "pairs": len(data.ids),
            "sha256": content_hash([[p.id, p.prompt, p.chosen, p.rejected] for p in data.pairs]),
            "corrupted": int(data.corrupted.sum()),
            "flipped": int(data.flipped.sum()),
        },
        "reference": {
            "setting": inputs.name,
            "sha256": inputs.reference_sha256,
            "logps": spec.model.reference_logps_sha256 if isinstance(spec.model, PathModelSpec) else "",
            "parameters": len(inputs.weights),
        },
        "machine": {
            "python": platform.python_version(),
            "platform": platform.system(),
            "processor": platform.machine(),
            "threads": torch.get_num_threads(),
            "device": "cuda" if torch.cuda.is_available() and spec.device != "cpu" else "cpu",
            "dtype": dtype,
            "mode": spec.training.mode,
            "tie_tol": TIE_TOL[dtype],
        },
        "notes": list(inputs.notes),
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
    root = Path(__file__).resolve().parents[2]
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


WORST_PAIRS = 8  # per split


def worst_pairs(examples: Columns, pairs: Mapping[str, Mapping[str, PreferencePair]]) -> dict[str, Array]:
    """Columns split, id, prompt, chosen, rejected of at most `WORST_PAIRS` pairs per split, the worst first.

    With them what identifies a pair without its texts, where known: `row` of the data file, `group`.

    Of `eval_clean` those with the lowest policy margin at the last step; of `train_observed` the wrongly labelled ones
    whose label the policy follows most strongly (`chosen` is what the label says). `pairs` holds them by split and id.
    Pairs with a margin that is not finite are left out.
    """
    last = steps(examples)[-1]
    worst: list[tuple[str, PreferencePair]] = []
    for split, sign in ((Split.HELDOUT, 1.0), (Split.TRAIN_OBSERVED, -1.0)):
        rows = where(examples, last, split)
        if split == Split.TRAIN_OBSERVED:
            rows = select(rows, np.asarray(rows["clean_label"]) < 0)
        margin = sign * delta(rows) if size(rows) else np.zeros(0)
        ids = np.asarray(rows["id"]).astype(str)
        lowest = [i for i in np.lexsort((ids, margin)) if np.isfinite(margin[i])][:WORST_PAIRS]
        worst += [(split, pairs[split][ids[i]]) for i in lowest]
    texts = {name: [getattr(pair, name) for _, pair in worst] for name in ("id", "prompt", "chosen", "rejected")}
    columns = {"split": [split for split, _ in worst], **texts}
    table = {name: np.array(values, dtype=object) for name, values in columns.items()}
    return table | meta_columns([pair for _, pair in worst], "row", "group")


def slice_points(heldout: Columns) -> dict[str, float]:
    """Ranking accuracy of each slice of held-out pairs, as `final/slice/<column>/<value>`; none of few pairs."""
    names = [name for name in heldout if name.startswith(SLICE)]
    right = delta(heldout) > 0 if names else np.zeros(0, dtype=bool)
    points = {}
    for name in names:
        values = sorted(set(heldout[name].tolist()))
        for value in values if len(values) <= MAX_VALUES else ():
            inside = heldout[name] == value
            if inside.sum() >= MIN_SLICE:
                points[f"final/slice/{slug(name.removeprefix(SLICE))}/{slug(value)}"] = float(right[inside].mean())
    return points


def meta_columns(pairs: Sequence[PreferencePair], *names: str) -> dict[str, Array]:
    """Columns of what the pairs' `meta` says under `names`, each only where every pair has it."""
    return {
        name: np.array([pair.meta[name] for pair in pairs], dtype=np.int64 if name == "row" else object)
        for name in names
        if pairs and all(name in pair.meta for pair in pairs)
    }


def commit_run(
    run: PackRun,
    samples: Mapping[str, np.ndarray] | None,
    status: RunStatus,
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
            **run.all_columns(record),
        }
        for record in run.records
    ]
    examples = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    for name in ("chosen_len", "rejected_len"):
        examples[name] = examples[name].astype(np.int32)
    write_table(run.folder / "examples.parquet", examples)
    if not run.is_reward_model:  # it ranks by scores, and has no margin of a policy to be wrong by
        texts = {Split.HELDOUT: run.encoded.inputs.evals[Split.HELDOUT], Split.TRAIN_OBSERVED: run.data.pairs}
        by_id: dict[str, dict[str, PreferencePair]] = {
            split: {pair.id: pair for pair in pairs} for split, pairs in texts.items()
        }
        write_table(run.folder / "worst.parquet", worst_pairs(examples, by_id))
    if samples is not None:
        write_table(run.folder / "samples.parquet", samples)
    results = run.results(examples, samples)
    if run.data.ledger is not None:
        write_ledger(run.data.ledger, run.folder / "ledger.parquet")
        if run.run.corruption.rate is None:
            results["rate"] = run.data.ledger.attrs["manifest"]["rate_realised"]
    steps = run.lane.training.steps
    final = {f"final/{name}": value for name, value in results.items() if value is not None}
    sliced = {} if run.is_reward_model else slice_points(where(examples, steps, Split.HELDOUT))
    run.journal.append({"kind": "metrics", "step": steps, **final, **sliced})
    end = {"kind": "end", "status": status} | ({"diverged_step": diverged_at} if diverged_at >= 0 else {})
    run.journal.append(end)
    run.journal.sync()
    run.journal.close()
    write_json(run.folder / "provenance.json", provenance(run))
    commit(run.folder, run_result(run.planned, run.folder, status, steps, costs, t0_ms, results))


def commit_stopped(
    task: PackTask, runs: Sequence[PackRun], steps: Mapping[str, int], seconds: float, t0_ms: int
) -> None:
    """Commit runs that were stopped after `steps` updates of each; the next command continues from there."""
    costs = {"seconds": seconds / len(runs), "pack": task.number}
    for run in runs:
        run.journal.append({"kind": "end", "status": RunStatus.STOPPED})
        run.journal.sync()
        run.journal.close()
        commit(run.folder, run_result(run.planned, run.folder, RunStatus.STOPPED, steps[run.key], costs, t0_ms))
