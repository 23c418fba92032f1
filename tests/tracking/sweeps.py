"""Small sweep folders with committed runs and known journals, for the tests of the projection to MLflow."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.identity import content_hash
from harness.storage.atomic import write_json
from harness.storage.journal import Journal
from harness.storage.runs import RESULT, commit, open_run

STEPS = (0, 5, 20)
T0 = 1_700_000_000_000


def config(objective: str, beta: float, rate: float, seed: int, misaligned: float = 0.75) -> dict[str, Any]:
    """A run's plain config with what the projection reads."""
    return {
        "objective": {"name": objective, "hyperparameters": [["beta", beta]]},
        "corruption": {"kind": "uniform_flip" if rate else "none", "rate": rate or None, "params": []},
        "training": {"steps": STEPS[-1], "learning_rate": 0.001},
        "evaluation": {"checkpoints": len(STEPS)},
        "seed": seed,
        "replica": 0,
        "world": {"kind": "mythworld", "misaligned": misaligned, "labels": "hard"},
        "data": None,
        "model": None,
        "device": "cpu",
    }


CHECKPOINT = (
    *("loss", "eval_loss", "rewards/margins", "geometry/ranking_accuracy", "geometry/undesirable_zone"),
    *("geometry/delta", "geometry/delta_ref", "geometry/gain", "geometry/zone_z1", "geometry/zone_z4"),
    *("geometry/chosen_displacement", "geometry/rejected_displacement", "geometry/both_down"),
    *("geometry/reward_accuracy", "geometry/ood_ranking_accuracy"),
)
FINAL = ("ranking_accuracy", "undesirable_zone", "train_loss_last", "gold_reward", "kl", "ood_ranking_accuracy")
POINTS = len(STEPS) * len(CHECKPOINT) + len(FINAL)  # of one run


def points(seed: int) -> list[dict[str, float]]:
    """The metrics records of one run: a point a name and checkpoint, some names at the end. All are names of ours."""
    draw = np.random.default_rng(seed).random
    records = [{"step": step, **{name: float(draw()) for name in CHECKPOINT}} for step in STEPS]
    return [*records, {"step": STEPS[-1], **{f"final/{name}": float(draw()) for name in FINAL}}]


def commit_run(sweep: Path, run: dict[str, Any], seed: int, status: str = "done", t0: int = T0) -> Path:
    """A committed run folder of one plan entry."""
    folder, _ = open_run(sweep, run["run_key"], run["name"])
    (folder / RESULT).unlink(missing_ok=True)
    journal = Journal(folder / "events.jsonl")
    journal.append({"kind": "start", "run_key": run["run_key"], "t0_ms": t0})
    for record in points(seed):
        journal.append({"kind": "metrics", **record})
    journal.append({"kind": "end", "status": status})
    journal.close()
    write_json(folder / "provenance.json", {"data": {"sha256": content_hash(seed), "pairs": 10, "corrupted": 2}})
    result = {"run_key": run["run_key"], "status": status, "steps": STEPS[-1], "results": {}, "name": folder.name}
    commit(folder, {**result, "costs": {"seconds": 1.5}, "config": run["config"], "t0_ms": t0})
    return folder


def make_sweep(
    out: Path,
    name: str = "tiny",
    objectives: Sequence[str] = ("dpo", "ipo"),
    rates: Sequence[float] = (0.0, 0.4),
    seeds: int = 1,
) -> Path:
    """A sweep folder with plan, committed runs and a report."""
    sweep = out / name
    (sweep / "report").mkdir(parents=True)
    (sweep / "report" / "index.html").write_text("<p>report</p>", encoding="utf-8")
    runs = []
    for number, (objective, rate, seed) in enumerate(
        (o, r, s) for o in objectives for r in rates for s in range(seeds)
    ):
        plan_run = config(objective, 0.5, rate, seed)
        key = content_hash(plan_run)
        runs.append({"run_key": key, "name": f"{objective} b=0.5 r={rate} s{seed}", "config": plan_run})
        commit_run(sweep, runs[-1], number)
    write_plan(sweep, runs)
    return sweep


def write_plan(sweep: Path, runs: Sequence[dict[str, Any]]) -> None:
    """`plan.json` of these runs."""
    plan = {"name": sweep.name, "question": "Which one?", "notes": [], "runs": list(runs)}
    (sweep / "plan.json").write_text(json.dumps(plan), encoding="utf-8")


def read_runs(sweep: Path) -> list[dict[str, Any]]:
    """The runs of `plan.json`."""
    runs: list[dict[str, Any]] = json.loads((sweep / "plan.json").read_text(encoding="utf-8"))["runs"]
    return runs
