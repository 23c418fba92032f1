"""`report/contrasts.csv`: every objective against the baseline under the same condition, paired by seed.

Which beta of the baseline: where both have equally many betas under that condition, the one of the same rank;
otherwise the same beta if the baseline has it; otherwise the nearest relative rank (objectives without a beta: the
middle one). The family of the correction is all contrasts of one measure in the sweep. Runs that diverged or failed
count as the measure's worst (`Cell.treated`); unfinished ones leave the contrast incomplete.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.metrics.statistics import (
    Estimate,
    Verdict,
    corrected_p,
    judge,
    paired_differences,
    practical_margin,
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


@dataclass(frozen=True, slots=True)
class Contrast:
    """`cell` minus `base` on one measure over their common seeds, diverged and failed runs at the measure's worst.

    `n` counts the seeds with an outcome on both sides, also where lost runs leave no estimate. `verdict` holds the
    intervals, the word and the minimum detectable effect. `p` is Holm-corrected, None where no data could have made it
    significant.
    """

    cell: Cell
    base: Cell
    n: int
    verdict: Verdict
    p: float | None

    @property
    def plain(self) -> Estimate:
        """The interval of this contrast alone."""
        return self.verdict.plain

    @property
    def corrected(self) -> Estimate:
        """The simultaneous interval of the family."""
        return self.verdict.corrected

    @property
    def word(self) -> str:
        """better, worse, or why neither can be said."""
        return self.verdict.word

    @property
    def family(self) -> int:
        """Comparisons in the family."""
        return self.verdict.family

    @property
    def mde(self) -> float | None:
        """Smallest true difference that is found with power .8."""
        return self.verdict.mde


def build_contrasts(cells: Sequence[Cell], baseline: str, measure: str) -> list[Contrast]:
    """All contrasts of one measure, in the order of the cells; pairs without a common seed that ended are left out."""
    pairs = []
    for cell, base in baseline_pairs(cells, baseline):
        first, second = cell.treated(measure), base.treated(measure)
        n = len(set(first.seeds) & set(second.seeds))
        if n:
            seeds = sorted(first.values.keys() & second.values.keys())
            differences = paired_differences(first.values, second.values).tolist()
            pairs.append((cell, base, n, dict(zip(seeds, differences, strict=True))))
    p = corrected_p([list(differences.values()) for *_, differences in pairs])
    return [
        Contrast(cell, base, n, _verdict(cell, base, measure, differences, len(pairs)), p[i])
        for i, (cell, base, n, differences) in enumerate(pairs)
    ]


def _verdict(cell: Cell, base: Cell, measure: str, differences: Mapping[int, float], family: int) -> Verdict:
    return judge(
        differences,
        family=family,
        planned=max(cell.planned, base.planned),
        margin=practical_margin(MEASURES.get(measure, False)),
        direction=DIRECTIONS.get(measure, "none"),
        items=cell.item_level(measure, base),
    )


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
                "n": c.n, "difference": c.plain.mean, "low": c.corrected.low, "high": c.corrected.high,
                "p_corrected": c.p, "verdict": c.word, "low_plain": c.plain.low, "high_plain": c.plain.high,
                "family": c.family, "mde": c.mde,
            }  # fmt: skip
            rows.append(cell_columns(c.cell, axes) | columns)
    objective, beta, *rest = CELL_COLUMNS
    header = (objective, beta, "baseline", "baseline_beta", *rest, "measure", "n", "difference", "low", "high")
    return csv_bytes((*header, "p_corrected", "verdict", *axes, "low_plain", "high_plain", "family", "mde"), rows)
