"""The tables of a study: on its page (winners, tuned against tuned, selection, budgets, best trials) and as CSV."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from harness.report.data.tables import csv_bytes
from harness.report.render.blocks import Table, fields
from harness.report.render.text import DASH, number, plain, shown, visible
from harness.report.study.figures import SHORT
from harness.report.study.findings import (
    KL,
    TunedDifference,
    breaches,
    fresh_results,
    kl_bound,
    reference_gold,
    selections,
)
from harness.report.study.study import Study, StudyTrial

TOP = 3  # trials shown per objective beside the winner
EDGE = 0.05  # share of a searched range, within which a winner lies at its edge
# What a ranking may have been bought with, beside the target: names of results.csv.
LABELS = {"kl": "KL (nats)", "ood_ranking_accuracy": "ranking accuracy, OOD", "undesirable_zone": "stuck wrong"}
PAID = ("ranking_accuracy", "undesirable_zone", "gold_reward", "kl", "ood_ranking_accuracy")


def shown_params(trial: StudyTrial, digits: int = 6) -> str:
    """`beta 0.83, learning rate 0.0004`, fractions with at most so many significant digits."""

    def text(value: Any) -> str:
        if isinstance(value, float):
            return plain(float(f"{value:.{digits}g}"))
        return plain(value) if isinstance(value, int) and not isinstance(value, bool) else visible(value)

    return ", ".join(f"{SHORT.get(name, name)} {text(value)}" for name, value in trial.params.items())


def edges(study: Study, trial: StudyTrial) -> tuple[str, ...]:
    """Settings of a trial within `EDGE` of the end of the range that was searched, on the scale it was searched on."""
    out = []
    for name, axis in study.space(trial.arm).items():
        if "low" not in axis or name not in trial.params:
            continue
        scale = math.log if axis["log"] else float
        low, high, value = (scale(v) for v in (axis["low"], axis["high"], trial.params[name]))
        place = (value - low) / (high - low) if high > low else 0.5
        if min(place, 1 - place) < EDGE:
            out.append(f"{SHORT.get(name, name)} at the {'lower' if place < 0.5 else 'upper'} end of its range")
    return tuple(out)


def bound_words(study: Study, name: str) -> str:
    """A bound as a reader says it: `KL at most 3 on validation pairs`."""
    bound = next(one for one in study.about["constraints"] if one["name"] == name)
    upper = bound["at_most"] is not None
    limit = f"at most {plain(bound['at_most'])}" if upper else f"at least {plain(bound['at_least'])}"
    measure = "KL" if bound["measure"] == KL else visible(bound["measure"]).replace("_", " ")
    return f"{measure} {limit} on {visible(_words(bound['split']))} pairs"


def paid_table(study: Study) -> Table | None:
    """What the winners are beside the target, on their fresh seeds: the target alone can be bought dearly."""
    rows = []
    for arm in study.arms:
        results = fresh_results(study, arm, PAID)
        if any(e.n for e in results.values()):
            rows.append(fields(study.called(arm), *(shown(e) if e.n else DASH for e in results.values())))
    if not rows:
        return None
    note = "All held-out pairs and free answers of the fresh seeds. "
    if kl_bound(study) is not None:
        note += "The cards' KL is that over the pairs of the bound, below. "
    level = reference_gold(study)
    if level is not None:
        note += f"The reference's own answers have {study.reward} {number(level)}: a winner below it answers worse. "
    if not study.about["constraints"]:
        note += "Nothing bounded these in the search; a constraint, such as kl at most 3, does."
    labels = LABELS | {"gold_reward": study.reward}
    header = ("objective", *(labels.get(name, name.replace("_", " ")) for name in PAID))
    return Table("What the winners paid", header, tuple(rows), note.strip(), "stack")


def winners_table(study: Study) -> Table:
    """Search score and re-run score side by side: the difference is the winner's curse."""
    rows = []
    for trial in (t for arm in study.arms for t in study.of(arm) if t.winner):
        same = study.estimate(trial.fresh, study.measure, study.split)
        held = study.estimate(trial.fresh, study.measure, study.report_split)
        settings = f"{shown_params(trial)} (trial {trial.number})"
        place = "; ".join(edges(study, trial)) or "inside"
        score = trial.values[0]
        rows.append(
            fields(
                study.called(trial.arm), settings, place, number(score), shown(same), number(score - same.mean),
                shown(held), str(held.n),
            )
        )  # fmt: skip
    split, test = _words(study.split), _words(study.report_split)
    return Table(
        f"The winners: {_target(study)}",
        ("objective", "settings", "range", f"search score ({split})", f"fresh seeds ({split})", "fall",
         f"fresh seeds ({test})", "fresh seeds"),
        tuple(rows),
        "The search score is the best of many and so is partly luck; the re-run on fresh seeds is not. The fall is how "
        "much of it did not come back. Compare objectives by the last interval only. A winner at the end of its range "
        "says that the range was too narrow: its objective may do better beyond.",
        "stack",
    )  # fmt: skip


def bounds_table(study: Study) -> Table | None:
    """What the bounds of the search are worth on fresh seeds."""
    rows = tuple(
        fields(study.called(b.arm), bound_words(study, b.bound), shown(b.fresh), b.word) for b in breaches(study)
    )
    if not rows:
        return None
    note = (
        "In the search the bound holds for the 95 % limit over a trial's seeds, not for its mean alone. Kept: the whole"
        " interval over fresh seeds lies within; broken: its mean lies beyond."
    )
    return Table("Bounds on fresh seeds", ("objective", "bound", "fresh seeds, 95 %", "verdict"), rows, note, "stack")


def _target(study: Study) -> str:
    return study.measure.replace("_", " ")


def _words(split: str) -> str:
    return split.replace("validation_", "").replace("clean", "validation").replace("observed", "noisy validation")


def difference_table(study: Study, differences: Sequence[TunedDifference]) -> Table | None:
    """The tuned baseline against every tuned rival."""
    if not differences:
        return None
    tested = any(d.p is not None for d in differences)  # elsewhere no p-value could be small
    rows = tuple(
        fields(
            f"{d.one} \u2212 {d.other}", str(d.plain.n), shown(d.plain), shown(d.corrected),
            *([number(d.p)] if tested else []), number(d.mde), d.word,
        )
        for d in differences
    )  # fmt: skip
    return Table(
        f"Tuned {study.baseline} minus each tuned rival, {_target(study)} on {_words(study.report_split)} pairs",
        (
            "difference",
            "fresh seeds",
            "paired 95 % interval",
            "corrected interval",
            *(["p (Holm)"] if tested else []),
            "detectable",
            "verdict",
        ),
        rows,
        f"Paired by seed. The verdict says what tuned {study.baseline} is; it needs 6 seeds and the corrected "
        "interval away from 0. Detectable is the difference found with power 0.8.",
        "stack",
    )


def regret_table(study: Study) -> Table | None:
    """What each selection rule picks and what it costs on test pairs."""
    rows = tuple(
        fields(
            study.called(s.arm), s.rule, f"trial {s.trial}, step {s.step}", number(s.seen), number(s.test),
            number(s.regret),
        )
        for arm in study.arms
        for s in selections(study, arm)
    )  # fmt: skip
    if not rows:
        return None
    note = (
        "Candidates are the checkpoints of all complete trials on the search seeds. Regret is what the pick loses "
        "against the best candidate on test pairs, which nobody can select by: the rule with the least is the one to "
        "use. Noisy validation has labels corrupted like the training labels, which is all a practitioner has."
    )
    if study.about["observed"]:
        note += f" Without noisy validation here: {visible(study.about['observed'])}."
    header = ("objective", "selected by", "picks", "score seen", "score on test", "regret")
    return Table(f"Selection regret, {_target(study)}", header, rows, note, "stack")


def cost_table(study: Study) -> Table:
    """What each objective's search was given and used."""
    rows = []
    for arm in study.arms:
        trials = study.of(arm)
        runs, tokens, seconds = study.cost([key for trial in trials for key in trial.runs])
        again = study.cost([key for trial in trials for key in trial.fresh])
        states = [trial.state for trial in trials]
        counts = (len(trials), *(states.count(state) for state in ("COMPLETE", "PRUNED", "FAIL")), runs)
        used = f"{tokens / 1e6:.2f} M", f"{seconds:.0f} s", f"{again[0]} runs, {again[2]:.0f} s"
        rows.append(fields(study.called(arm), *map(str, counts), *used))
    equal = len({len(study.of(arm)) for arm in study.arms}) == 1
    return Table(
        "Budgets",
        ("objective", "trials", "complete", "pruned", "failed", "runs", "tokens", "core time", "fresh seeds"),
        tuple(rows),
        "Every objective got the same number of trials." if equal else "The budgets are not equal: compare with care.",
        "stack",
    )


def best_table(study: Study) -> Table:
    """The best few trials of every objective, and those that failed."""
    rows = []
    sign = 1.0 if study.maximize else -1.0
    for arm in study.arms:
        able = sorted((t for t in study.of(arm) if t.feasible), key=lambda t: (-sign * t.values[0], t.number))
        for trial in able[:TOP]:
            score = study.estimate(trial.runs, study.measure, study.split)
            rows.append(fields(study.called(arm), str(trial.number), shown_params(trial), shown(score), ""))
        failed = [trial for trial in study.of(arm) if trial.state == "FAIL"]
        rows += [fields(study.called(arm), str(t.number), shown_params(t), DASH, visible(t.reason)) for t in failed]
    return Table(
        f"The best trials of the search, {_target(study)} on {_words(study.split)} pairs",
        ("objective", "trial", "settings", "mean over search seeds", "why it failed"),
        tuple(rows),
        "Intervals over so few seeds are wide, and the top of a list is there by luck as well.",
        "stack",
    )


def trials_csv(study: Study) -> bytes:
    """`trials.csv`: a row per trial, in arm and number order."""
    names = sorted({name for trial in study.trials for name in trial.params})
    targets = [f"{t['measure']}.{t['split']}" for t in study.about["targets"]]
    bounds = [f"excess.{bound['measure']}.{bound['split']}" for bound in study.about["constraints"]]
    columns = ("study", "trial", "state", *targets, *bounds, *names, "winner", "runs", "tokens", "seconds", "reason")
    rows = []
    for trial in study.trials:
        runs, tokens, seconds = study.cost(trial.runs)
        row: dict[str, Any] = {name: trial.params.get(name) for name in names}
        row |= {"study": trial.arm, "trial": trial.number, "state": trial.state, "winner": trial.winner}
        row |= dict(zip(targets, trial.values, strict=False)) | dict(zip(bounds, trial.excess, strict=False))
        rows.append(row | {"runs": runs, "tokens": tokens, "seconds": seconds, "reason": trial.reason})
    return csv_bytes(columns, rows)


def tuned_csv(study: Study, differences: Sequence[TunedDifference]) -> bytes:
    """`tuned.csv`: the tuned baseline minus each rival."""
    rows: list[dict[str, Any]] = [
        {
            "objective": d.one, "against": d.other, "measure": study.measure, "split": study.report_split,
            "n": d.plain.n, "difference": d.plain.mean, "low": d.plain.low, "high": d.plain.high,
            "corrected_low": d.corrected.low, "corrected_high": d.corrected.high, "p_corrected": d.p,
            "verdict": d.word,
        }
        for d in differences
    ]  # fmt: skip
    columns = ("objective", "against", "measure", "split", "n", "difference", "low", "high", "corrected_low",
               "corrected_high", "p_corrected", "verdict")  # fmt: skip
    return csv_bytes(columns, rows)


def selection_csv(study: Study) -> bytes:
    """`selection.csv`: what each selection rule picks and costs."""
    columns = ("rule", "trial", "step", "seen", "test", "regret")
    rows = [
        {"objective": s.arm} | {name: getattr(s, name) for name in columns}
        for arm in study.arms
        for s in selections(study, arm)
    ]
    return csv_bytes(("objective", *columns), rows)
