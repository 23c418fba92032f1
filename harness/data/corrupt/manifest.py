"""The manifest of one step: what was asked, what came of it, and what it did to the labels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.data.corrupt.select import Hits
from harness.data.corrupt.view import Bools, Floats, View, numbers
from harness.types import InputError

KEY_VERSION = 1
HASH_FUNCTION = "BLAKE2b-64 over length-prefixed (seed, stream, id); u = (top 52 bits + 1/2) / 2**52"


def step_manifest(view: View, hits: Hits, counts: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of one step, JSON-ready. `counts` brings sizes and hashes.

    `rate_realised` is the share of pairs the step acted on; pairs an annotator relabelled as they were do not count.
    `rate_requested` and `k_target` are null for derived-rate kinds. `k_unit` says what k counts.
    """
    actions = [hits.action] * len(hits.index) if isinstance(hits.action, str) else list(hits.action)
    acted = [a != "relabel_same" for a in actions]
    touched = len(actions) if hits.target is not None else sum(acted)
    return {
        "kind": view.kind,
        "params": {name: view.params[name] for name in sorted(view.params)},
        "mode": view.params.get("mode"),
        "rate_requested": view.rate,
        "seed": view.seed,
        "stream": view.kind,
        "hash_function": HASH_FUNCTION,
        "key_version": KEY_VERSION,
        "n_before": view.n,
        "n_eligible": int(view.eligible.sum()),
        "k_target": hits.target,
        "k_realised": hits.reached if hits.reached is not None else touched,
        "k_unit": hits.unit,
        "rate_realised": touched / view.n if view.n else 0.0,
        "n_ties": hits.ties,
        **counts,
        "stats": {**label_stats(view, hits, actions), **hits.stats},
    }


def label_stats(view: View, hits: Hits, actions: list[str]) -> dict[str, Any]:
    """What the flips did, from whatever facts cover all pairs; null where they do not.

    Flip rate by decile of the absolute gold margin (10 groups of equal size, ascending), correlation of flip and
    length difference (clean chosen minus rejected), share of delta_ref < 0 before and after, and how many clean pairs
    have a negative gold margin.
    """
    flipped = np.zeros(view.n, dtype=bool)
    flipped[[i for i, action in zip(hits.index.tolist(), actions, strict=True) if action == "flip"]] = True
    margin, delta_ref = _complete(view, "gold_margin"), _complete(view, "delta_ref")
    chosen_len, rejected_len = _complete(view, "chosen_len"), _complete(view, "rejected_len")
    deciles = share_before = share_after = correlation = None
    if margin is not None and view.n >= 10:
        order = sorted(range(view.n), key=lambda i: (abs(margin[i]), view.ids[i]))
        deciles = [float(part.mean()) for part in np.array_split(flipped[order], 10)]
    if chosen_len is not None and rejected_len is not None:
        correlation = _correlation(flipped, chosen_len - rejected_len)
    if delta_ref is not None and not view.changed.any() and view.n:
        now = delta_ref * view.label
        share_before, share_after = float((now < 0).mean()), float((np.where(flipped, -now, now) < 0).mean())
    return {
        "n_negative_gold_margin": None if margin is None else int((margin < 0).sum()),
        "flip_rate_by_margin_decile": deciles,
        "flip_length_correlation": correlation,
        "delta_ref_negative_before": share_before,
        "delta_ref_negative_after": share_after,
    }


def gold_source(view: View, hits: Hits) -> str | None:
    """Where the gold margins of the decision came from, or None where it used none."""
    if "gold_margin" not in hits.columns:
        return None
    if view.params.get("gold_from") == "scores":
        return "score_chosen - score_rejected"
    in_facts = "gold_margin" in view.facts.columns
    return "facts.gold_margin, then the pair's gold_margin" if in_facts else "the pair's gold_margin"


def _complete(view: View, name: str) -> Floats | None:
    """A fact that is there for all pairs. A statistic may be absent, so unusable values give None, not an error."""
    try:
        values = numbers(view, name)
    except InputError:
        return None
    return None if np.isnan(values).any() else values


def _correlation(hit: Bools, values: Floats) -> float | None:
    """Pearson correlation; sums run exactly rounded (fsum), so that row order cannot show in the last bit."""
    n = len(values)
    if n < 2 or hit.all() or not hit.any():
        return None
    mean, share = math.fsum(values) / n, float(hit.mean())
    square = math.fsum((values - mean) ** 2)
    if square == 0:
        return None
    return math.fsum((hit - share) * (values - mean)) / math.sqrt(square * n * share * (1 - share))
