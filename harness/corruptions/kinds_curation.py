"""What a curator would do about damage, as arms of a sweep: pairs whose label the reference distrusts."""

from __future__ import annotations

from harness.corruptions.row import CN, HERE, RATED, Corruption, by_severity

CURATION = (
    Corruption(
        name="curate_drop",
        function=f"{HERE}.rows:curate_drop",
        rank="smallest reference margin of the pair as labelled, ties by id",
        rate="fixed",
        changes="rows",
        laws=CN,
        citation="",
        summary="a curation arm: drop the pairs whose label the reference distrusts most",
        parameters=RATED,
        needs=("delta_ref",),
        severities=by_severity(0.1, 0.2, 0.4),
    ),
    Corruption(
        name="curate_relabel",
        function=f"{HERE}.flips:curate_relabel",
        rank="smallest reference margin of the pair as labelled, ties by id",
        rate="fixed",
        changes="labels",
        laws=CN,
        citation="",
        summary="a curation arm: flip the pairs whose label the reference distrusts most",
        parameters=RATED,
        needs=("delta_ref",),
        severities=by_severity(0.1, 0.2, 0.4),
    ),
)
