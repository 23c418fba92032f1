"""Held-out pairs by the columns of `data.slices`, for every cell of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.metrics.slices import SliceTest, corrected, slice_tests
from harness.metrics.statistics import Estimate, clustered_interval
from harness.report.data.cells import Cell
from harness.report.data.conditions import Condition
from harness.report.data.tables import csv_bytes


@dataclass(frozen=True, eq=False)
class CellSlice:
    """One slice of one cell, its pairs pooled over the cell's seeds; p are corrected over the whole sweep."""

    condition: Condition
    cell: Cell
    test: SliceTest
    ranked: Estimate
    reference: float
    prompts: int
    p_fell: float
    p_behind: float

    @property
    def named(self) -> bool:
        """Whether the slice is shown to have lost, or to be behind the other pairs."""
        return self.test.shows(self.p_fell, self.p_behind)

    @property
    def why(self) -> str:
        """What is shown of it, in words."""
        fell = self.test.shows(self.p_fell, 1.0)
        behind = self.test.shows(1.0, self.p_behind)
        return " and ".join(["worse than the reference"] * fell + ["behind the rest"] * behind)


def cell_slices(conditions: Sequence[Condition]) -> tuple[CellSlice, ...]:
    """Every slice of every cell with records, in the order of conditions and cells."""
    raw: list[tuple[Condition, Cell, SliceTest, Estimate, float, int]] = []
    for condition in conditions:
        for cell in condition.cells:
            recorded = [facts for _, facts in cell.recorded if facts.slices]
            if not recorded:
                continue
            columns = {
                name: np.concatenate([facts.slices[name] for facts in recorded])
                for name in recorded[0].slices
                if all(name in facts.slices for facts in recorded)
            }
            prompts = np.concatenate([facts.prompts for facts in recorded])
            now, before = (
                np.concatenate([getattr(facts, name) > 0 for facts in recorded]).astype(float)
                for name in ("delta", "delta_ref")
            )
            for test in slice_tests(columns, columns, now - before, prompts):
                ranked = clustered_interval(now[test.mask], prompts[test.mask], share=True)
                count = len(set(prompts[test.mask].tolist()))
                raw.append((condition, cell, test, ranked, float(before[test.mask].mean()), count))
    adjusted = corrected([test for _, _, test, *_ in raw])
    return tuple(CellSlice(*row, *p) for row, p in zip(raw, adjusted, strict=True))


def slices_csv(slices: Sequence[CellSlice]) -> bytes:
    """`report/slices.csv`: every slice of every cell."""
    header = (
        "condition", "objective", "beta", "column", "value", "pairs", "prompts", "ranked_right", "low", "high",
        "reference", "change", "elsewhere", "p_fell", "p_behind", "shown",
    )  # fmt: skip
    rows = [
        {
            "condition": one.condition.title, "objective": one.cell.first.objective, "beta": one.cell.first.beta,
            "column": one.test.column, "value": one.test.value, "pairs": int(one.test.mask.sum()),
            "prompts": one.prompts, "ranked_right": one.ranked.mean, "low": one.ranked.low, "high": one.ranked.high,
            "reference": one.reference, "change": one.test.change, "elsewhere": one.test.rest, "p_fell": one.p_fell,
            "p_behind": one.p_behind, "shown": one.why,
        }
        for one in slices
    ]  # fmt: skip
    return csv_bytes(header, rows)
