"""The vote table: what majorities of the training labels say of held-out pairs, without any model.

Every training pair is a vote for one content over another about its question. A policy that only remembers what was
preferred cannot rank better; where held-out questions are new, the table knows nothing of them and ranks half right.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Vote:
    """A pair as a vote: its question in words from the most specific to the most general, the two contents."""

    question: tuple[str, ...]
    chosen: str
    rejected: str


def vote_table(training: Sequence[Vote], held_out: Sequence[Vote], levels: int = 1) -> float:
    """Share of held-out pairs whose chosen content has more net votes than the rejected one; a tie counts one half.

    With more `levels` a tie at one level is left to the next, more general one. NaN for no pair.
    """
    tally: Counter[tuple[str, str]] = Counter()
    for vote in training:
        for question in vote.question[:levels]:
            tally[question, vote.chosen] += 1
            tally[question, vote.rejected] -= 1

    def right(vote: Vote) -> float:
        gaps = (tally[question, vote.chosen] - tally[question, vote.rejected] for question in vote.question[:levels])
        gap = next((gap for gap in gaps if gap), 0)
        return 0.5 if gap == 0 else float(gap > 0)

    return math.fsum(map(right, held_out)) / len(held_out) if held_out else math.nan
