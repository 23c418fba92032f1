"""The verdict on a paired difference: one rule for contrasts, claims, studies and the recommendation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from harness.metrics.statistics.intervals import MIN_SEEDS, Estimate, Floats, finite
from harness.metrics.statistics.items import ItemLevel, joint_interval, standard_error
from harness.metrics.statistics.paired import simultaneous_level
from harness.metrics.statistics.power import detectable_effect, item_detectable_effect, unbiased_error

INTERVAL_ONLY = "interval only"
NO_DIFFERENCE = "no difference shown"
INCOMPLETE = "incomplete"

# One point of an accuracy, or of any share of pairs: fewer than 3 of 256 held-out pairs. Measures without a natural
# unit (rewards, nats) have no margin that is right for every model: there the interval alone decides.
SHARE_MARGIN = 0.01


@dataclass(frozen=True, slots=True)
class Verdict:
    """A paired difference as a report may state it.

    `plain`: the 95 % interval of this comparison alone; `corrected`: the simultaneous one over its `family`, at every
    number of seeds. `word`: better, worse, higher, lower, or one of the words above. `mde`: the smallest true
    difference that this test finds with power .8, None below 2 seeds.
    """

    plain: Estimate
    corrected: Estimate
    word: str
    family: int
    mde: float | None


def judge(
    differences: Mapping[int, float],
    *,
    family: int = 1,
    planned: int | None = None,
    margin: float = 0.0,
    direction: str = "up",
    items: ItemLevel | None = None,
    alpha: float = 0.05,
) -> Verdict:
    """The verdict on `differences` by seed (method minus what it is compared with).

    `family`: comparisons it is one of (Bonferroni). `planned`: seeds asked for; fewer are "incomplete". `margin`: the
    least |mean| that is called a difference (`practical_margin`). `direction` is the measure's: up, down or none.
    `items`: what single pairs add to t over seeds (`item_level`, `assumed_level`).

    Below 6 seeds the word is "interval only". "better" or "worse" need a corrected interval that excludes 0
    and |mean| >= `margin`; everything else is "no difference shown".
    """
    if direction not in ("up", "down", "none"):
        raise ValueError(f"direction must be up, down or none, got {direction!r}")
    values = finite([differences[seed] for seed in sorted(differences)])
    plain = joint_interval(values, items, 1 - alpha)
    corrected = joint_interval(values, items, simultaneous_level(family, alpha))
    mde = _detectable(values, items, family, margin, alpha) if values.size > 1 else None
    return Verdict(plain, corrected, word_of(corrected, planned or values.size, margin, direction), family, mde)


def _detectable(values: Floats, items: ItemLevel | None, family: int, margin: float, alpha: float) -> float:
    """The smallest true difference that this test finds with power .8; a share's brings variance of its own."""
    _, error, df = standard_error(values, items, simultaneous_level(family, alpha))
    added = None if items is None else items.pairs.added_by
    effect = detectable_effect(unbiased_error(error, df), df, family, margin=margin, alpha=alpha, added=added)
    if items is None or not items.floor:
        return effect
    return max(effect, item_detectable_effect(items.pairs.discordant, items.pairs.items, family, alpha=alpha))


def word_of(corrected: Estimate, planned: int, margin: float, direction: str) -> str:
    """The word for a corrected interval over its `n` of `planned` units, as `judge` gives it."""
    if planned < MIN_SEEDS or 0 < corrected.n < MIN_SEEDS:
        return INTERVAL_ONLY
    if corrected.n < planned:
        return INCOMPLETE
    if not corrected.excludes(0.0) or abs(corrected.mean) < margin:
        return NO_DIFFERENCE
    if direction == "none":
        return "higher" if corrected.mean > 0 else "lower"
    return "better" if (corrected.mean > 0) == (direction == "up") else "worse"


def practical_margin(share: bool) -> float:
    """The smallest |difference| that may be called better or worse, in the measure's unit; 0 where none is set."""
    return SHARE_MARGIN if share else 0.0


def wording(word: str, detectable: float | None = None) -> str:
    """A verdict as a sentence may carry it: "no difference shown (could hide <= .042)" where the MDE is known."""
    if word != NO_DIFFERENCE or detectable is None or not math.isfinite(detectable):
        return word
    return f"{word} (could hide \u2264 {detectable:.2g})"
