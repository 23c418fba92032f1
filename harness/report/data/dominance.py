"""Where one objective ranks better than the baseline at every matched KL, and `report/matched.csv`.

"At every matched KL" is an intersection-union claim: it is made only where the difference is shown at each of the KLs,
so no correction over the KLs is needed (Berger 1982), only over the pairs of objectives and the settings that each was
chosen among. Where it is not shown at all of them, the parts where it is are named at a level corrected for their
number as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from harness.metrics.frontier import Comparison
from harness.metrics.statistics import Estimate, Verdict, judge, practical_margin
from harness.report.data.cells import CELL_COLUMNS, RANKING
from harness.report.data.contrasts import DIRECTIONS, MATCHED, comparisons, items_of, mean
from harness.report.data.frontier import Arena
from harness.report.data.tables import MEASURES, csv_bytes

SHOWN = ("better", "worse")


@dataclass(frozen=True, slots=True)
class Stretch:
    """A run of KLs (nats, both ends among those compared) at which a difference is shown; `word` better or worse."""

    word: str
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Dominance:
    """An objective against the baseline over the KLs that every seed of both reaches.

    `whole`: those KLs' ends (None without any) and `rows` the comparisons with their verdicts. `everywhere` is better
    or worse where that is shown at each of them, else empty; `stretches` are then the parts where it is.
    """

    arena: Arena
    objective: str
    rows: tuple[tuple[Comparison, Verdict], ...]
    whole: tuple[float, float] | None
    everywhere: str
    stretches: tuple[Stretch, ...]

    @property
    def average(self) -> Estimate:
        """The difference averaged over those KLs, by seed; not corrected."""
        tables = [one.differences for one, _ in self.rows]
        seeds = sorted(set.intersection(*(set(table) for table in tables))) if tables else []
        means = {seed: math.fsum(table[seed] for table in tables) / len(tables) for seed in seeds}
        return judge(means).plain


def dominances(arenas: Iterable[Arena], baseline: str, measure: str = RANKING) -> list[Dominance]:
    """Every objective against the baseline in each arena where they have a KL in common."""
    pairs = _pairs(arenas, baseline, measure)
    return [_dominance(arena, name, baseline, every, measure, len(pairs)) for arena, name, every in pairs]


def _pairs(arenas: Iterable[Arena], baseline: str, measure: str) -> list[tuple[Arena, str, list[Comparison]]]:
    return [
        (arena, name, every)
        for arena in arenas
        for name in arena.objectives
        if name != baseline and baseline in arena.objectives and (every := comparisons(arena, name, baseline, measure))
    ]


def _dominance(
    arena: Arena, name: str, baseline: str, every: Sequence[Comparison], measure: str, family: int
) -> Dominance:
    whole = [one for one in every if len(one.a) == one.seeds]
    rows = tuple((one, _judged(arena, name, baseline, one, measure, family)) for one in whole)
    words = {verdict.word for _, verdict in rows}
    everywhere = words.pop() if len(words) == 1 and words <= set(SHOWN) else ""
    ends = (whole[0].at or 0.0, whole[-1].at or 0.0) if whole else None
    strict = [(one, _judged(arena, name, baseline, one, measure, family * len(whole)).word) for one in whole]
    parts = ((word, [one.at or 0.0 for one, _ in same]) for word, same in groupby(strict, key=lambda pair: pair[1]))
    stretches = tuple(Stretch(word, kls[0], kls[-1]) for word, kls in parts if word in SHOWN)
    return Dominance(arena, name, rows, ends, everywhere, stretches)


def _judged(arena: Arena, name: str, baseline: str, one: Comparison, measure: str, family: int) -> Verdict:
    planned = arena.planned(name, baseline)
    return judge(
        one.differences,
        family=family * one.among,
        planned=planned,
        alpha=arena.alpha(planned),
        margin=practical_margin(MEASURES.get(measure, False)),
        direction=DIRECTIONS.get(measure, "none"),
        items=items_of(arena, one, measure),
    )


def matched_csv(arenas: Sequence[Arena], baseline: str) -> bytes:
    """`matched.csv`: a row per KL at which an objective and the baseline are compared, seeds that do not reach it
    left out (`n` of `seeds`); intervals are corrected for the pairs of objectives, not for the KLs."""
    rows = []
    for measure in MATCHED:
        pairs = _pairs(arenas, baseline, measure)
        for arena, name, every in pairs:
            first = arena.of(name)[0]
            head = (name, None, first.first.corruption, first.rate, first.first.misaligned)
            for one in every:
                verdict = _judged(arena, name, baseline, one, measure, len(pairs))
                rows.append(
                    dict(zip(CELL_COLUMNS, head, strict=True))
                    | {"baseline": baseline, "condition": arena.title, "measure": measure, "kl": one.at}
                    | {"n": len(one.a), "seeds": one.seeds, "value": mean(one.a), "baseline_value": mean(one.b)}
                    | {"difference": verdict.plain.mean, "low": verdict.corrected.low, "high": verdict.corrected.high}
                    | {"low_plain": verdict.plain.low, "high_plain": verdict.plain.high, "family": verdict.family}
                    | {"difference_elsewhere": mean(one.elsewhere), "verdict": verdict.word}
                )
    header = (
        "objective", "baseline", "condition", *CELL_COLUMNS[2:], "measure", "kl", "n", "seeds", "value",
        "baseline_value", "difference", "low", "high", "low_plain", "high_plain", "family", "difference_elsewhere",
        "verdict",
    )  # fmt: skip
    return csv_bytes(header, rows)
