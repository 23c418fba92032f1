"""A corruption: annotators tire over long prompts."""

from __future__ import annotations

import numpy as np

from harness.corruptions.draw import Hits, View, smallest
from harness.corruptions.row import MODE, Corruption, by_severity


def long_prompt_flip(view: View) -> Hits:
    """Flip the k pairs with the longest prompts, in characters."""
    length = np.array([len(pair.prompt) for pair in view.pairs], np.float64)
    return smallest(view, -length, "flip", {"prompt_length": length})


ROWS = (
    Corruption(
        name="long_prompt_flip",
        function=long_prompt_flip,
        rate="fixed",
        changes="labels",
        laws="CNI",
        rank="longest prompts first",
        summary="flip the pairs with the longest prompts",
        parameters={"mode": MODE},
        severities=by_severity(0.1, 0.2, 0.4),
    ),
)
