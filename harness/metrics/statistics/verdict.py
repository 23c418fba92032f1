"""The words a report may use for a difference, and the margin below which a difference is of no practical weight."""

from __future__ import annotations

import math

from harness.metrics.statistics.intervals import MIN_SEEDS, Estimate

INTERVAL_ONLY = "interval only"
NO_DIFFERENCE = "no difference shown"
INCOMPLETE = "incomplete"

# One point of an accuracy, or of any share of pairs: fewer than 3 of 256 held-out pairs. Measures without a natural
# unit (rewards, nats) have no margin that is right for every model: there the interval alone decides.
SHARE_MARGIN = 0.01


def practical_margin(share: bool) -> float:
    """The smallest |difference| that may be called better or worse, in the measure's unit; 0 where none is set."""
    return SHARE_MARGIN if share else 0.0


def verdict(
    corrected: Estimate, n: int, margin: float = 0.0, direction: str = "up", expected: int | None = None
) -> str:
    """The word a report may use for a paired difference (method minus baseline) with its corrected interval.

    Fewer than 6 seeds: "interval only". Fewer than `expected`: "incomplete". "better" or "worse" only where the
    corrected interval excludes 0 and |difference| >= `margin`; `direction` is the measure's (up: larger is better;
    down: smaller is better; none: "higher" or "lower"). Everything else is "no difference shown".
    """
    if direction not in ("up", "down", "none"):
        raise ValueError(f"direction must be up, down or none, got {direction!r}")
    if n < MIN_SEEDS:
        return INTERVAL_ONLY
    if expected is not None and n < expected:
        return INCOMPLETE
    if not corrected.excludes(0.0) or abs(corrected.mean) < margin:
        return NO_DIFFERENCE
    if direction == "none":
        return "higher" if corrected.mean > 0 else "lower"
    return "better" if (corrected.mean > 0) == (direction == "up") else "worse"


def wording(word: str, detectable: float | None = None) -> str:
    """A verdict as a sentence may carry it: "no difference shown (could hide <= .042)" where the MDE is known."""
    if word != NO_DIFFERENCE or detectable is None or not math.isfinite(detectable):
        return word
    return f"{word} (could hide \u2264 {detectable:.2g})"
