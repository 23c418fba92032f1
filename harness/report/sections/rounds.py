"""Seeds in rounds: after how many seeds each objective stopped, and why."""

from __future__ import annotations

from harness.metrics.statistics import look_alpha
from harness.report.data.report_data import ReportData
from harness.report.data.sweep import Sweep
from harness.report.render.blocks import Content, Table, fields
from harness.report.render.text import number, visible
from harness.report.sections.row import Section
from harness.types import SeedRounds


def rounds(data: ReportData) -> Content | None:
    """Every objective in each world under each corruption, and what its comparisons said when it stopped."""
    planned = data.sweep.rounds
    if planned is None:
        return None
    rows = []
    for arena in data.arenas:
        for name in arena.objectives:
            words = [f"{c.word} ({c.on})" for c in data.contrasts if c.arena is arena and c.objective == name]
            seeds = arena.planned(name)
            why = "what the others are compared with" if name == data.baseline else "; ".join(words) or "no comparison"
            rows.append(fields(arena.title, visible(name), f"{seeds} of {planned.most}", why))
    levels = ", ".join(number(look_alpha(planned, look)) for look in planned.looks)
    note = (
        f"Looks after {', '.join(map(str, planned.looks))} seeds test at {levels}, together .05, before the correction"
        " for the family: corrected intervals and verdicts hold whenever a sweep stops. Plain intervals and those of"
        " single cells and claims are for a fixed number of seeds. An objective stops where ranking accuracy shows a"
        " difference, where all seeds would hardly show one, or where a comparison cannot be made."
    )
    return Content(
        "Who stopped early?", _spared(data.sweep, planned), (Table("Seeds by objective", _HEADER, tuple(rows), note),)
    )


_HEADER = ("World and corruption", "Objective", "seeds", "Ranking accuracy against the baseline")


def _spared(sweep: Sweep, planned: SeedRounds) -> str:
    most = len({run.cell for run in sweep.runs}) * planned.most
    return f"{len(sweep.runs)} runs in rounds; with all {planned.most} seeds everywhere there would be {most}."


ROWS = (Section("rounds", "Rounds of seeds", rounds),)
