"""Where does it hurt? Held-out pairs by the columns of `data.slices`: what training did to each kind of pair."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.data.report_data import ReportData
from harness.report.data.slices import CellSlice
from harness.report.render.blocks import Content, Field, Lines, Table, present
from harness.report.render.figures import WRONG
from harness.report.render.text import DASH, number, quantity, shorten, shown
from harness.report.sections.row import Section


def slices(data: ReportData) -> Content | None:
    """The slices that are named, then every slice in the condition of the answer."""
    every = data.slices
    if not every:
        return None
    named = [one for one in every if one.named]
    here = [one for one in every if one.condition is data.headline]
    values = len({(one.test.column, one.test.value) for one in every})
    head = ("Objective and beta", "slice", "pairs", "ranked right", "by the reference", "change", "elsewhere", "shown")
    note = (
        "Pairs of all seeds together; intervals and tests count prompts. A slice is named where training left fewer of"
        " its pairs ranked right than the reference, or helped it less than the other pairs, by at least one point and"
        f" after Holm's correction over {quantity(len(every), 'slice')} of all settings. It says where, not why: a kind"
        " of pair may be harder, rarer, or have worse labels."
    )
    lines = [
        f"{shorten(value, 40)} ({column}): shown in {len(of)} of"
        f" {quantity(len({id(one.cell) for one in every}), 'setting')}."
        for (column, value), of in _by_value(named).items()
    ] or [f"None of {quantity(values, 'slice')} is shown to be worse off than the other pairs."]
    return Content(
        "Where does it hurt?",
        "",
        present(
            Lines(tuple(lines)),
            Table("Named slices", head, tuple(_row(data, one) for one in named), note) if named else None,
        ),
        (Table(f"Every slice: {data.headline.title}", head, tuple(_row(data, one) for one in here), note),),
        "Every slice",
    )


def _by_value(named: Sequence[CellSlice]) -> dict[tuple[str, str], list[CellSlice]]:
    found: dict[tuple[str, str], list[CellSlice]] = {}
    for one in named:
        found.setdefault((one.test.column, one.test.value), []).append(one)
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def _row(data: ReportData, one: CellSlice) -> tuple[Field, ...]:
    return (
        data.head(one.cell, one.condition.title),
        Field(shorten(one.test.value or "(empty)", 40), one.test.column, mark=WRONG if one.named else ""),
        Field(str(int(one.test.mask.sum())), quantity(one.prompts, "prompt")),
        Field(shown(one.ranked)),
        Field(number(one.reference)),
        Field(f"{100 * one.test.change:+.1f} points"),
        Field(f"{100 * one.test.rest:+.1f}"),
        Field(one.why or DASH),
    )


ROWS = (Section("slices", "Slices", slices),)
