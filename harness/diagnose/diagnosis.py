"""A table of log-probs to a diagnosis: per policy its estimates, charts, slices, trajectory, memory and verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from harness.diagnose.measures import (
    PROMPT,
    Comparison,
    Fall,
    Memorisation,
    Slice,
    comparisons,
    estimates,
    every_metric,
    fall_since,
    length_terciles,
    memorisation,
    slices,
    usual_charts,
)
from harness.diagnose.verdict import Verdict, evidence, verdict
from harness.metrics.margin_columns import TIE_TOL
from harness.metrics.records import Bools, Columns, select, size
from harness.metrics.rewardbench import BenchScore, bench_scores
from harness.metrics.slices import MAX_VALUES
from harness.metrics.statistics import Estimate
from harness.storage.logps_file import REFERENCE, LogpsTable
from harness.text import suggestion
from harness.types import InputError

TRAIN = "train"  # how the split of a training pair begins; every other split is held out
LENGTH = "length"
LOW_PRECISION_TIE = 0.05  # nats


@dataclass(frozen=True, slots=True)
class Labels:
    """What a ledger says of the pairs that a corruption touched: -1 for a wrong label, 0 for other damage.

    By the row of the corrupted file where ledger and pairs know it, else by id.
    """

    by_id: Mapping[str, int]
    by_row: Mapping[int, int]

    def of(self, name: str, row: int) -> int | None:
        """The label of one pair of the corrupted set; None where it was not touched."""
        return self.by_row.get(row) if self.by_row and row > 0 else self.by_id.get(name)


@dataclass(frozen=True, slots=True)
class Point:
    """One checkpoint of a trajectory."""

    step: int
    estimates: Mapping[str, Estimate]
    charts: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class PolicyDiagnosis:
    """One policy at its last step. `columns` are its held-out pairs; `trajectory` has one point per step."""

    name: str
    step: int | None
    columns: Columns
    estimates: Mapping[str, Estimate]
    metrics: Mapping[str, float]
    charts: Mapping[str, float]
    slices: tuple[Slice, ...]
    trajectory: tuple[Point, ...]
    fall: Fall | None
    memorised: Memorisation | None
    verdict: Verdict
    rewardbench: Mapping[str, BenchScore]


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """Everything that is said of the policies of one table."""

    pairs: int
    prompts: int
    beta: float | None
    referenced: bool
    policies: tuple[PolicyDiagnosis, ...]
    comparisons: tuple[Comparison, ...]
    not_looked_at: tuple[str, ...]
    meta: Mapping[str, Any]


def diagnose(
    table: LogpsTable,
    beta: float | None = None,
    slice_names: Sequence[str] | None = None,
    ledger: Labels | None = None,
) -> Diagnosis:
    """The diagnosis of every policy of a table.

    `beta` stands for what the table says of it. `slice_names` are columns of it, or `length`; None: those it has,
    length, and the splits where several are held out. `ledger` is that of the training pairs, or where there are none
    of the pairs themselves: held-out measures then leave out what it touched. Raises InputError for slices that no
    column has and where no pair is held out.
    """
    beta = table.meta.get("beta") if beta is None else beta
    tie_tol = LOW_PRECISION_TIE if table.meta.get("dtype") in ("bfloat16", "float16") else TIE_TOL
    columns = dict(table.columns)
    if not table.referenced:
        columns |= {name: np.zeros(len(table)) for name in REFERENCE}
    trained = np.array([split.startswith(TRAIN) for split in columns["split"]], dtype=bool)
    touched, wrong_label = _labelled(ledger, columns, trained if trained.any() else ~trained)
    if not (~trained & ~touched).any():
        raise InputError("no held-out pair: every row's split is train, or the ledger touched it; add pairs to measure")
    columns[LENGTH] = columns[LENGTH] if LENGTH in columns else length_terciles(columns)
    names = _slice_names(table, columns, slice_names)
    beside = touched & ~trained if not trained.any() else trained
    wrong = wrong_label | (trained & (np.nan_to_num(columns["gold_margin"]) < 0))
    found = []
    last: dict[str, Columns] = {}
    for name in dict.fromkeys(columns["policy"].tolist()):
        mine = columns["policy"] == name
        steps = sorted(set(columns["step"][mine & ~trained].tolist()))
        by_step = {step: select(columns, mine & ~trained & ~touched & (columns["step"] == step)) for step in steps}
        memory = mine & beside & (columns["step"] == steps[-1])
        last[name] = by_step[steps[-1]]
        one = _one(name, by_step, select(columns, memory), wrong[memory], beta, names, table.referenced, tie_tol)
        found.append(one)
    return Diagnosis(
        size(found[0].columns),
        len(set(found[0].columns[PROMPT].tolist())),
        beta,
        table.referenced,
        tuple(found),
        comparisons(last, beta, table.referenced, tie_tol),
        _not_looked_at(found, beta, table.referenced, ledger is not None),
        table.meta,
    )


def _labelled(ledger: Labels | None, columns: Columns, corrupted: Bools) -> tuple[Bools, Bools]:
    """Which pairs the ledger touched and which of them have a wrong label, among those of the `corrupted` set (n,)."""
    touched, wrong = np.zeros(corrupted.size, dtype=bool), np.zeros(corrupted.size, dtype=bool)
    if ledger is None:
        return touched, wrong
    for at in np.flatnonzero(corrupted):
        label = ledger.of(columns["id"][at], int(columns["row"][at]))
        touched[at], wrong[at] = label is not None, label is not None and label < 0
    if not touched.any():
        raise InputError("--ledger: names none of these pairs; expected the ledger of the set that they come from")
    return touched, wrong


def _slice_names(table: LogpsTable, columns: Columns, asked: Sequence[str] | None) -> list[str]:
    if asked is None:
        held_out = {split for split in columns["split"] if not split.startswith(TRAIN)}
        few = [name for name in table.slices if 1 < len(set(columns[name].tolist())) <= MAX_VALUES]
        return [*dict.fromkeys([*few, LENGTH]), *(["split"] if len(held_out) > 1 else [])]
    known = [*table.slices, LENGTH, "split"]
    if lost := [name for name in asked if name not in known]:
        near = suggestion(lost[0], known)
        raise InputError(f"--slices: no column {', '.join(lost)}{near}; expected some of {', '.join(known)}")
    return list(asked)


def _one(
    name: str, by_step: Mapping[int, Columns], train: Columns, wrong: Bools, beta: float | None,
    slice_names: Sequence[str], referenced: bool, tie_tol: float,
) -> PolicyDiagnosis:  # fmt: skip
    """One policy from its held-out pairs at each step and, at the last, the pairs it may have memorised."""
    *earlier, last = by_step
    columns = by_step[last]
    points = tuple(
        Point(step, estimates(part, beta, referenced, tie_tol), usual_charts(part, beta, referenced))
        for step, part in by_step.items()
    )
    measured = points[-1].estimates
    fall = fall_since({step: by_step[step] for step in earlier}, columns)
    memory = memorisation(train, wrong, measured["ranking_accuracy"], referenced, tie_tol) if size(train) else None
    facts = evidence(columns, measured, beta, referenced, tie_tol, memory, fall)
    return PolicyDiagnosis(
        name,
        last if last >= 0 else None,
        columns,
        measured,
        every_metric(columns, beta, referenced, tie_tol),
        points[-1].charts,
        slices(columns, slice_names, referenced, tie_tol),
        points if len(points) > 1 else (),
        fall,
        memory,
        verdict(facts),
        bench_scores(columns, referenced),
    )


def _not_looked_at(
    policies: Sequence[PolicyDiagnosis], beta: float | None, referenced: bool, ledger: bool
) -> tuple[str, ...]:
    """What this diagnosis cannot know, a sentence each."""
    said = ["Free answers: quality, length, refusals and repetition of what the policy writes, and its KL."]
    if len(policies) < 2:
        said.append("Other seeds: one checkpoint says nothing of how much another seed of its method would differ.")
    else:
        said.append("Seeds: a difference between two checkpoints is no difference between their methods.")
    if not referenced:
        said.append("Training: without a reference only the policy's own ranking is known.")
    if beta is None:
        said.append("Rewards and the loss: no beta was given (--beta).")
    if all(one.memorised is None for one in policies):
        said.append("Training pairs: whether they are memorised (--train-data).")
    elif not ledger and all(one.memorised is None or not one.memorised.wrong for one in policies):
        said.append("Wrong labels among the training pairs: none is known (--ledger).")
    if not any(one.trajectory for one in policies):
        said.append("The way there: one checkpoint of each policy (--policy 'out/checkpoint-*').")
    return tuple(said)


def plain(found: Diagnosis) -> dict[str, Any]:
    """Every number of a diagnosis, as `diagnosis.json` holds it."""
    return {
        "pairs": found.pairs,
        "prompts": found.prompts,
        "beta": found.beta,
        "reference": found.referenced,
        "policies": [_plain_policy(one) for one in found.policies],
        "comparisons": [
            {"first": c.first, "second": c.second, "measure": c.measure, "difference": interval(c.difference),
             "p_corrected": c.p, "different": c.different}
            for c in found.comparisons
        ],
        "not_looked_at": list(found.not_looked_at),
        "scored": dict(found.meta),
    }  # fmt: skip


def interval(value: Estimate | None) -> dict[str, float | None] | None:
    """An estimate as JSON: null where a number is not known."""
    if value is None:
        return None
    return {
        name: number if math.isfinite(number) else None
        for name, number in (("estimate", value.mean), ("low", value.low), ("high", value.high))
    }


MAIN = (
    "ranking_accuracy", "reference_ranking_accuracy", "reward_accuracy", "undesirable_zone", "chosen_displacement",
    "rejected_displacement", "reward_margin",
)  # fmt: skip


def _plain_policy(one: PolicyDiagnosis) -> dict[str, Any]:
    return {
        "name": one.name,
        "step": one.step,
        "n": size(one.columns),
        **{name: interval(one.estimates.get(name)) for name in MAIN},
        "verdict": {
            "kind": one.verdict.kind,
            "text": one.verdict.text,
            "advice": one.verdict.advice,
            "what": one.verdict.what,
            "interval": interval(one.verdict.interval),
        },
        "rewardbench": {name: asdict(score) for name, score in one.rewardbench.items()},
        "usual_charts": dict(one.charts),
        "metrics": dict(one.metrics),
        "slices": [
            {"column": s.column, "value": s.value, "n": s.n, "prompts": s.prompts,
             **{name: interval(value) for name, value in s.estimates.items()},
             "change": s.change, "change_elsewhere": s.rest if math.isfinite(s.rest) else None,
             "p_fell": s.p_fell, "p_behind": s.p_behind, "named": s.named}
            for s in one.slices
        ],
        "trajectory": [
            {"step": p.step, **{name: interval(p.estimates.get(name)) for name in MAIN}, "usual_charts": dict(p.charts)}
            for p in one.trajectory
        ],
        "fall": None if one.fall is None else {"since": one.fall.step, "by": one.fall.fall, "p_corrected": one.fall.p},
        "memorisation": None if one.memorised is None else {
            "n": one.memorised.n,
            "ranking_accuracy": interval(one.memorised.ranking_accuracy),
            "reward_accuracy": interval(one.memorised.reward_accuracy),
            "gap": interval(one.memorised.gap),
            "wrong_labels": one.memorised.wrong,
            "followed": interval(one.memorised.followed),
            "rise": interval(one.memorised.rise),
        },
    }  # fmt: skip
