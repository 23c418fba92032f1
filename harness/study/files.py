"""The files of a study beside its runs: `sweep.yaml`, `plan.json`, `study.json`, `scores.parquet`. Imports no optuna.

All are derived from the ledger and the runs' records and can be written again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from harness.config.search_space import Arm
from harness.config.study import StudySpec
from harness.config.study_targets import CLEAN, DOWNSTREAM, TEST
from harness.data.splits import data_notes
from harness.identity import plain, run_key
from harness.metrics import METRICS
from harness.storage.atomic import write_atomic, write_json
from harness.storage.runs import write_table
from harness.study.scores import Scorer
from harness.study.trials import COMPLETE, Ledger, Trial, winners
from harness.text import without_credentials
from harness.types import PlannedRun

STUDY = "study.json"
SEARCH, FRESH = "search", "fresh"


@dataclass(frozen=True, slots=True)
class TrialRun(PlannedRun):
    """A run of a trial: `role` is search (one of its seeds) or fresh (a winner run again)."""

    trial: Trial
    role: str


def trial_runs(spec: StudySpec, trials: Iterable[Trial], seeds: Sequence[int], role: str) -> list[TrialRun]:
    """The runs of some trials, seeds innermost."""
    arms = {arm.label: arm for arm in spec.arms}
    runs = []
    for trial in trials:
        params = " ".join(f"{_short(name)}={_number(value)}" for name, value in trial.params.items())
        for seed in seeds:
            run = spec.run(arms[trial.arm], trial.params, seed)
            name = f"{trial.arm} t{trial.number} {params} s{seed}"
            runs.append(TrialRun(run_key(run), name, run, trial, role))
    return runs


def _short(name: str) -> str:
    return {"beta": "b", "training.learning_rate": "lr"}.get(name, name.removeprefix("training."))


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def search_seeds(spec: StudySpec, trial: Trial) -> tuple[int, ...]:
    """The seeds a trial was trained on: all, or those before it was pruned."""
    return spec.seeds[: len(trial.intermediate)] if trial.state == "PRUNED" else spec.seeds


def all_runs(spec: StudySpec, ledger: Ledger) -> list[TrialRun]:
    """Every run of the study until now: trials in arm and number order, then the winners on fresh seeds."""
    runs: list[TrialRun] = []
    for arm in spec.arms:
        for trial in ledger.of(arm.label):
            runs += trial_runs(spec, [trial], search_seeds(spec, trial), SEARCH)
    return runs + fresh_runs(spec, ledger)


def fresh_runs(spec: StudySpec, ledger: Ledger) -> list[TrialRun]:
    """The winners' runs on fresh seeds, once every trial of the study is finished; none before."""
    if ledger.open():
        return []
    directions = [target.direction for target in spec.targets]
    runs: list[TrialRun] = []
    for arm in spec.arms:
        runs += trial_runs(spec, winners(ledger.of(arm.label), directions), spec.fresh_seeds, FRESH)
    return runs


def write_study_plan(folder: Path, spec: StudySpec, runs: Sequence[TrialRun]) -> None:
    """`sweep.yaml` (the resolved study) and `plan.json`, each run with its tags; runs that two trials share once.

    User name and password of a storage are in no file.
    """
    resolved = dict(spec.resolved)
    if resolved.get("storage"):
        resolved["storage"] = without_credentials(resolved["storage"])
    text = yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True)
    write_atomic(folder / "sweep.yaml", text.encode("utf-8"))
    once: dict[str, dict[str, Any]] = {}
    for item in runs:
        tags = {
            "optuna.study": f"{spec.name}.{item.trial.arm}",
            "optuna.trial": str(item.trial.number),
            "optuna.state": item.trial.state,
            "harness.role": item.role,
        }
        entry = {"run_key": item.key, "name": item.name, "config": plain(item.run), "tags": tags}
        once.setdefault(item.key, entry)
    notes = list(data_notes([item.run for item in runs]))
    head = {"name": spec.name, "question": spec.question, "notes": notes, "report": plain(spec.report)}
    write_json(folder / "plan.json", {**head, "runs": list(once.values())})


def write_study(
    folder: Path,
    spec: StudySpec,
    ledger: Ledger,
    runs: Sequence[TrialRun],
    importance: Mapping[str, Mapping[str, float]],
    observed: str,
) -> None:
    """`study.json`: settings, trials and their runs. `observed`: why there are no noisy validation labels."""
    keys: dict[tuple[str, int, str], list[str]] = {}
    for item in runs:
        keys.setdefault((item.trial.arm, item.trial.number, item.role), []).append(item.key)
    directions = [target.direction for target in spec.targets]
    winning = {(t.arm, t.number) for arm in spec.arms for t in winners(ledger.of(arm.label), directions)}
    trials = [
        {
            **{name: value for name, value in plain(trial).items() if name != "attrs"},
            "winner": (trial.arm, trial.number) in winning,
            "runs": keys.get((trial.arm, trial.number, SEARCH), []),
            "fresh": keys.get((trial.arm, trial.number, FRESH), []),
        }
        for arm in spec.arms
        for trial in ledger.of(arm.label)
    ]
    settings = {
        name: spec.resolved[name]
        for name in ("seeds", "fresh_seeds", "round", "sampler", "sampler_seeds", "pruner", "budget")
    }
    write_json(
        folder / STUDY,
        {
            "name": spec.name,
            "question": spec.question,
            "key": spec.key,
            "plugins": {
                f"measure {one.measure}": plugin for one in spec.wanted if (plugin := METRICS.plugin(one.measure))
            },
            **settings,
            "targets": plain(spec.targets),
            "constraints": [{**plain(bound), "name": bound.name} for bound in spec.constraints],
            "report_split": report_split(spec),
            "observed": observed,
            "arms": [_arm(arm) for arm in spec.arms],
            "importance": {label: dict(values) for label, values in importance.items()},
            "trials": trials,
        },
    )


def _arm(arm: Arm) -> dict[str, Any]:
    described = {"label": arm.label, "objective": arm.objective}
    return {**described, "fixed": plain(arm.fixed), "space": plain(arm.space)}


def report_split(spec: StudySpec) -> str:
    """The half of the held-out pairs that no target or constraint uses: test, or validation where test is used."""
    if spec.targets[0].split == DOWNSTREAM:
        return DOWNSTREAM  # a benchmark has no half that steered nothing: only the seeds are fresh
    return CLEAN if any(t.split == TEST for t in spec.wanted) else TEST


def write_scores(folder: Path, runs: Sequence[TrialRun], scorer: Scorer) -> None:
    """`scores.parquet`: run key, step, split, measure, value (NaN where not finite), items behind it."""
    once = {item.key: item.run.objective.beta for item in runs}
    rows = [score for key, beta in once.items() for score in scorer.scores(key, beta)]
    columns = {
        "run_key": np.array([row.run_key for row in rows], dtype=object),
        "step": np.array([row.step for row in rows], dtype=np.int32),
        "split": np.array([row.split for row in rows], dtype=object),
        "measure": np.array([row.measure for row in rows], dtype=object),
        "value": np.array([np.nan if row.value is None else row.value for row in rows], dtype=np.float64),
        "items": np.array([row.items for row in rows], dtype=np.int32),
    }
    write_table(folder / "scores.parquet", columns)


def counts(trials: Iterable[Trial]) -> str:
    """`28 complete, 1 pruned, 1 failed` of some trials."""
    states = [trial.state for trial in trials]
    named = [(COMPLETE, "complete"), ("PRUNED", "pruned"), ("FAIL", "failed")]
    return ", ".join(
        f"{states.count(state)} {word}" for state, word in named if states.count(state) or state == COMPLETE
    )
