"""Assumed against true flip rate: what a wrong `eps` costs, and how well a small audit would have told the true one."""

from __future__ import annotations

from collections.abc import Sequence

from harness.metrics.statistics import wilson
from harness.report.data.cells import Cell
from harness.report.data.conditions import Condition
from harness.report.data.context import Material
from harness.report.data.run_facts import AUDITED
from harness.report.render.blocks import Field, Section, Table
from harness.report.render.text import DASH, interval, number, plain, shown, visible


def misspecified(m: Material) -> Section | None:
    """The table, where some objective was swept over `eps`."""
    table = misspecified_table(m.conditions)
    lead = "The flip rate that cdpo and robust_dpo assume (eps), against the rate that the labels really have."
    return None if table is None else Section("What does a wrong guess of the flip rate cost?", lead, (table,))


def misspecified_table(conditions: Sequence[Condition]) -> Table | None:
    """Ranking accuracy by assumed eps, a row a condition, beside the flip rate that auditing 50 pairs estimates.

    None unless some objective was swept over `eps`.
    """
    columns = sorted(
        {
            (cell.first.objective, cell.first.beta or 0.0, _eps(cell))
            for condition in conditions
            for cell in condition.cells
        },
        key=lambda column: (column[2] is not None, repr(column)),
    )
    assumed = {eps for _, _, eps in columns if eps is not None}
    if len(assumed) < 2:
        return None
    rows = []
    for condition in conditions:
        cells = {(c.first.objective, c.first.beta or 0.0, _eps(c)): c for c in condition.cells}
        rows.append(
            (
                Field(condition.title),
                _audit(condition),
                *(Field(shown(cells[column].estimate("ranking_accuracy"))) if column in cells else Field(DASH)
                  for column in columns),
            )
        )  # fmt: skip
    header = tuple(f"{visible(name)}" + (f", eps {plain(eps)}" if eps is not None else "") for name, _, eps in columns)
    return Table(
        "Assumed against true flip rate: held-out pairs ranked right",
        ("Condition", f"flip rate by auditing {AUDITED} pairs", *header),
        tuple(rows),
        f"The estimate is the share of wrong labels among {AUDITED} training pairs chosen by hash (first seed), with"
        " its 95 % Wilson interval: what checking that many labels by hand would have told before training.",
    )


def _eps(cell: Cell) -> float | None:
    value = cell.first.settings().get("hp.eps")
    return None if value is None else float(value)


def _audit(condition: Condition) -> Field:
    cell = condition.cells[0]
    facts = [cell.facts[run.key] for run in cell.runs if run.key in cell.facts]
    if not facts or facts[0].audited is None:
        return Field(DASH)
    wrong, count = facts[0].audited
    found = wilson(wrong, count)
    return Field(number(wrong / count, 2), interval(found.low, found.high, 2))
