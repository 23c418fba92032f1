"""What alignment gained and what it cost: lm-eval's tasks against the reference each run began as, paired."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from harness.metrics.statistics import (
    NOTHING,
    Estimate,
    assumed_level,
    joint_interval,
    paired_difference,
    paired_differences,
)
from harness.report.data.cells import Cell
from harness.report.data.report_data import ReportData
from harness.report.render.blocks import Content, Field, Lines, Table, fields, present
from harness.report.render.text import DASH, number, quantity, shown, visible
from harness.report.sections.row import Section
from harness.storage.evaluations import Change, Evaluated, read_evaluations
from harness.storage.journal import JournalDamaged

PREFERENCE = "preference"  # the task of a run's own held-out pairs
# The metric that stands for a task, the first of these that it has.
LEADING = ("acc", "exact_match", "exact_match.strict-match", "f1", "prompt_level_strict_acc")
Evaluations = Mapping[str, Mapping[str, Evaluated]]  # run key -> task -> what was evaluated


def benchmarks(data: ReportData) -> Content | None:
    """Preference gain beside the change in every other task, for the cells that were evaluated."""
    evaluations, damaged = _read(data)
    cells = [cell for cell in data.cells if any(run.key in evaluations for run in cell.runs)]
    if not cells:
        return None
    tasks = list(dict.fromkeys(task for by_task in evaluations.values() for task in by_task))
    tasks.sort(key=lambda task: task != PREFERENCE)
    lines = [*_readings(data, cells, tasks, evaluations), *damaged]
    return Content(
        "What did it gain, and what did it cost?",
        "lm-eval's tasks on the final weights. Every change is against the reference that the run began as, on the same"
        " documents; an interval that holds 0 shows no change.",
        present(*(_table(data, cells, task, evaluations) for task in tasks), Lines(tuple(lines))),
        (_made_of(tasks, evaluations),),
        "Tasks, versions, hashes",
    )


def _read(data: ReportData) -> tuple[Evaluations, list[str]]:
    evaluations: dict[str, dict[str, Evaluated]] = {}
    damaged = []
    for run in data.sweep.runs:
        if run.folder is None or not run.done:
            continue
        try:
            by_task = {one.task: one for one in read_evaluations(run.folder)}
        except JournalDamaged:
            damaged.append(f"benchmark results of {run.key[:8]} cannot be read; `harness verify` names them")
            continue
        if by_task:
            evaluations[run.key] = by_task
    return evaluations, damaged


def leading(result: Evaluated) -> str:
    """The metric that stands for a task."""
    return next((name for name in LEADING if name in result.metrics), next(iter(result.metrics)))


def _by_seed(cell: Cell, task: str, evaluations: Evaluations) -> dict[int, Evaluated]:
    return {run.seed: evaluations[run.key][task] for run in cell.runs if task in evaluations.get(run.key, {})}


def change_of(by_seed: Mapping[int, Evaluated], metric: str) -> tuple[Estimate, str]:
    """Mean change of a metric against the reference, and what its interval speaks of: seeds, or documents of one."""
    changes: dict[int, Change] = {seed: one.change[metric] for seed, one in by_seed.items() if metric in one.change}
    if not changes:
        return NOTHING, ""
    if len(changes) == 1:
        (only,) = changes.values()
        return Estimate(1, only.mean, only.low, only.high), "documents"
    after = {seed: by_seed[seed].metrics[metric] for seed in changes}
    before = {seed: change.reference for seed, change in changes.items()}
    both = {seed: change.both for seed, change in changes.items() if change.both is not None}
    if len(both) < len(changes):
        return paired_difference(after, before), "seeds"
    # Every seed answers the same documents.
    items = assumed_level(after, before, [one.n for one in by_seed.values()], shared=True, both=both)
    return joint_interval(paired_differences(after, before), items), "seeds"


def _table(data: ReportData, cells: Sequence[Cell], task: str, evaluations: Evaluations) -> Table | None:
    evaluated = [(cell, by_seed) for cell in cells if (by_seed := _by_seed(cell, task, evaluations))]
    if not evaluated:
        return None
    titles = {cell.first.condition: condition.title for condition in data.conditions for cell in condition.cells}
    rows = []
    for cell, by_seed in evaluated:
        row = [data.head(cell, titles.get(cell.first.condition, ""))]
        for metric in _metrics(by_seed):
            change, of = change_of(by_seed, metric)
            mean = math.fsum(one.metrics[metric] for one in by_seed.values()) / len(by_seed)
            row += [Field(number(mean)), Field(shown(change), f"over {of}" if of else "")]
        if task == PREFERENCE:
            row.append(Field(number(max(one.metrics.get("ties", math.nan) for one in by_seed.values()))))
        rows.append(tuple(row))
    first = evaluated[0][1]
    heads = [text for name in _metrics(first) for text in (name, f"{name}, change")]
    header = ("Objective and beta", *heads, *(["most ties"] if task == PREFERENCE else []))
    some = next(iter(first.values()))
    what = "the run's own held-out pairs" if task == PREFERENCE else f"lm-eval {visible(some.library)}"
    limit = f", the first {some.limit}" if some.limit else ""
    note = (
        f"{quantity(some.n, 'document')} per run{limit}, {some.num_fewshot} examples before each. Means over seeds; the"
        " change is paired by document within a seed."
    )
    return Table(f"{visible(task)}: {what}", header, tuple(rows), note, "stack")


def _metrics(by_seed: Mapping[int, Evaluated]) -> list[str]:
    """The metrics of a task that stand beside the reference's."""
    some = next(iter(by_seed.values()))
    return [name for name in some.metrics if name in some.change]


def _readings(data: ReportData, cells: Sequence[Cell], tasks: Sequence[str], evaluations: Evaluations) -> list[str]:
    """Sentences on the tax: only changes whose interval leaves out 0 are called changes."""
    out = []
    lost: list[str] = []
    for task in tasks:
        moved: dict[str, list[str]] = {"up": [], "down": []}
        seen = 0
        for cell in cells:
            by_seed = _by_seed(cell, task, evaluations)
            if not by_seed:
                continue
            metric = leading(next(iter(by_seed.values())))
            change, _ = change_of(by_seed, metric)
            if change.n and math.isfinite(change.low):
                seen += 1
                if change.low > 0 or change.high < 0:
                    better = next(iter(by_seed.values())).higher_is_better.get(metric.partition(".")[0], True)
                    moved["up" if change.low > 0 else "down"].append(cell.named)
                    if (change.high < 0) == better:
                        lost.append(f"{visible(task)} ({cell.named}: {shown(change)})")
        if not seen:
            continue
        parts = [f"{len(names)} went {way}" for way, names in moved.items() if names]
        still = seen - sum(map(len, moved.values()))
        parts += [f"{still} show no change (the interval holds 0)"] if still else []
        out.append(f"{visible(task)}: of {quantity(seen, 'setting')}, {', '.join(parts)}.")
    if seen_other := [visible(task) for task in tasks if task != PREFERENCE]:
        said = f"Lost: {'; '.join(lost)}." if lost else f"No task is shown to have lost ({', '.join(seen_other)})."
        out.insert(0, said)
    if tasks == [PREFERENCE] or not set(tasks) - {PREFERENCE}:
        out.append(
            "No other benchmark was run, so what alignment costs elsewhere is not known: add tasks to"
            " evaluation.lm_eval, or run harness eval on this folder with --tasks."
        )
    if len(data.sweep.seeds) > 1:
        out.append("Of so many settings some would leave out 0 by chance: these intervals are not corrected for that.")
    return out


def _made_of(tasks: Sequence[str], evaluations: Evaluations) -> Table:
    rows = []
    for task in tasks:
        results = [by_task[task] for by_task in evaluations.values() if task in by_task]
        some = results[0]
        hashes = sorted({one.data_hash[:12] for one in results})
        rows.append(
            fields(
                visible(task), visible(some.version) or DASH, visible(some.library), str(some.num_fewshot),
                str(some.limit or "all"), some.config_hash[:12],
                ", ".join(hashes[:3]) + (f" and {len(hashes) - 3} more" if len(hashes) > 3 else ""),
            )
        )  # fmt: skip
    header = ("Task", "version", "lm-eval", "few-shot", "limit", "settings", "documents")
    note = "Hashes are the first 12 of 64 hex digits; the built-in task has documents of its own for each seed's split."
    return Table("What was evaluated", header, tuple(rows), note)


ROWS = (Section("benchmarks", "Benchmarks", benchmarks),)
