"""What a curator would do about label noise, as arms of a sweep: drop or flip the pairs whose label is distrusted.

It is distrusted by the reference or by models of the other prompts' labels. The arms read the pairs as labelled now, so
that they can follow a corruption in a sequence.
"""

from __future__ import annotations

from harness.corruptions.crossfit import agreement
from harness.corruptions.draw import Hits, View, labelled, smallest
from harness.corruptions.row import MODE, RATED, Corruption, by_severity


def curate_drop(view: View) -> Hits:
    """Drop the k pairs whose label the reference distrusts most: smallest delta_ref as labelled now (nats)."""
    delta = labelled(view, "delta_ref")
    return smallest(view, delta, "drop", {"delta_ref": delta})


CURATE_DROP = Corruption(
    name="curate_drop", function=curate_drop, rate="fixed", changes="rows", laws="CN",
    rank="smallest reference margin of the pair as labelled, ties by id",
    summary="a curation arm: drop the pairs whose label the reference distrusts most",
    parameters=RATED,
    needs=("delta_ref",),
    severities=by_severity(0.1, 0.2, 0.4),
)  # fmt: skip


def curate_relabel(view: View) -> Hits:
    """Flip the k pairs whose label the reference distrusts most: smallest delta_ref as labelled now (nats)."""
    delta = labelled(view, "delta_ref")
    return smallest(view, delta, "flip", {"delta_ref": delta})


CURATE_RELABEL = Corruption(
    name="curate_relabel", function=curate_relabel, rate="fixed", changes="labels", laws="CN",
    rank="smallest reference margin of the pair as labelled, ties by id",
    summary="a curation arm: flip the pairs whose label the reference distrusts most",
    parameters=RATED,
    needs=("delta_ref",),
    severities=by_severity(0.1, 0.2, 0.4),
)  # fmt: skip


def crossfit_drop(view: View) -> Hits:
    """Drop the k pairs whose label is least probable under models that saw no pair of their prompt (2509.23564)."""
    return smallest(view, agreement(view), "drop")


CROSSFIT_DROP = Corruption(
    name="crossfit_drop", function=crossfit_drop, rate="fixed", changes="rows", laws="CN",
    rank="least probable label under out-of-fold models, ties by id",
    summary="a curation arm: drop the pairs whose label models of the other prompts' labels contradict",
    citation="2509.23564",
    parameters={"mode": MODE},
    severities=by_severity(0.1, 0.2, 0.4),
)  # fmt: skip


def crossfit_relabel(view: View) -> Hits:
    """Flip the k pairs whose label is least probable under models that saw no pair of their prompt (2509.23564)."""
    return smallest(view, agreement(view), "flip")


CROSSFIT_RELABEL = Corruption(
    name="crossfit_relabel", function=crossfit_relabel, rate="fixed", changes="labels", laws="CN",
    rank="least probable label under out-of-fold models, ties by id",
    summary="a curation arm: flip the pairs whose label models of the other prompts' labels contradict",
    citation="2509.23564",
    parameters={"mode": MODE},
    severities=by_severity(0.1, 0.2, 0.4),
)  # fmt: skip


ROWS = (CURATE_DROP, CURATE_RELABEL, CROSSFIT_DROP, CROSSFIT_RELABEL)
