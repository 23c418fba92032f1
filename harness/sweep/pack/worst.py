"""The texts behind a run's worst numbers: a few pairs with their prompts, so that a report can show what went wrong."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.measure.margins import delta
from harness.measure.records import Array, Columns, select, size, steps, where
from harness.types import PreferencePair

KEPT = 8  # pairs a split


def worst_pairs(examples: Columns, pairs: Mapping[str, Mapping[str, PreferencePair]]) -> dict[str, Array]:
    """Columns split, id, prompt, chosen, rejected of at most `KEPT` pairs a split, the worst first.

    Of `eval_clean` those with the lowest policy margin at the last step; of `train_observed` the wrongly labelled ones
    whose label the policy follows most strongly (`chosen` is what the label says). `pairs` holds them by split and id.
    Pairs with a margin that is not finite are left out.
    """
    last = steps(examples)[-1]
    found: list[tuple[str, PreferencePair]] = []
    for split, sign in (("eval_clean", 1.0), ("train_observed", -1.0)):
        rows = where(examples, last, split)
        if split == "train_observed":
            rows = select(rows, np.asarray(rows["clean_label"]) < 0)
        margin = sign * delta(rows) if size(rows) else np.zeros(0)
        ids = np.asarray(rows["id"]).astype(str)
        order = [i for i in np.lexsort((ids, margin)) if np.isfinite(margin[i])][:KEPT]
        found += [(split, pairs[split][ids[i]]) for i in order]
    texts = {name: [getattr(pair, name) for _, pair in found] for name in ("id", "prompt", "chosen", "rejected")}
    columns = {"split": [split for split, _ in found], **texts}
    return {name: np.array(values, dtype=object) for name, values in columns.items()}
