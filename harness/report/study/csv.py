"""The CSV tables of a study: its trials, tuned against tuned, and what selection picks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.report.data.tables import csv_bytes
from harness.report.study.findings import TunedDifference, selections
from harness.report.study.study import Study


def trials_csv(study: Study) -> bytes:
    """A row per trial, in arm and number order."""
    names = sorted({name for trial in study.trials for name in trial.params})
    targets = [f"{t['measure']}.{t['split']}" for t in study.about["targets"]]
    bounds = [f"excess.{bound['measure']}.{bound['split']}" for bound in study.about["constraints"]]
    columns = ("study", "trial", "state", *targets, *bounds, *names, "winner", "runs", "tokens", "seconds", "reason")
    rows = []
    for trial in study.trials:
        runs, tokens, seconds = study.cost(trial.runs)
        row: dict[str, Any] = {"study": trial.arm, "trial": trial.number, "state": trial.state, "winner": trial.winner}
        row |= dict(zip(targets, trial.values, strict=False)) | dict(zip(bounds, trial.excess, strict=False))
        row |= {"runs": runs, "tokens": tokens, "seconds": seconds, "reason": trial.reason}
        rows.append({**{name: trial.params.get(name) for name in names}, **row})
    return csv_bytes(columns, rows)


def tuned_csv(study: Study, differences: Sequence[TunedDifference]) -> bytes:
    """The tuned baseline minus each rival."""
    columns = ("objective", "against", "measure", "split", "n", "difference", "low", "high", "corrected_low",
               "corrected_high", "p_corrected", "verdict")  # fmt: skip
    rows = [
        {
            "objective": d.one, "against": d.other, "measure": study.measure, "split": study.report_split,
            "n": d.plain.n, "difference": d.plain.mean, "low": d.plain.low, "high": d.plain.high,
            "corrected_low": d.corrected.low, "corrected_high": d.corrected.high, "p_corrected": d.p,
            "verdict": d.word,
        }
        for d in differences
    ]  # fmt: skip
    return csv_bytes(columns, rows)


def selection_csv(study: Study) -> bytes:
    """What each selection rule picks and costs."""
    columns = ("objective", "rule", "trial", "step", "seen", "test", "regret")
    rows = [
        {"objective": s.arm, "rule": s.rule, "trial": s.trial, "step": s.step, "seen": s.seen, "test": s.test,
         "regret": s.regret}
        for arm in study.arms for s in selections(study, arm)
    ]  # fmt: skip
    return csv_bytes(columns, rows)
