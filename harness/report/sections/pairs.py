"""Ranking accuracy by kind of pair, and the worst single pairs with the reason why each ended where it did."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from harness.report.data.cells import Cell
from harness.report.data.headline import lowest_ranking
from harness.report.data.report_data import ReportData
from harness.report.data.run_facts import Facts
from harness.report.data.samples import read_worst
from harness.report.data.sweep import Run
from harness.report.render.blocks import Content, Field, Table, present
from harness.report.render.text import DASH, number, quantity, shorten, visible
from harness.report.sections.row import Section
from harness.types import Split

SHOWN = 5  # single pairs in a table


def pairs(data: ReportData) -> Content | None:
    """Which kinds of pairs are ranked wrong, for the cells of the figures."""
    cells = [cell for cell in data.sampled if cell.recorded]
    names = sorted({name for cell in cells for groups in _groups(cell) for name in groups})
    if len(names) < 2:
        return None
    rows = tuple((data.head(cell), *(_accuracy(cell, name) for name in names)) for cell in cells)
    header = ("Objective and beta", *(shorten(name, 60) for name in names))
    table = Table(f"Held-out pairs ranked right by kind, {data.headline.title}", header, rows, "Means over seeds.")
    return Content("Which pairs are ranked wrong?", "", (table,))


def _groups(cell: Cell) -> list[Mapping[str, tuple[int, float]]]:
    return [facts.groups for _, facts in cell.recorded]


def _accuracy(cell: Cell, name: str) -> Field:
    by_run = [groups[name] for groups in _groups(cell) if name in groups]
    if not by_run:
        return Field(DASH)
    count = sum(n for n, _ in by_run)
    return Field(number(math.fsum(share for _, share in by_run) / len(by_run)), quantity(count, "pair"))


def worst(data: ReportData) -> Content | None:
    """Held-out pairs that the baseline ranks most wrongly under the headline; wrong labels it follows most strongly."""
    if not data.texts.pairs:
        return None
    cells = [
        (split, lowest_ranking(condition.by_objective.get(data.baseline, condition.cells)))
        for split, condition in ((Split.HELDOUT, data.headline), (Split.TRAIN_OBSERVED, data.noisiest))
        if condition is not None
    ]
    tables = present(*(_table(data, cell, split) for split, cell in cells if cell is not None))
    shown = "Texts are data, shown as they are; margins" if data.texts.quoted else "Margins"
    lead = f"{shown} are log-probs of chosen minus rejected, in nats."
    return Content("The worst pairs", lead, tables) if tables else None


def _table(data: ReportData, cell: Cell, split: str) -> Table | None:
    """The pairs of the first seed that kept any."""
    held = split == Split.HELDOUT
    for run, facts in cell.recorded:
        kept = [row for row in read_worst(run) if row.split == split][:SHOWN]
        if not kept:
            continue
        rows = []
        for row in kept:
            margin, why = _held(facts, run, row.id) if held else _trained(facts, row.id)
            pair = data.texts.pair(row.prompt, row.id, row.row, row.group)
            rows.append((*pair, data.texts.field(row.chosen), data.texts.field(row.rejected), margin, Field(why)))
        where = f"{cell.named}, {data.headline.title if held else visible(run.corruption_text)}, seed {run.seed}"
        caption = f"Held-out pairs ranked most wrongly: {where}" if held else f"Wrong labels followed most: {where}"
        sides = ("chosen", "rejected") if held else ("labelled chosen (truly worse)", "labelled rejected")
        return Table(caption, (*data.texts.heads("id"), *sides, "margin", "Why"), tuple(rows), look="text")
    return None


def _held(facts: Facts, run: Run, identity: str) -> tuple[Field, str]:
    """Margins of the pair, and which of three reasons holds: a reference too wrong for this beta, a stall, a loss."""
    (place,) = np.flatnonzero(facts.ids == identity)
    policy, reference = float(facts.delta[place]), float(facts.delta_ref[place])
    margin = Field(number(policy, 2), f"reference {number(reference, 2)}")
    if reference > 0:
        return margin, "training broke it: the reference ranked it right"
    gap, beta = float(facts.gap[place]), run.beta
    moved = f"the reference is wrong by {number(-reference, 1)} nats; training moved it {number(policy - reference, 1)}"
    if math.isnan(gap) or beta is None or run.labels != "bradley_terry":
        return margin, moved
    reach = reference + gap / beta
    return margin, f"{moved}; its optimum lies at {number(reach, 1)}" + (": wrong even there" if reach < 0 else "")


def _trained(facts: Facts, identity: str) -> tuple[Field, str]:
    probe = facts.probe
    assert probe is not None, "a wrongly labelled pair comes from the probe"
    (place,) = np.flatnonzero(probe.ids == identity)
    policy, reference, kind = float(probe.margin[place]), float(probe.before[place]), probe.kinds[place]
    by = f"label made wrong by {visible(kind)}" if kind else "wrong label"
    already = "the reference followed it already" if reference > 0 else "memorised: the reference ranked it right"
    return Field(number(policy, 2), f"reference {number(reference, 2)}"), f"{by}; {already}"


ROWS = (Section("pairs", "Pairs", pairs), Section("worst", "Worst pairs", worst))
