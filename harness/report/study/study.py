"""What a study's folder says: trials with their runs, and every score by run, step, split and measure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.metrics.registry import METRICS
from harness.metrics.statistics import Estimate, cell_estimate
from harness.report.data.sweep import Run, Sweep, read_sweep
from harness.storage.atomic import read_json
from harness.storage.runs import read_table
from harness.types import InputError

BASELINE = "dpo"


@dataclass(frozen=True, slots=True)
class StudyTrial:
    """One trial: `values` are means over the search seeds (empty unless COMPLETE), `excess` how far beyond each bound;
    `runs` its run keys in the order of the seeds, `fresh` those of its re-run where it is a winner."""

    arm: str
    number: int
    params: Mapping[str, Any]
    state: str
    values: tuple[float, ...]
    excess: tuple[float, ...]
    reason: str
    winner: bool
    runs: tuple[str, ...]
    fresh: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether it has values."""
        return self.state == "COMPLETE"

    @property
    def feasible(self) -> bool:
        """Whether it is complete and keeps every bound."""
        return self.complete and all(value <= 0 for value in self.excess)


@dataclass(frozen=True, slots=True)
class Scored:
    """A score of one run at one step and split; `items` pairs or samples stand behind it."""

    step: int
    split: str
    measure: str
    value: float
    items: int


@dataclass(frozen=True, eq=False)
class Study:
    """A study's folder."""

    folder: Path
    about: Mapping[str, Any]  # the content of `study.json`
    trials: tuple[StudyTrial, ...]
    scores: Mapping[str, list[Scored]]  # by run key
    sweep: Sweep
    measure: str  # of the first target
    split: str  # of the first target
    maximize: bool  # whether the first target is better up
    report_split: str  # the half of the held-out pairs that steered nothing

    @property
    def arms(self) -> tuple[str, ...]:
        """Labels of the searched objectives, in spec order."""
        return tuple(arm["label"] for arm in self.about["arms"])

    @property
    def objectives(self) -> dict[str, tuple[str, ...]]:
        """Labels of the searches of each objective, by the label of its first one."""
        found: dict[str, tuple[str, ...]] = {}
        for arm in self.about["arms"]:
            found[arm["objective"]] = (*found.get(arm["objective"], ()), arm["label"])
        return found

    def owner(self, arm: str) -> str:
        """The objective that a search is of, by the label of its first search."""
        return next(str(one["objective"]) for one in self.about["arms"] if one["label"] == arm)

    def called(self, arm: str) -> str:
        """What to call a search: `cpo_smooth search 2 of 3`, or its objective alone where it is the only one."""
        return " ".join(filter(None, (self.owner(arm), self.search(arm))))

    def search(self, arm: str) -> str:
        """`search 2 of 3`: which of its objective's searches, empty where it is the only one."""
        labels = self.objectives[self.owner(arm)]
        return "" if len(labels) == 1 else f"search {labels.index(arm) + 1} of {len(labels)}"

    @property
    def reward(self) -> str:
        """What to call the reward of answers."""
        return self.sweep.reward

    def space(self, arm: str) -> Mapping[str, Mapping[str, Any]]:
        """The axes of an arm by name: `{low, high, log}` or `{values}`."""
        return next(dict(one["space"]) for one in self.about["arms"] if one["label"] == arm)

    def of(self, arm: str) -> tuple[StudyTrial, ...]:
        """The trials of an arm in number order."""
        return tuple(trial for trial in self.trials if trial.arm == arm)

    def winner(self, arm: str) -> StudyTrial | None:
        """The winner in the first target."""
        won = [trial for trial in self.of(arm) if trial.winner and trial.complete]
        sign = 1 if self.maximize else -1
        return max(won, key=lambda trial: (sign * trial.values[0], -trial.number), default=None)

    @property
    def baseline(self) -> str:
        """The arm that others are compared with: dpo, or the first."""
        return BASELINE if BASELINE in self.arms else self.arms[0]

    @cached_property
    def runs(self) -> dict[str, Run]:
        """Planned runs by key."""
        return {run.key: run for run in self.sweep.runs}

    def at(self, key: str, measure: str, split: str) -> dict[int, Scored]:
        """Finite scores of a run by step."""
        scores = [s for s in self.scores.get(key, ()) if (s.measure, s.split) == (measure, split)]
        return {score.step: score for score in scores if math.isfinite(score.value)}

    def last(self, keys: Sequence[str], measure: str, split: str) -> dict[int, Scored]:
        """The last score of each run by seed; runs without one are left out, never put in."""
        out = {}
        for key in keys:
            by_step, run = self.at(key, measure, split), self.runs.get(key)
            if by_step and run is not None:
                out[run.seed] = by_step[max(by_step)]
        return out

    def estimate(self, keys: Sequence[str], measure: str, split: str) -> Estimate:
        """Mean over seeds with its interval (shares of a data set, of which seeds may share pairs: never narrower than
        over the pairs of one seed)."""
        scores = list(self.last(keys, measure, split).values())
        share = measure in METRICS and METRICS[measure].share
        shared = any(run.config.get("world") is None for run in self.sweep.runs)
        return cell_estimate([s.value for s in scores], [s.items for s in scores], share, shared=shared)

    def fresh_scores(self, winner: StudyTrial) -> dict[int, float]:
        """A winner's score by fresh seed, on the pairs that steered nothing."""
        scores = self.last(winner.fresh, self.measure, self.report_split)
        return {seed: score.value for seed, score in scores.items()}

    def by_search(self, objective: str) -> dict[str, dict[int, float]]:
        """Scores by fresh seed of the winner of each search of an objective; searches without a winner are left out."""
        won = {label: self.winner(label) for label in self.objectives[objective]}
        scores = {label: self.fresh_scores(winner) for label, winner in won.items() if winner is not None}
        return {label: by_seed for label, by_seed in scores.items() if by_seed}

    def cost(self, keys: Sequence[str]) -> tuple[int, float, float]:
        """Finished runs, tokens and one-core seconds of some runs, each counted once."""
        results = [self.runs[key].result for key in dict.fromkeys(keys) if key in self.runs]
        costs = [result["costs"] for result in results if result is not None]
        return len(costs), sum(c.get("tokens") or 0 for c in costs), math.fsum(c.get("seconds") or 0 for c in costs)


def read_study(folder: Path) -> Study:
    """The study under `folder`. Raises InputError where there is none or its files do not hold together."""
    path = folder / "study.json"
    if not path.is_file():
        raise InputError(f"{folder}: no study.json here; give the folder of one study, e.g. runs/<study name>")
    about = read_json(path)
    try:
        trials = tuple(_trial(value) for value in about["trials"])
        target, report_split = about["targets"][0], str(about["report_split"])
        table = read_table(folder / "scores.parquet")
        scores: dict[str, list[Scored]] = {}
        columns = (table[n].tolist() for n in ("run_key", "step", "split", "measure", "value", "items"))
        for key, *score in zip(*columns, strict=True):
            scores.setdefault(str(key), []).append(Scored(*score))
    except (KeyError, TypeError, OSError) as problem:
        raise InputError(f"{path}: not a study ({problem!r}); run the study again") from problem
    first = str(target["measure"]), str(target["split"]), target["direction"] == "maximize"
    return Study(folder, about, trials, scores, read_sweep(folder), *first, report_split)


def _trial(value: Mapping[str, Any]) -> StudyTrial:
    return StudyTrial(
        arm=str(value["arm"]),
        number=int(value["number"]),
        params=dict(value["params"]),
        state=str(value["state"]),
        values=tuple(map(float, value["values"])),
        excess=tuple(map(float, value["constraints"])),
        reason=str(value["reason"]),
        winner=bool(value["winner"]),
        runs=tuple(value["runs"]),
        fresh=tuple(value["fresh"]),
    )
