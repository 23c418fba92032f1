"""Win rates from a judge: the runs' answers against the reference's, or another run's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from harness.metrics.judge import WinRate, bias_text, from_plain
from harness.metrics.statistics import Estimate, t_interval
from harness.report.data.cells import Cell
from harness.report.data.report_data import ReportData
from harness.report.render.blocks import Content, Field, Lines, Table, present
from harness.report.render.text import DASH, number, quantity, shown, visible
from harness.report.sections.row import Section
from harness.storage.journal import JournalDamaged
from harness.storage.judgements import read_judgements

Asked = tuple[str, str, str, str]
ByRun = Mapping[str, WinRate]  # by run key


def judge(data: ReportData) -> Content | None:
    """A table per judge and opponent, with what shows that the judge goes by the order of the answers."""
    questions, lines = _read(data)
    if not questions:
        return Content("What does a judge prefer?", "", (Lines(tuple(lines)),)) if lines else None
    tables = [_table(data, asked, by_run) for asked, by_run in questions.items()]
    lines = [*_readings(questions), *lines]
    return Content(
        "What does a judge prefer?",
        "Share of comparisons that the run's answer wins, ties as halves; every prompt is judged in both orders. At"
        " equal length: the same by AlpacaEval 2's regression on the difference in length (Dubois et al. 2024) without"
        " its term for instructions. 0.5: as good as its opponent.",
        present(*tables, Lines(tuple(lines))),
    )


def _read(data: ReportData) -> tuple[dict[Asked, dict[str, WinRate]], list[str]]:
    questions: dict[Asked, dict[str, WinRate]] = {}
    damaged = []
    for run in data.sweep.runs:
        if run.folder is None or not run.done:
            continue
        try:
            for one in read_judgements(run.folder):
                result = from_plain(one.result)
                if result.prompts:
                    questions.setdefault(one.asked, {})[run.key] = result
        except (JournalDamaged, TypeError):
            damaged.append(f"judgements of {run.key[:8]} cannot be read; harness judge makes them again")
    return questions, damaged


def _table(data: ReportData, asked: Asked, by_run: ByRun) -> Table:
    model, _, template, against = asked
    titles = {cell.first.condition: condition.title for condition in data.conditions for cell in condition.cells}
    rows = []
    for cell in data.cells:
        judged = [by_run[run.key] for run in cell.runs if run.key in by_run]
        if judged:
            rows.append(_row(data, cell, titles.get(cell.first.condition, ""), judged))
    header = ("Objective and beta", "win rate", "at equal length", "longer by", "first answer wins", "ties", "prompts")
    note = (
        f"Template {template[:12]}. Intervals are over seeds, or over the prompts of a single one. Longer by:"
        " characters. First answer wins: 0.5 without position bias."
    )
    return Table(f"Judge {visible(model)}, against {visible(against)}", header, tuple(rows), note, "stack")


def _row(data: ReportData, cell: Cell, title: str, results: Sequence[WinRate]) -> tuple[Field, ...]:
    controlled = [one.length_controlled for one in results if one.length_controlled is not None]
    left = sum(one.unreadable + one.missing for one in results)
    ties = sum(one.ties for one in results) / (2 * sum(one.prompts for one in results))
    asked = [one.first.mean for one in results if one.first.n]
    return (
        data.head(cell, title),
        Field(*_over([one.win_rate for one in results])),
        Field(*_over(controlled)) if len(controlled) == len(results) else Field(DASH, "not known"),
        Field(number(math.fsum(one.longer for one in results) / len(results))),
        Field(number(math.fsum(asked) / len(asked)) if asked else DASH),
        Field(number(ties)),
        Field(str(sum(one.prompts for one in results)), f"{left} left out" if left else ""),
    )


def _over(estimates: Sequence[Estimate]) -> tuple[str, str]:
    """An estimate of a cell and what its interval speaks of."""
    if len(estimates) == 1:
        return shown(estimates[0]), "over prompts"
    return shown(t_interval([one.mean for one in estimates])), "over seeds"


def _readings(questions: Mapping[Asked, ByRun]) -> list[str]:
    out = []
    for (model, _, _, against), by_run in questions.items():
        biased = [bias_text(one) for one in by_run.values() if one.position_bias]
        if biased:
            more = f" ({quantity(len(biased), 'run')} of {len(by_run)}; this is the first)" if len(by_run) > 1 else ""
            out.append(f"{visible(model)} against {visible(against)}: {biased[0]}{more}.")
        if unreadable := sum(one.unreadable for one in by_run.values()):
            out.append(f"{visible(model)}: {quantity(unreadable, 'prompt')} left out, its reply ended in no verdict.")
        if missing := sum(one.missing for one in by_run.values()):
            out.append(f"{visible(model)}: {quantity(missing, 'prompt')} not judged yet; harness judge continues.")
    return out


ROWS = (Section("judge", "Judge", judge),)
