"""Heat maps as tables: ranking accuracy of every objective and beta under every corruption of one setting."""

from __future__ import annotations

from harness.report.data.cells import Cell
from harness.report.data.context import Material
from harness.report.data.families import Family
from harness.report.data.sweep import STATUSES
from harness.report.render.blocks import Field, Section, Table
from harness.report.render.text import DASH, interval, number, plain, visible

LONG = 40  # rows shown; longer tables stand behind the fold
TALL = 12  # rows shown of tables with a single condition: beyond that they are a column of numbers, not a map
WIDE = 8  # columns; a family with more corruptions than this has them in rows


def heat(m: Material) -> Section | None:
    """A table per setting: objective and beta down, corruption across (or the other way round where that is wider)."""
    tables = [_table(m, family) for family in (m.family, *(f for f in m.families if f is not m.family))]
    long = TALL if all(len(family.conditions) == 1 for family in m.families) else LONG
    open_ = 2 if sum(len(table.rows) for table in tables[:2]) <= long else 1 if len(tables[0].rows) <= long else 0
    return Section(
        "Which beta, at which rate?",
        "Share of clean held-out pairs ranked right, mean and 95 % interval over seeds. Blue: above one half (chance);"
        " orange: below; the darker, the further away.",
        tuple(tables[:open_]),
        tuple(tables[open_:]),
        "The other settings" if open_ else "All objectives and betas",
    )


def _table(m: Material, family: Family) -> Table:
    arms = [(name, arm) for name in family.objectives for arm in family.arms(name)]
    conditions = family.conditions
    caption = family.title or "All objectives and betas"
    if len(conditions) > WIDE >= len(arms):
        first = {arm: _any(family, arm) for _, arm in arms}
        header = ("Corruption", *(first[arm].named for _, arm in arms))
        rows = [(Field(c.damage), *(_field(family.cell(arm, c)) for _, arm in arms)) for c in conditions]
        return Table(caption, header, tuple(rows), look="heat")
    rows = []
    for name, arm in arms:
        cell = _any(family, arm)
        beta = "" if cell.first.beta is None else f"\u03b2\u00a0{plain(cell.first.beta)}"
        head = Field(visible(name), ", ".join(filter(None, [beta, cell.extra])), mark=m.looks[name].colour)
        rows.append((head, *(_field(family.cell(arm, c)) for c in conditions)))
    return Table(caption, ("Objective", *(c.damage for c in conditions)), tuple(rows), look="heat")


def _any(family: Family, arm: str) -> Cell:
    return next(cell for c in family.conditions if (cell := family.cell(arm, c)) is not None)


def _field(cell: Cell | None) -> Field:
    if cell is None:
        return Field(DASH)
    found = cell.estimate("ranking_accuracy")
    bounds = interval(found.low, found.high, 2).replace(" ", "\u00a0") if found.n else ""
    if cell.done < cell.planned:
        states = [run.status for run in cell.runs]
        lost = [f"{states.count(word)} {word}" for word in STATUSES[1:] if word in states]
        what = "incomplete: " if cell.waiting else ""
        bounds += f" {what}{cell.done} of {cell.planned} seeds done ({', '.join(lost)})"
    if not found.n:
        return Field(DASH, bounds.strip())
    return Field(number(found.mean, 3), bounds.strip(), shade(found.mean))


def shade(share: float) -> str:
    """White at one half, towards blue at 1 and orange at 0: dark text stays legible on every step."""
    end = (0x86, 0xBB, 0xE0) if share >= 0.5 else (0xF2, 0xB1, 0x7C)
    weight = min(abs(share - 0.5) * 2, 1.0) ** 1.2
    return "#" + "".join(f"{round(255 + (channel - 255) * weight):02x}" for channel in end)
