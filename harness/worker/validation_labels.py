"""What a user with noisy labels could validate on: the held-out pairs as labelled by the training set's own noise.

The records keep it as one more column of the clean held-out pairs; no pair, no measure and no run is changed by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from harness.corruptions.apply import apply_spec
from harness.corruptions.registry import needs
from harness.identity import stream_seed
from harness.types import CorruptionSpec, PreferencePair

if TYPE_CHECKING:
    import pandas

    from harness.worker.datasets import EncodedInputs, EncodedPairs

VALIDATION = "eval_clean"


def validation_labels(prepared: EncodedInputs, spec: CorruptionSpec, seed: int) -> np.ndarray:
    """+1, -1 or 0 `(n,)` by held-out pair: the source's labels, corrupted by `spec` in a draw of its own.

    -1 where the noisy label prefers the truly rejected response, 0 where a noisy set would not hold the pair as it is
    (dropped, or with other texts).
    """
    pairs = prepared.setting.evals.get(VALIDATION, ())
    flips = prepared.setting.validation_flips
    flips = np.zeros(len(pairs), bool) if flips is None else flips
    labelled = [swap(pair) if flip else pair for pair, flip in zip(pairs, flips, strict=True)]
    if spec.kind != "none" and labelled:
        start = prepared.evals[VALIDATION].start
        facts = facts_table(labelled, flips, prepared.block, start) if needs(spec) else None
        labelled, _ = apply_spec(spec, labelled, stream_seed(seed, "validation corruption"), facts)
    found = {pair.id: pair for pair in labelled}
    return np.array([_label(pair, found.get(pair.id)) for pair in pairs], dtype=np.int8)


def _label(pair: PreferencePair, noisy: PreferencePair | None) -> int:
    if noisy is None:
        return 0
    if (noisy.chosen, noisy.rejected) == (pair.chosen, pair.rejected):
        return 1
    return -1 if (noisy.chosen, noisy.rejected) == (pair.rejected, pair.chosen) else 0


def swap(pair: PreferencePair) -> PreferencePair:
    """The same comparison labelled the other way round, scores included."""
    meta = dict(pair.meta)
    if "score_chosen" in meta and "score_rejected" in meta:
        meta["score_chosen"], meta["score_rejected"] = meta["score_rejected"], meta["score_chosen"]
    margin = None if pair.gold_margin is None else -pair.gold_margin
    return replace(pair, chosen=pair.rejected, rejected=pair.chosen, gold_margin=margin, meta=meta)


def facts_table(
    labelled: Sequence[PreferencePair], flips: np.ndarray, block: EncodedPairs, start: int
) -> pandas.DataFrame:
    """What a corruption may know of each pair, in the orientation the source labels it.

    The clean pair i stands in row `start + i` of `block`; `flips` `(n,)` where its label is the other way round.
    """
    import pandas as pd

    own = slice(start, start + len(labelled))
    rows, (chosen, rejected) = block.rows, block.reference
    sign = np.where(flips, -1.0, 1.0)
    facts = pd.DataFrame(
        {
            "id": [pair.id for pair in labelled],
            "chosen_len": np.where(flips, rows.rejected_len[own], rows.chosen_len[own]),
            "rejected_len": np.where(flips, rows.chosen_len[own], rows.rejected_len[own]),
            "delta_ref": sign * (chosen[own].astype(np.float64) - rejected[own]),
        }
    )
    for name in ("prompt_id", "score_chosen", "score_rejected"):
        if all(name in pair.meta for pair in labelled):
            facts[name] = [pair.meta[name] for pair in labelled]
    if all(pair.gold_margin is not None for pair in labelled):
        facts["gold_margin"] = [pair.gold_margin for pair in labelled]
    return facts
