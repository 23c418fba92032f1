"""The worst pairs, and why each ended where it did."""

from __future__ import annotations

import math

import numpy as np

from harness.report.data.cells import Cell
from harness.report.data.context import Material
from harness.report.data.run_facts import Facts
from harness.report.data.samples import WorstPair, read_worst
from harness.report.data.series import worst as worst_cell
from harness.report.data.sweep import Run
from harness.report.render.blocks import Field, Section, Table, given
from harness.report.render.text import number, visible
from harness.report.sections.densities import noisiest

SHOWN = 5


def worst(m: Material) -> Section | None:
    """Held-out pairs that the baseline ranks most wrongly under the headline; wrong labels it follows most strongly."""
    if not m.texts.pairs:
        return None
    held = _table(m, worst_cell(m.headline.by_objective.get(m.baseline, m.headline.cells)), "eval_clean")
    noisy = noisiest(m)
    train = None if noisy is None else _table(
        m, worst_cell(noisy.by_objective.get(m.baseline, noisy.cells)), "train_observed"
    )  # fmt: skip
    if held is None and train is None:
        return None
    shown = "Texts are data, shown as they are; margins" if m.texts.quoted else "Margins"
    lead = f"{shown} are log-probs of chosen minus rejected, in nats."
    return Section("The worst pairs", lead, given(held, train))


def _table(m: Material, cell: Cell | None, split: str) -> Table | None:
    """The pairs of the first seed that kept any."""
    for run, facts in cell.recorded if cell is not None else ():
        rows = [row for row in read_worst(run) if row.split == split][:SHOWN]
        if rows:
            assert cell is not None
            return _drawn(m, cell, run, facts, split, rows)
    return None


def _drawn(m: Material, cell: Cell, run: Run, facts: Facts, split: str, rows: list[WorstPair]) -> Table:
    held = split == "eval_clean"
    fields = []
    for row in rows:
        margin, why = _held(facts, run, row.id) if held else _trained(facts, row.id)
        pair = m.texts.pair(row.prompt, row.id, row.row, row.group)
        fields.append((*pair, m.texts.field(row.chosen), m.texts.field(row.rejected), margin, Field(why)))
    where = f"{cell.named}, {m.headline.title if held else visible(run.corruption_text)}, seed {run.seed}"
    caption = f"Held-out pairs ranked most wrongly: {where}" if held else f"Wrong labels followed most: {where}"
    chosen, rejected = ("chosen", "rejected") if held else ("labelled chosen (truly worse)", "labelled rejected")
    return Table(caption, (*m.texts.heads("id"), chosen, rejected, "margin", "Why"), tuple(fields), look="text")


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
