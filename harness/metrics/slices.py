"""Slices of held-out pairs (a category, a source): is some kind of pair worse off than the others?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from harness.metrics.divergence import ALPHA, clustered_sign_p
from harness.metrics.records import Array, Bools, Columns, Floats
from harness.metrics.statistics import SHARE_MARGIN, below_rest_p, holm

SLICE = "slice/"  # begins the names of slice columns in records
MIN_SLICE = 5  # pairs below which a value of a slice column is counted and not measured
MAX_VALUES = 50  # of a column: with more it is an identifier


@dataclass(frozen=True, slots=True)
class SliceTest:
    """One value of a column over the pairs `mask` (n,): the mean change there and elsewhere, with uncorrected p.

    `p_fell`: of "no fewer pairs are right than before training", 1 without a reference; `p_behind`: of "training
    helped no less than elsewhere".
    """

    column: str
    value: str
    mask: Bools
    change: float
    rest: float
    p_fell: float
    p_behind: float

    def shows(self, p_fell: float, p_behind: float) -> bool:
        """Whether corrected p, and at least one point of difference, show one of the two."""
        fell = p_fell <= ALPHA and self.change <= -SHARE_MARGIN
        return fell or (p_behind <= ALPHA and self.change - self.rest <= -SHARE_MARGIN)


def slice_tests(
    columns: Columns, names: Iterable[str], change: Floats, prompts: Array, referenced: bool = True
) -> tuple[SliceTest, ...]:
    """Every value of the columns `names` that has at least `MIN_SLICE` pairs, in order of column and value.

    `change` (n,): 1 where training turned a pair right, -1 where it turned it wrong, else 0 (without a reference: 1
    where it is right). Pairs of one prompt count as one in every test.
    """
    found = []
    for name in names:
        for value in sorted(set(columns[name].tolist())):
            mask = columns[name] == value
            if mask.sum() < MIN_SLICE:
                continue
            fell = fall_p(-change[mask], prompts[mask]) if referenced else 1.0
            rest = float(change[~mask].mean()) if (~mask).any() else math.nan
            behind = below_rest_p(change, mask, prompts)
            found.append(SliceTest(name, str(value), mask, float(change[mask].mean()), rest, fell, behind))
    return tuple(found)


def corrected(tests: Sequence[SliceTest]) -> list[tuple[float, float]]:
    """`(p_fell, p_behind)` of each test, corrected by Holm over all of them together."""
    if not tests:
        return []
    together = holm([*(test.p_fell for test in tests), *(test.p_behind for test in tests)])
    return list(zip(together[: len(tests)], together[len(tests) :], strict=True))


def fall_p(losses: Floats, prompts: Array) -> float:
    """Exact one-sided p of "no fewer right answers than before": `losses` (n,) is 1 where one was lost, -1 where one
    was won; the sign of each prompt's net loss is a coin under the null."""
    _, index = np.unique(np.asarray(prompts).astype(str), return_inverse=True)
    return clustered_sign_p([round(total) for total in np.bincount(index, weights=losses)])
