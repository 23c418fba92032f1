"""`report/contrasts.csv`: every objective against the baseline under the same condition, paired by seed.

Which beta of the baseline: where both have equally many betas under that condition, the one of the same rank;
otherwise the same beta if the baseline has it; otherwise the nearest relative rank (objectives without a beta: the
middle one). The family of the correction is all contrasts of one measure in the sweep. Runs that diverged or failed
count as the measure's worst (`Cell.treated`); unfinished ones leave the contrast incomplete.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.metrics.margin_columns import TIE_TOL
from harness.metrics.statistics import (
    INCOMPLETE,
    INTERVAL_ONLY,
    MIN_SEEDS,
    Estimate,
    Treated,
    bonferroni_interval,
    holm,
    item_detectable_effect,
    minimum_detectable_effect,
    paired_differences,
    paired_share_difference,
    practical_margin,
    sign_flip_p,
    verdict,
)
from harness.report.data.cells import CELL_COLUMNS, Cell, by_condition, cell_columns
from harness.report.data.tables import MEASURES, csv_bytes

DIRECTIONS = {
    "reward_accuracy": "up",
    "ranking_accuracy": "up",
    "undesirable_zone": "down",
    "gold_reward": "up",
    "ood_ranking_accuracy": "up",
}


# Which held-out pairs count, of the shares whose records the report keeps: what pairs two methods item by item.
COUNTED = {
    "ranking_accuracy": lambda facts: facts.delta > 0,
    "reward_accuracy": lambda facts: facts.delta - facts.delta_ref > TIE_TOL,
    "undesirable_zone": lambda facts: (facts.delta < 0) & (facts.delta - facts.delta_ref > TIE_TOL),
}


@dataclass(frozen=True, slots=True)
class Contrast:
    """`cell` minus `base` on one measure over their common seeds, diverged and failed runs at the measure's worst.

    `plain` is the paired t interval, `corrected` the simultaneous one of the family, both for shares never narrower
    than over the pairs of one seed; `p` is Holm-corrected, None below 6 seeds; `mde` is the smallest true difference
    found with power about .8 at this spread of seeds and pairs, None below 2 seeds.
    """

    cell: Cell
    base: Cell
    plain: Estimate
    corrected: Estimate
    p: float | None
    word: str
    family: int
    mde: float | None


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two cells on one measure: their values by seed, the differences `(n,)`, and what is known of single items.

    `n` counts the seeds with an outcome on both sides; `differences` is empty where lost runs leave no estimate.
    """

    cell: Cell
    base: Cell
    values: Treated
    base_values: Treated
    n: int
    differences: NDArray[np.float64]
    items: int | None
    both: Mapping[int, float] | None

    def interval(self, comparisons: int) -> Estimate:
        """Simultaneous interval for a family of `comparisons`."""
        if not self.differences.size:
            return Estimate(self.n, math.nan, math.nan, math.nan)
        if self.items is None:
            return bonferroni_interval(self.differences, comparisons)
        return paired_share_difference(self.values.values, self.base_values.values, self.items, self.both, comparisons)

    def detectable(self, comparisons: int) -> float | None:
        """Minimum detectable effect over seeds and, for shares, over the items of one seed: the larger."""
        if self.differences.size < 2:
            return None
        over_seeds = minimum_detectable_effect(float(np.std(self.differences, ddof=1)), self.n, comparisons)
        if self.items is None:
            return over_seeds
        return max(over_seeds, item_detectable_effect(self._discordant(), self.items, comparisons))

    def _discordant(self) -> float:
        """Mean share of items on which the two disagree; at most, where single items are not known."""
        first, second = self.values.values, self.base_values.values
        seeds = sorted(first.keys() & second.keys())
        sums = [first[seed] + second[seed] for seed in seeds]
        if self.both is None:
            return min(1.0, math.fsum(min(s, 2 - s) for s in sums) / len(seeds))
        return max(0.0, math.fsum(s - 2 * self.both[seed] for s, seed in zip(sums, seeds, strict=True)) / len(seeds))


def build_contrasts(cells: Sequence[Cell], baseline: str, measure: str) -> list[Contrast]:
    """All contrasts of one measure, in the order of the cells; pairs without a common seed that ended are left out."""
    pairs = [pair for cell, base in baseline_pairs(cells, baseline) if (pair := _pair(cell, base, measure)).n]
    tested = [i for i, pair in enumerate(pairs) if pair.differences.size >= MIN_SEEDS]
    corrected_p = dict(zip(tested, holm([sign_flip_p(pairs[i].differences) for i in tested]), strict=True))
    out, family = [], len(pairs)
    for i, pair in enumerate(pairs):
        corrected = pair.interval(family)
        word, mde = _word(pair, measure, corrected), pair.detectable(family)
        out.append(Contrast(pair.cell, pair.base, pair.interval(1), corrected, corrected_p.get(i), word, family, mde))
    return out


def _pair(cell: Cell, base: Cell, measure: str) -> _Pair:
    first, second = cell.treated(measure), base.treated(measure)
    counts = [n for one in (cell, base) for n in (one.items(measure) or ())] if MEASURES.get(measure, False) else []
    items = min(counts) if counts else None
    both = None if items is None else _both(cell, base, measure)
    n = len(set(first.seeds) & set(second.seeds))
    return _Pair(cell, base, first, second, n, paired_differences(first.values, second.values), items, both)


def _both(cell: Cell, base: Cell, measure: str) -> dict[int, float] | None:
    """By seed, the share of held-out pairs that count under both; None where a finished run's pairs are not known."""
    count = COUNTED.get(measure)
    if count is None:
        return None
    first, second = ({run.seed: facts for run, facts in one.recorded} for one in (cell, base))
    values, base_values = cell.values(measure), base.values(measure)
    out: dict[int, float] = {}
    for seed in sorted(values.keys() & base_values.keys()):
        a, b = first.get(seed), second.get(seed)
        both = values[seed], base_values[seed]
        if a is not None and b is not None:
            if a.delta.size != b.delta.size:
                return None
            shared = float(np.mean(count(a) & count(b)))
            # Records and results may differ in the last bit of a share, never in what is possible.
            out[seed] = min(max(shared, sum(both) - 1, 0.0), *both)
        elif set(both) & {0.0, 1.0}:
            out[seed] = both[0] * both[1]  # none or all of one side's: a lost run
        else:
            return None
    return out


def _word(pair: _Pair, measure: str, corrected: Estimate) -> str:
    """The verdict; unfinished seeds block it, and so do lost ones where the measure has no worst value."""
    if pair.n < MIN_SEEDS:
        return INTERVAL_ONLY
    if pair.n < max(pair.cell.planned, pair.base.planned) or not pair.differences.size:
        return INCOMPLETE
    margin = practical_margin(MEASURES.get(measure, False))
    return verdict(corrected, pair.n, margin, DIRECTIONS.get(measure, "none"))


def baseline_pairs(cells: Sequence[Cell], baseline: str) -> list[tuple[Cell, Cell]]:
    """Each cell of another objective with its baseline cell under the same condition, by the rule of the module."""
    groups = by_condition(cells)
    pairs = []
    for cell in cells:
        peers = groups[cell.first.condition]
        bases = [other for other in peers if other.first.objective == baseline]
        if cell.first.objective != baseline and bases:
            pairs.append((cell, _partner(cell, peers, bases)))
    return pairs


def _partner(cell: Cell, peers: Sequence[Cell], bases: Sequence[Cell]) -> Cell:
    same = [peer for peer in peers if peer.first.objective == cell.first.objective]
    betas, theirs = (sorted({c.first.beta for c in some if c.first.beta is not None}) for some in (same, bases))
    beta = cell.first.beta
    if not theirs:
        return bases[0]
    if beta is not None and len(betas) == len(theirs):
        wanted = theirs[betas.index(beta)]
    elif beta in theirs:
        wanted = beta
    else:
        place = betas.index(beta) / (len(betas) - 1) if beta is not None and len(betas) > 1 else 0.5
        wanted = theirs[round(place * (len(theirs) - 1))]
    return next(base for base in bases if base.first.beta == wanted)


def contrasts_csv(cells: Sequence[Cell], baseline: str, axes: tuple[str, ...]) -> bytes:
    """`contrasts.csv`: `low`, `high` are the corrected interval, `low_plain`, `high_plain` the one of the row alone."""
    rows = []
    for measure in MEASURES:
        if measure.startswith("train_loss"):  # losses of two objectives are on different scales
            continue
        for c in build_contrasts(cells, baseline, measure):
            columns = {
                "baseline": c.base.first.objective, "baseline_beta": c.base.first.beta, "measure": measure,
                "n": c.plain.n, "difference": c.plain.mean, "low": c.corrected.low, "high": c.corrected.high,
                "p_corrected": c.p, "verdict": c.word, "low_plain": c.plain.low, "high_plain": c.plain.high,
                "family": c.family, "mde": c.mde,
            }  # fmt: skip
            rows.append(cell_columns(c.cell, axes) | columns)
    objective, beta, *rest = CELL_COLUMNS
    header = (objective, beta, "baseline", "baseline_beta", *rest, "measure", "n", "difference", "low", "high")
    return csv_bytes((*header, "p_corrected", "verdict", *axes, "low_plain", "high_plain", "family", "mde"), rows)
