"""`report/contrasts.csv`: every objective against the baseline in the same arena, paired by seed, in two ways.

`kl`: at the same KL to the reference, along each objective's frontier; `best`: each at the setting that ranks most
pairs right. Equal betas, or betas of the same rank, are never compared: they are points on different scales. Where a
best beta lies at the end of its grid there is no best, and the row says which grid to extend. The family of the
correction is all comparisons of one measure, times the settings that an objective was chosen among. Runs that diverged
or failed count as the measure's worst; unfinished ones leave the contrast incomplete.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.metrics.frontier import Comparison, at_best, matched, middle
from harness.metrics.statistics import (
    NOTHING,
    Estimate,
    ItemLevel,
    Verdict,
    assumed_level,
    corrected_p,
    judge,
    practical_margin,
)
from harness.report.data.cells import CELL_COLUMNS, RANKING, Cell, axis_values
from harness.report.data.frontier import Arena, at_kl, edge_text
from harness.report.data.tables import MEASURES, csv_bytes
from harness.report.render.text import quantity, visible

DIRECTIONS = {
    "reward_accuracy": "up",
    "ranking_accuracy": "up",
    "undesirable_zone": "down",
    "gold_reward": "up",
    "ood_ranking_accuracy": "up",
}
AT_KL, AT_BEST = "kl", "best"
MATCHED = (RANKING, "gold_reward", "ood_ranking_accuracy")  # measures of which more is better: what a frontier is of
NO_BEST, NO_SHARED_KL = "no best", "no shared KL"


@dataclass(frozen=True, slots=True)
class Contrast:
    """An objective minus the baseline on one measure, diverged and failed runs at the measure's worst.

    `on`: `kl` or `best`; `at` the KL in nats. `cell` and `base` are the best cells of both (`best` alone). `n` counts
    the seeds with an outcome on both sides, also where lost runs leave no estimate. `verdict` holds the intervals, the
    word and the minimum detectable effect. `p` is Holm-corrected, None where no data could have made it significant.
    `among`: settings (or lines) that were not shown worse than those chosen, which the correction counts as well.
    `elsewhere`: the mean difference with settings chosen on the other seeds. `note`: what a reader must know of it.
    """

    arena: Arena
    objective: str
    baseline: str
    on: str
    at: float | None
    cell: Cell | None
    base: Cell | None
    n: int
    verdict: Verdict
    p: float | None
    among: int
    elsewhere: float | None
    note: str

    @property
    def made(self) -> bool:
        """Whether there is a difference at all: a best on both sides, or a KL that both reach."""
        return self.word not in (NO_BEST, NO_SHARED_KL)

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
        """What the interval is corrected for: comparisons of the measure times `among`."""
        return self.verdict.family

    @property
    def mde(self) -> float | None:
        """Smallest true difference that is found with power .8."""
        return self.verdict.mde

    @property
    def named(self) -> str:
        """`cpo_smooth \u2212 dpo at KL 1.5` or `cpo_smooth at beta 2 \u2212 dpo at beta 0.5`."""
        if self.cell is not None and self.base is not None:
            return f"{self.cell.named} \u2212 {self.base.named}"
        where = "" if self.at is None else f" at KL {at_kl(self.at)}"
        return f"{visible(self.objective)} \u2212 {visible(self.baseline)}{where}"


@dataclass(frozen=True, slots=True)
class _Pair:
    """One comparison before its verdict: `differences` by seed, how many settings it was `among`, `n` as a Contrast's;
    `refused` is the word of one that cannot be made."""

    arena: Arena
    objective: str
    on: str
    differences: Mapping[int, float]
    n: int
    planned: int
    among: int = 1
    at: float | None = None
    cell: Cell | None = None
    base: Cell | None = None
    items: ItemLevel | None = None
    elsewhere: float | None = None
    note: str = ""
    refused: str = ""


def build_contrasts(arenas: Iterable[Arena], baseline: str, measure: str) -> list[Contrast]:
    """All contrasts of one measure, in the order of the arenas; pairs without any common seed are left out."""
    pairs = [
        pair
        for arena in arenas
        for name in arena.objectives
        if name != baseline and baseline in arena.objectives
        for pair in (_at_kl(arena, name, baseline, measure), _at_best(arena, name, baseline, measure))
        if pair is not None
    ]
    made = [pair for pair in pairs if not pair.refused]
    found = iter(corrected_p([list(pair.differences.values()) for pair in made]))
    p = [None if pair.refused else next(found) for pair in pairs]
    return [_contrast(pair, baseline, measure, len(made), one) for pair, one in zip(pairs, p, strict=True)]


def _contrast(pair: _Pair, baseline: str, measure: str, family: int, p: float | None) -> Contrast:
    verdict = Verdict(NOTHING, NOTHING, pair.refused, family, None)
    if not pair.refused:
        verdict = judge(
            pair.differences,
            family=family * pair.among,
            planned=pair.planned,
            margin=practical_margin(MEASURES.get(measure, False)),
            direction=DIRECTIONS.get(measure, "none"),
            items=pair.items,
            alpha=pair.arena.alpha(pair.planned),
        )
    if pair.arena.rounds is not None:
        p = None  # no sign flip is valid after looks at the data
    return Contrast(
        pair.arena, pair.objective, baseline, pair.on, pair.at, pair.cell, pair.base, pair.n, verdict,
        None if p is None else min(1.0, p * pair.among), pair.among, pair.elsewhere, pair.note,
    )  # fmt: skip


def comparisons(arena: Arena, objective: str, baseline: str, measure: str = RANKING) -> list[Comparison]:
    """An objective minus the baseline at every KL that both reach."""
    return matched(arena.frontier(objective, measure), arena.frontier(baseline, measure))


def _at_kl(arena: Arena, name: str, baseline: str, measure: str) -> _Pair | None:
    if measure not in MATCHED:
        return None
    every = comparisons(arena, name, baseline, measure)
    one = middle(every)
    planned = arena.planned(name, baseline)
    if one is None:
        known = all(arena.frontier(objective, measure).own_kl for objective in (name, baseline))
        return _Pair(arena, name, AT_KL, {}, 0, planned, refused=NO_SHARED_KL) if known else None
    reached = "" if len(one.a) == one.seeds else f"reached by {len(one.a)} of {quantity(one.seeds, 'seed')}"
    return _Pair(
        arena, name, AT_KL, one.differences, len(one.a), planned, one.among, one.at,
        items=items_of(arena, one, measure), elsewhere=mean(one.elsewhere), note=reached,
    )  # fmt: skip


def _at_best(arena: Arena, name: str, baseline: str, measure: str) -> _Pair | None:
    chosen = at_best(arena.frontier(name), arena.frontier(baseline))
    settings = [arena.frontier(objective).best_setting for objective in (name, baseline)]
    cell, base = arena.cell(name, settings[0]), arena.cell(baseline, settings[1])
    if chosen is None or cell is None or base is None:
        return None
    edges = [(o, edge) for o in (name, baseline) if (edge := arena.edge(o)) is not None]
    note = "; ".join(edge_text(objective, edge) for objective, edge in edges)
    planned = min(cell.planned, base.planned)
    first, second = cell.treated(measure), base.treated(measure)
    seeds = sorted(set(first.seeds) & set(second.seeds))
    if not seeds:
        return None
    if any(edge.side != "only" for _, edge in edges):
        return _Pair(arena, name, AT_BEST, {}, 0, planned, note=note, refused=NO_BEST)
    known = sorted(first.values.keys() & second.values.keys())
    differences = {seed: first.values[seed] - second.values[seed] for seed in known}
    elsewhere = mean(chosen.elsewhere) if measure == RANKING else None
    return _Pair(
        arena, name, AT_BEST, differences, len(seeds), planned, chosen.among,
        cell=cell, base=base, items=cell.item_level(measure, base), elsewhere=elsewhere, note=note,
    )  # fmt: skip


def items_of(arena: Arena, one: Comparison, measure: str) -> ItemLevel | None:
    """What single pairs add to t over seeds at matched KL, where no single pair is known; None of what is no share."""
    if not MEASURES.get(measure, False):
        return None
    counts = [n for cell in arena.cells for n in cell.items(measure) or ()]
    return assumed_level(one.a, one.b, counts, any(cell.shares_pairs for cell in arena.cells))


def mean(values: Mapping[int, float]) -> float | None:
    """The mean over seeds; None without any."""
    return math.fsum(values.values()) / len(values) if values else None


def contrasts_csv(arenas: Sequence[Arena], baseline: str, axes: tuple[str, ...]) -> bytes:
    """`contrasts.csv`: `low`, `high` are the corrected interval, `low_plain`, `high_plain` the one of the row alone."""
    rows = []
    for measure in MEASURES:
        if measure.startswith("train_loss"):  # losses of two objectives are on different scales
            continue
        for c in build_contrasts(arenas, baseline, measure):
            columns = {
                "baseline": c.baseline, "baseline_beta": None if c.base is None else c.base.first.beta,
                "measure": measure, "n": c.n, "difference": c.plain.mean, "low": c.corrected.low,
                "high": c.corrected.high, "p_corrected": c.p, "verdict": c.word, "low_plain": c.plain.low,
                "high_plain": c.plain.high, "family": c.family if c.made else None, "mde": c.mde,
                "matched_on": c.on, "matched_at": c.at, "difference_elsewhere": c.elsewhere, "note": c.note,
            }  # fmt: skip
            rows.append(_columns(c, axes) | columns)
    objective, beta, *rest = CELL_COLUMNS
    header = (objective, beta, "baseline", "baseline_beta", *rest, "measure", "n", "difference", "low", "high")
    more = ("low_plain", "high_plain", "family", "mde", "matched_on", "matched_at", "difference_elsewhere", "note")
    return csv_bytes((*header, "p_corrected", "verdict", *axes, *more), rows)


def _columns(c: Contrast, axes: Iterable[str]) -> dict[str, Any]:
    """What a row begins with: of a comparison of frontiers only what all their settings share."""
    cells = (c.cell,) if c.cell is not None else c.arena.of(c.objective)
    first = cells[0].first
    beta = first.beta if c.cell is not None else None
    values = [axis_values(cell, axes) for cell in cells]
    shared = {axis: value for axis, value in values[0].items() if all(one[axis] == value for one in values)}
    named = dict(zip(CELL_COLUMNS, (c.objective, beta, first.corruption, cells[0].rate, first.misaligned), strict=True))
    return named | shared
