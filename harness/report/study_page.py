"""`write_study_report`: tables, figures and one self-contained page of a study, from the files of its folder alone."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.names import content_hash
from harness.report.study_figures import SHORT, pictures
from harness.report.study_findings import TunedDifference, rescue_sentence, selections, tuned_differences
from harness.report.study_reading import Study, StudyTrial, read_study
from harness.report.tables import csv_bytes, write_run_tables
from harness.report.text import estimate, number, plain, quantity, visible
from harness.tracking.store import write_atomic

TEMPLATES = Path(__file__).parent / "templates"
TOP = 3  # trials shown per objective beside the winner


@dataclass(frozen=True, slots=True)
class StudyTable:
    """A table of texts; the first column heads its rows."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def write_study_report(folder: Path) -> Path:
    """Writes `results.csv`, `costs.csv`, `trials.csv` and `report/` (page, figures, CSV tables); the page's path.

    The bytes depend on the folder's files only. Raises InputError where it holds no study.
    """
    study = read_study(Path(folder))
    write_run_tables(study.sweep)
    differences = tuned_differences(study)
    place = study.folder / "report"
    (place / "figures").mkdir(parents=True, exist_ok=True)
    write_atomic(study.folder / "trials.csv", trials_csv(study))
    write_atomic(place / "tuned.csv", tuned_csv(study, differences))
    write_atomic(place / "selection.csv", selection_csv(study))
    drawn = pictures(study)
    for old in (place / "figures").glob("*.svg"):
        if old.stem not in {picture.name for picture in drawn}:
            old.unlink()
    for picture in drawn:
        write_atomic(place / "figures" / f"{picture.name}.svg", picture.svg)
    embedded = [{"picture": p, "data": base64.b64encode(p.svg).decode("ascii")} for p in drawn]
    page = {
        "name": visible(study.about["name"]),
        "question": visible(study.about["question"]) or "Which settings are best?",
        "answer": rescue_sentence(study, differences),
        "status": status(study),
        "winners": winners_table(study),
        "differences": difference_table(study, differences),
        "regret": regret_table(study),
        "costs": cost_table(study),
        "best": best_table(study),
        "pictures": embedded,
        "methods": methods(study),
        "provenance": provenance(study),
    }
    write_atomic(place / "index.html", _render(page))
    return place / "index.html"


def _render(page: dict[str, Any]) -> bytes:
    """The page; autoescape is on for every value."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))  # noqa: S704 - our own, not data
    return environment.get_template("study.html").render(page=page, style=style).encode("utf-8")


def status(study: Study) -> str:
    """Trials by outcome, runs, seeds."""
    states = [trial.state for trial in study.trials]
    named = (("COMPLETE", "complete"), ("PRUNED", "pruned"), ("FAIL", "failed"), ("RUNNING", "not finished"))
    told = ", ".join(f"{states.count(state)} {word}" for state, word in named if states.count(state))
    seeds, fresh = len(study.about["seeds"]), len(study.about["fresh_seeds"])
    return f"{quantity(len(states), 'trial')} ({told}) of {seeds} seeds each; winners on {fresh} fresh seeds."


def shown_params(trial: StudyTrial) -> str:
    """`beta 0.83, learning rate 0.0004`."""

    def text(value: Any) -> str:
        return plain(value) if isinstance(value, int | float) and not isinstance(value, bool) else visible(value)

    return ", ".join(f"{SHORT.get(name, name)} {text(value)}" for name, value in trial.params.items())


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
                    arm, f"{shown_params(trial)} (trial {trial.number})", number(trial.values[0]),
                    estimate(same.mean, same.low, same.high), number(fall),
                    estimate(held.mean, held.low, held.high), str(held.n),
                )
            )  # fmt: skip
    split, test = _words(study.split), _words(study.report_split)
    return StudyTable(
        f"The winners: {study.measure}",
        ("objective", "settings", f"search score ({split})", f"fresh seeds ({split})", "fall",
         f"fresh seeds ({test})", "fresh seeds"),
        tuple(rows),
        "The search score is the best of many and so is partly luck; the re-run on fresh seeds is not. The fall is how "
        "much of it did not come back. Compare objectives by the last interval only.",
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


def methods(study: Study) -> tuple[str, ...]:
    """How to read the numbers."""
    about = study.about
    targets = "; ".join(f"{t['direction']} {t['measure']} on {t['split']}" for t in about["targets"])
    bounds = "; ".join(bound["name"] for bound in about["constraints"])
    sampler, pruner = about["sampler"], about["pruner"]
    lines = [
        f"Target: {targets}{f', under {bounds}' if bounds else ''}. A trial's score is the mean over its "
        f"{len(about['seeds'])} seeds; without a finite value on every seed it fails, and nothing takes its place.",
        f"Search: {sampler['kind']}, seed {sampler['seed']}, {about['round']} trials of each objective asked at once; "
        f"pruner: {pruner['kind']}. Each objective has a search of its own and the same budget.",
        "Held-out pairs are cut in two by a hash of their prompt: validation steers the search, test is reported; no "
        "prompt is in both. Fresh seeds draw another world, other pairs, labels and order.",
        "Intervals over fresh seeds are Student's t, for shares never narrower than the pairs of one seed allow; "
        "differences are paired by seed, and corrected over all comparisons with the baseline.",
    ]
    fixed = {run.condition for run in study.sweep.runs}
    world = study.sweep.runs[0]
    setting = [f"corruption {world.corruption_text}"]
    setting += [] if world.misaligned is None else [f"misaligned {plain(world.misaligned)}"]
    setting += [f"{world.planned_steps} steps"] if len(fixed) else []
    return (*lines, f"Fixed in every run: {visible(', '.join(setting))}.")


def provenance(study: Study) -> tuple[str, ...]:
    """What the page was drawn from."""
    keys = sorted(run.key for run in study.sweep.runs)
    outcomes = [[t.arm, t.number, t.state, list(t.values)] for t in study.trials]
    return (
        f"Study {str(study.about['key'])[:16]}; {quantity(len(keys), 'run key')}, digest {content_hash(keys)[:16]}; "
        f"trials and outcomes {content_hash(outcomes)[:16]}.",
        "Beside this page: trials.csv, results.csv, costs.csv, tuned.csv, selection.csv; optuna.db holds the same "
        "trials for Optuna's own tools. Every run's folder holds its journal, records, provenance and result.",
    )


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
