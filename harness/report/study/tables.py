"""The tables of a study's page: winners and what they paid, tuned against tuned, selection, budgets, best trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.report.render.text import DASH, estimate, number, plain, visible
from harness.report.study.figures import SHORT
from harness.report.study.findings import TunedDifference, fresh_results, reference_gold, selections
from harness.report.study.study import Study, StudyTrial

TOP = 3  # trials shown per objective beside the winner
EDGE = 0.05  # share of a searched range, within which a winner lies at its edge
# What a ranking may have been bought with, beside the target: names of results.csv.
LABELS = {"kl": "KL (nats)", "ood_ranking_accuracy": "ranking accuracy, OOD"}
PAID = ("ranking_accuracy", "undesirable_zone", "gold_reward", "kl", "ood_ranking_accuracy")


@dataclass(frozen=True, slots=True)
class StudyTable:
    """A table of texts; the first column heads its rows."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def shown_params(trial: StudyTrial) -> str:
    """`beta 0.83, learning rate 0.0004`."""

    def text(value: Any) -> str:
        return plain(value) if isinstance(value, int | float) and not isinstance(value, bool) else visible(value)

    return ", ".join(f"{SHORT.get(name, name)} {text(value)}" for name, value in trial.params.items())


def edges(study: Study, trial: StudyTrial) -> tuple[str, ...]:
    """Settings of a trial within `EDGE` of the end of the range that was searched, on the scale it was searched on."""
    found = []
    for name, axis in study.space(trial.arm).items():
        if "low" not in axis or name not in trial.params:
            continue
        scale = math.log if axis["log"] else float
        low, high, value = (scale(v) for v in (axis["low"], axis["high"], trial.params[name]))
        place = (value - low) / (high - low) if high > low else 0.5
        if min(place, 1 - place) < EDGE:
            found.append(f"{SHORT.get(name, name)} at the {'lower' if place < 0.5 else 'upper'} end of its range")
    return tuple(found)


def paid_table(study: Study) -> StudyTable | None:
    """What the winners are beside the target, on their fresh seeds: the target alone can be bought dearly."""
    rows = []
    for arm in study.arms:
        found = fresh_results(study, arm, PAID)
        if any(e.n for e in found.values()):
            rows.append((arm, *(estimate(e.mean, e.low, e.high) if e.n else DASH for e in found.values())))
    if not rows:
        return None
    note = "All held-out pairs and free answers of the fresh seeds. "
    level = reference_gold(study)
    if level is not None:
        note += f"The reference's own answers have gold reward {number(level)}: a winner below it answers worse. "
    if not study.about["constraints"]:
        note += "Nothing bounded these in the search; a constraint, such as kl at most 3, does."
    header = ("objective", *(LABELS.get(name, name.replace("_", " ")) for name in PAID))
    return StudyTable("What the winners paid", header, tuple(rows), note.strip())


def winners_table(study: Study) -> StudyTable:
    """Search score and re-run score side by side: the difference is the winner's curse."""
    rows = []
    for arm in study.arms:
        for trial in (t for t in study.of(arm) if t.winner):
            same = study.estimate(trial.fresh, study.measure, study.split)
            held = study.estimate(trial.fresh, study.measure, study.report_split)
            fall = trial.values[0] - same.mean
            rows.append(
                (
                    arm, f"{shown_params(trial)} (trial {trial.number})", "; ".join(edges(study, trial)) or "inside",
                    number(trial.values[0]),
                    estimate(same.mean, same.low, same.high), number(fall),
                    estimate(held.mean, held.low, held.high), str(held.n),
                )
            )  # fmt: skip
    split, test = _words(study.split), _words(study.report_split)
    return StudyTable(
        f"The winners: {study.measure}",
        ("objective", "settings", "range", f"search score ({split})", f"fresh seeds ({split})", "fall",
         f"fresh seeds ({test})", "fresh seeds"),
        tuple(rows),
        "The search score is the best of many and so is partly luck; the re-run on fresh seeds is not. The fall is how "
        "much of it did not come back. Compare objectives by the last interval only. A winner at the end of its range "
        "says that the range was too narrow: its objective may do better beyond.",
    )  # fmt: skip


def _words(split: str) -> str:
    return split.replace("validation_", "").replace("clean", "validation").replace("observed", "noisy validation")


def difference_table(study: Study, differences: Sequence[TunedDifference]) -> StudyTable | None:
    """The tuned baseline against every tuned rival."""
    if not differences:
        return None
    rows = tuple(
        (
            f"{d.one} \u2212 {d.other}", str(d.plain.n), estimate(d.plain.mean, d.plain.low, d.plain.high),
            estimate(d.corrected.mean, d.corrected.low, d.corrected.high), number(d.p), number(d.mde), d.word,
        )
        for d in differences
    )  # fmt: skip
    return StudyTable(
        f"Tuned {study.baseline} minus each tuned rival, {study.measure} on {_words(study.report_split)} pairs",
        (
            "difference",
            "fresh seeds",
            "paired 95 % interval",
            "corrected interval",
            "p (Holm)",
            "detectable",
            "verdict",
        ),
        rows,
        f"Paired by seed. The verdict says what tuned {study.baseline} is; it needs 6 seeds and the corrected "
        "interval away from 0. Detectable is the difference found with power 0.8.",
    )


def regret_table(study: Study) -> StudyTable | None:
    """What each selection rule picks and what it costs on test pairs."""
    rows = tuple(
        (s.arm, s.rule, f"trial {s.trial}, step {s.step}", number(s.seen), number(s.test), number(s.regret))
        for arm in study.arms
        for s in selections(study, arm)
    )
    if not rows:
        return None
    note = (
        "Candidates are the checkpoints of all complete trials on the search seeds. Regret is what the pick loses "
        "against the best candidate on test pairs, which nobody can select by: the rule with the least is the one to "
        "use. Noisy validation has labels corrupted like the training labels, which is all a practitioner has."
    )
    if study.about["observed"]:
        note += f" Without noisy validation here: {visible(study.about['observed'])}."
    return StudyTable(
        f"Selection regret, {study.measure}",
        ("objective", "selected by", "picks", "score seen", "score on test", "regret"),
        rows,
        note,
    )


def cost_table(study: Study) -> StudyTable:
    """What each objective's search was given and used."""
    rows = []
    for arm in study.arms:
        trials = study.of(arm)
        runs, tokens, seconds = study.cost([key for trial in trials for key in trial.runs])
        again = study.cost([key for trial in trials for key in trial.fresh])
        states = [trial.state for trial in trials]
        rows.append(
            (
                arm, str(len(trials)), str(states.count("COMPLETE")), str(states.count("PRUNED")),
                str(states.count("FAIL")), str(runs), f"{tokens / 1e6:.2f} M", f"{seconds:.0f} s",
                f"{again[0]} runs, {again[2]:.0f} s",
            )
        )  # fmt: skip
    equal = len({row[1] for row in rows}) == 1
    return StudyTable(
        "Budgets",
        ("objective", "trials", "complete", "pruned", "failed", "runs", "tokens", "core time", "fresh seeds"),
        tuple(rows),
        "Every objective got the same number of trials." if equal else "The budgets are not equal: compare with care.",
    )


def best_table(study: Study) -> StudyTable:
    """The best few trials of every objective, and those that failed."""
    rows = []
    sign = 1.0 if study.maximize else -1.0
    for arm in study.arms:
        able = sorted((t for t in study.of(arm) if t.feasible), key=lambda t: (-sign * t.values[0], t.number))
        for trial in able[:TOP]:
            found = study.estimate(trial.runs, study.measure, study.split)
            rows.append((arm, str(trial.number), shown_params(trial), estimate(found.mean, found.low, found.high), ""))
        rows += [(arm, str(t.number), shown_params(t), "\u2013", visible(t.reason)) for t in study.of(arm)
                 if t.state == "FAIL"]  # fmt: skip
    return StudyTable(
        f"The best trials of the search, {study.measure} on {_words(study.split)} pairs",
        ("objective", "trial", "settings", "mean over search seeds", "why it failed"),
        tuple(rows),
        "Intervals over so few seeds are wide, and the top of a list is there by luck as well.",
    )
