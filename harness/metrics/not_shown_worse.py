"""The recommendation as a set: which arms are not shown worse than the best, and under which conditions.

An arm leaves the set where another is shown better by a one-sided paired t at .05 / (k - 1), k arms (multiple
comparisons with the best, Hsu 1984, with Bonferroni in place of a joint distribution). The truly best arm is in k - 1
of those comparisons, so it is left out with probability at most .05, whichever arm it is and however the arms are
correlated. What stands in the set is not shown to be equal; it is what this sweep cannot tell from the best. The error
holds in each condition: an arm that is the best under all m is missing from one of m sets with probability up to m .05.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from harness.metrics.statistics import Estimate, judge

ALPHA = 0.05

Arm = TypeVar("Arm", bound=Hashable)
BySeed = Mapping[int, float]
Judged = Callable[[Arm, Arm, int], Estimate]  # (a, b, family) -> interval of a - b whose ends are one-sided


@dataclass(frozen=True)
class Pick(Generic[Arm]):
    """The arms that are not shown worse than the best, the best mean first, and who is shown better than the others.

    `beaten`: arm -> the arm that beats it most clearly, with the corrected interval of its lead.
    """

    arms: tuple[Arm, ...]
    beaten: Mapping[Arm, tuple[Arm, Estimate]]


def one_sided(a: BySeed, b: BySeed, family: int, alpha: float = ALPHA) -> Estimate:
    """a - b over the seeds that both have; each end of its interval is wrong with probability alpha / family."""
    both = {seed: a[seed] - b[seed] for seed in a.keys() & b.keys()}
    return judge(both, family=family, alpha=2 * alpha).corrected


def not_shown_worse(values: Mapping[Arm, BySeed], judged: Judged[Arm] | None = None) -> Pick[Arm]:
    """The set of arms, from their quality by seed (higher is better; a lost run at its worst value).

    `judged` stands for `one_sided` where more than t over seeds is known. Arms without a value are left out; two arms
    without two common seeds are not told apart.
    """
    arms = sorted((arm for arm in values if values[arm]), key=lambda arm: (-_mean(values[arm]), str(arm)))
    lead = judged or (lambda a, b, family: one_sided(values[a], values[b], family))
    beaten = {}
    for arm in arms:
        better = [other for other in arms if other != arm and _mean(values[other]) > _mean(values[arm])]
        leads = {other: lead(other, arm, len(arms) - 1) for other in better}
        clear = [other for other in better if leads[other].low > 0]
        if clear:
            best = max(clear, key=lambda other: leads[other].low)
            beaten[arm] = (best, leads[best])
    return Pick(tuple(arm for arm in arms if arm not in beaten), beaten)


@dataclass(frozen=True)
class Band(Generic[Arm]):
    """Conditions, by their place, under all of which `arms` are not shown worse than the best."""

    places: tuple[int, ...]
    arms: tuple[Arm, ...]


def bands(picks: Sequence[Pick[Arm]]) -> tuple[Band[Arm], ...]:
    """Conditions in the order of their rate, cut where no arm is in the sets of all of them: a crossing.

    Within a band the arms stand in the order of their rank summed over its conditions.
    """
    found: list[Band[Arm]] = []
    start = 0
    for end in range(1, len(picks) + 1):
        common = set.intersection(*(set(pick.arms) for pick in picks[start : end + 1])) if end < len(picks) else set()
        if not common:
            found.append(Band(tuple(range(start, end)), _ordered(picks[start:end])))
            start = end
    return tuple(found)


def covers(picks: Sequence[Pick[Arm]]) -> tuple[Band[Arm], ...]:
    """Conditions that have no order: first those of the arm that stands in most sets, then the same for the rest.

    Among arms in equally many sets the one with the better ranks there decides.
    """
    found: list[Band[Arm]] = []
    left = list(range(len(picks)))
    while left:
        held = {
            arm: [place for place in left if arm in picks[place].arms] for place in left for arm in picks[place].arms
        }
        if not held:
            break
        ranks = {arm: sum(picks[place].arms.index(arm) for place in places) for arm, places in held.items()}
        best = min(held, key=lambda arm: (-len(held[arm]), ranks[arm], str(arm)))
        places = held[best]
        found.append(Band(tuple(places), _ordered([picks[place] for place in places])))
        left = [place for place in left if place not in places]
    return tuple(found)


def _ordered(picks: Sequence[Pick[Arm]]) -> tuple[Arm, ...]:
    common = [arm for arm in picks[0].arms if all(arm in pick.arms for pick in picks)]
    return tuple(sorted(common, key=lambda arm: (sum(pick.arms.index(arm) for pick in picks), str(arm))))


def cheapest(arms: Sequence[Arm], kl: Mapping[Arm, float], quality: Mapping[Arm, float]) -> tuple[Arm, ...]:
    """Those of the arms that no other of them beats in both mean KL (nats) and mean quality, the lowest KL first."""
    known = [arm for arm in arms if math.isfinite(kl.get(arm, math.nan))]

    def beats(a: Arm, b: Arm) -> bool:
        return kl[a] <= kl[b] and quality[a] >= quality[b] and (kl[a], quality[a]) != (kl[b], quality[b])

    front = [arm for arm in known if not any(beats(other, arm) for other in known)]
    return tuple(sorted(front, key=lambda arm: (kl[arm], str(arm))))


def _mean(values: BySeed) -> float:
    return math.fsum(values[seed] for seed in sorted(values)) / len(values)
