"""Whether a choice among objectives holds at every value of an axis, such as each learning rate of a sweep.

The recommendation is repeated among the arms of each level, by its own rule with every family of comparisons multiplied
by the number of levels: whichever objective is truly best at a level, it is shown worse at any of them with probability
at most .05. That something is shown at one level and not at another is no difference between the levels. So an axis
decides only where both sides are shown: what is kept at one level is shown worse at another, and the other way round.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from harness.metrics.not_shown_worse import BySeed, Judged, Pick, not_shown_worse
from harness.metrics.statistics import MIN_SEEDS

Setting = TypeVar("Setting", bound=Hashable)


class Across(StrEnum):
    """What the levels of an axis say of a choice together."""

    HOLDS = "holds"  # the same objectives are kept and the same shown worse at every level
    DEPENDS = "depends"  # it trades places with another objective, shown at both levels
    UNTOLD = "not told"  # everything else


@dataclass(frozen=True)
class Level(Generic[Setting]):
    """The recommendation at one level, over arms (objective, setting); `seeds`: the fewest of any arm."""

    pick: Pick[tuple[str, Setting]]
    seeds: int

    @property
    def kept(self) -> tuple[str, ...]:
        """Objectives with an arm that is not shown worse, the best first."""
        return tuple(dict.fromkeys(name for name, _ in self.pick.arms))

    @property
    def beaten(self) -> tuple[str, ...]:
        """Objectives whose arms are all shown worse, the best first."""
        return tuple(dict.fromkeys(name for name, _ in self.pick.beaten if name not in self.kept))


def at_level(
    values: Mapping[tuple[str, Setting], BySeed], judged: Judged[tuple[str, Setting]], levels: int
) -> Level[Setting]:
    """The recommendation among the arms of one of `levels` levels, from their quality by seed."""
    pick = not_shown_worse(values, lambda a, b, family: judged(a, b, family * levels))
    return Level(pick, min((len(by_seed) for by_seed in values.values() if by_seed), default=0))


def across(levels: Sequence[Level[Setting]], chosen: str) -> Across:
    """Whether the choice of one objective, run at every level, is the same at all of them."""
    if any(level.seeds < MIN_SEEDS for level in levels):
        return Across.UNTOLD
    won = {name for level in levels if chosen in level.kept for name in level.beaten}
    lost = {name for level in levels if chosen in level.beaten for name in level.kept}
    if won & lost:
        return Across.DEPENDS
    same = len({frozenset(level.kept) for level in levels}) == 1
    return Across.HOLDS if same and not lost and all(level.beaten for level in levels) else Across.UNTOLD
