"""Seeds in rounds: how much error the look after each round may spend, and when a comparison is settled.

The look after n of at most N seeds tests at level alpha [(n/N)^5 - (n'/N)^5], n' the look before: the power family of
Kim and DeMets (1987). The levels of all looks add up to alpha, so the intervals of the looks hold together whatever
makes a sweep stop, and whatever the dependence between looks (repeated confidence intervals, Jennison and Turnbull
1989). docs/statistics.md has simulated error, power and seeds needed.
"""

from __future__ import annotations

import math

from harness.metrics.statistics.intervals import t_quantile
from harness.metrics.statistics.paired import simultaneous_level
from harness.metrics.statistics.verdict import INTERVAL_ONLY, NO_DIFFERENCE, Verdict
from harness.types import SeedRounds

LATE = 5.0  # exponent of the spending: near O'Brien and Fleming, so that the last look keeps most of its power
HOPE = 1.5  # standard errors by which the true difference may be larger than it looks


def look_alpha(rounds: SeedRounds, seeds: int, alpha: float = 0.05) -> float:
    """The level at which the look after `seeds` seeds tests; `alpha` is that of all looks together.

    Seeds between two looks, of which some are lost or missing, count as the look before.
    """
    past = [look for look in rounds.looks if look <= seeds] or [rounds.least]
    before = past[-2] if len(past) > 1 else 0
    return alpha * (math.pow(past[-1] / rounds.most, LATE) - math.pow(before / rounds.most, LATE))


def is_settled(verdict: Verdict, rounds: SeedRounds, seeds: int, margin: float = 0.0) -> bool:
    """Whether more seeds would hardly change `verdict`, made after `seeds` seeds at `look_alpha`.

    It is where something was found or the comparison cannot be made at all, where the whole interval lies within the
    margin, and where the last look would find nothing even if the true difference were `HOPE` standard errors larger
    than the mean. The latter can only miss a difference: it adds no error.
    """
    if verdict.word == INTERVAL_ONLY:
        return False
    interval = verdict.corrected
    level = simultaneous_level(verdict.family, look_alpha(rounds, seeds))
    if verdict.word != NO_DIFFERENCE or interval.low == interval.high or max(-interval.low, interval.high) < margin:
        return True
    error = (interval.high - interval.low) / 2 / t_quantile(level, interval.n - 1)
    last = simultaneous_level(verdict.family, look_alpha(rounds, rounds.most))
    reach = (abs(interval.mean) / error + HOPE) * math.sqrt(rounds.most / seeds)
    return reach < t_quantile(last, rounds.most - 1)
