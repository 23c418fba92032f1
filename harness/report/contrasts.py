"""`report/contrasts.csv`: every objective against the baseline under the same condition, paired by seed.

Which beta of the baseline: where both have equally many betas under that condition, the one of the same rank;
otherwise the same beta if the baseline has it; otherwise the nearest relative rank (objectives without a beta: the
middle one). The family of the correction is all contrasts of one measure in the sweep.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from harness.measure.statistics import (
    INCOMPLETE,
    INTERVAL_ONLY,
    MIN_SEEDS,
    Estimate,
    bonferroni_interval,
    holm,
    minimum_detectable_effect,
    paired_differences,
    sign_flip_p,
    t_interval,
    verdict,
)
from harness.report.cells import CELL_COLUMNS, Cell, axis_values, identity
from harness.report.tables import MEASURES, csv_bytes

DIRECTIONS = {
    "reward_accuracy": "up",
    "ranking_accuracy": "up",
    "undesirable_zone": "down",
    "gold_reward": "up",
    "ood_ranking_accuracy": "up",
}


@dataclass(frozen=True, slots=True)
class Contrast:
    """`cell` minus `base` on one measure over their common seeds.

    `plain` is the paired t interval, `corrected` the simultaneous one of the family; `p` is Holm-corrected, None below
    6 seeds; `mde` is the smallest true difference found with power .8 at this spread, None below 2 seeds.
    """

    cell: Cell
    base: Cell
    measure: str
    plain: Estimate
    corrected: Estimate
    p: float | None
    word: str
    family: int
    mde: float | None


def build_contrasts(cells: Sequence[Cell], baseline: str, measure: str) -> list[Contrast]:
    """All contrasts of one measure, in the order of the cells; pairs without a common finished seed are left out."""
    pairs = []
    for cell, base in baseline_pairs(cells, baseline):
        differences = paired_differences(cell.values(measure), base.values(measure))
        if differences.size:
            pairs.append((cell, base, differences))
    tested = [i for i, (_, _, differences) in enumerate(pairs) if differences.size >= MIN_SEEDS]
    corrected_p = dict(zip(tested, holm([sign_flip_p(pairs[i][2]) for i in tested]), strict=True)) if tested else {}
    out = []
    for i, (cell, base, differences) in enumerate(pairs):
        n, family = int(differences.size), len(pairs)
        corrected = bonferroni_interval(differences, family)
        spread = float(np.std(differences, ddof=1)) if n > 1 else math.nan
        mde = spread * _standard_effect(n, family) if n > 1 else None
        p = corrected_p.get(i)
        word = _word(cell, base, measure, corrected, n, p)
        out.append(Contrast(cell, base, measure, t_interval(differences), corrected, p, word, family, mde))
    return out


@lru_cache(maxsize=256)
def _standard_effect(n: int, family: int) -> float:
    """The minimum detectable effect in standard deviations of the paired difference; it costs a root search."""
    return minimum_detectable_effect(1.0, n, family)


def _word(cell: Cell, base: Cell, measure: str, corrected: Estimate, n: int, p: float | None) -> str:
    """The verdict; seeds that diverged or are missing on either side block it, whatever the remaining ones say."""
    if n < MIN_SEEDS or p is None:
        return INTERVAL_ONLY
    if n < max(cell.planned, base.planned):
        return INCOMPLETE
    return verdict(corrected, n, direction=DIRECTIONS.get(measure, "none"))


def baseline_pairs(cells: Sequence[Cell], baseline: str) -> list[tuple[Cell, Cell]]:
    """Each cell of another objective with its baseline cell under the same condition, by the rule of the module."""
    pairs = []
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.first.condition, []).append(cell)
    for cell in cells:
        peers = groups[cell.first.condition]
        bases = [other for other in peers if other.first.objective == baseline]
        if cell.first.objective != baseline and bases:
            pairs.append((cell, _partner(cell, peers, bases)))
    return pairs


def _partner(cell: Cell, peers: Sequence[Cell], bases: Sequence[Cell]) -> Cell:
    own = sorted(
        {p.first.beta for p in peers if p.first.objective == cell.first.objective and p.first.beta is not None}
    )
    theirs = sorted({base.first.beta for base in bases if base.first.beta is not None})
    beta = cell.first.beta
    if not theirs:
        return bases[0]
    if beta is not None and len(own) == len(theirs):
        wanted = theirs[own.index(beta)]
    elif beta in theirs:
        wanted = beta
    else:
        place = own.index(beta) / (len(own) - 1) if beta is not None and len(own) > 1 else 0.5
        wanted = theirs[round(place * (len(theirs) - 1))]
    return next(base for base in bases if base.first.beta == wanted)


def contrasts_csv(cells: Sequence[Cell], baseline: str, axes: tuple[str, ...]) -> bytes:
    """`contrasts.csv`: `low`, `high` are the corrected interval, `low_plain`, `high_plain` the one of the row alone."""
    rows = []
    for measure in MEASURES:
        if measure.startswith("train_loss"):  # losses of two objectives are on different scales
            continue
        for found in build_contrasts(cells, baseline, measure):
            rows.append(
                identity(found.cell)
                | axis_values(found.cell, axes)
                | {
                    "baseline": found.base.first.objective,
                    "baseline_beta": found.base.first.beta,
                    "measure": measure,
                    "n": found.plain.n,
                    "difference": found.plain.mean,
                    "low": found.corrected.low,
                    "high": found.corrected.high,
                    "p_corrected": found.p,
                    "verdict": found.word,
                    "low_plain": found.plain.low,
                    "high_plain": found.plain.high,
                    "family": found.family,
                    "mde": found.mde,
                }
            )
    objective, beta, *rest = CELL_COLUMNS
    columns = (objective, beta, "baseline", "baseline_beta", *rest, "measure", "n", "difference", "low", "high")
    return csv_bytes((*columns, "p_corrected", "verdict", *axes, "low_plain", "high_plain", "family", "mde"), rows)
