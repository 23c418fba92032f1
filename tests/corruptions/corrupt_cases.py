"""Shared by the corruption tests: a small planted data set, and every kind in every form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from harness.corruptions import CORRUPTIONS
from harness.corruptions.ledger import perform
from harness.laws.corruptions import RATES, WORDS, by_id, half_up, run
from harness.laws.corruptions import planted as made
from harness.types import PreferencePair

__all__ = ["CASES", "NAMES", "RATES", "WORDS", "by_id", "half_up", "made", "masked_ids", "replay", "run", "takes_rate"]

# (kind, parameters): every row of the table under its defaults, and every further form.
CASES: tuple[tuple[str, dict[str, Any]], ...] = (
    *((kind, {}) for kind in CORRUPTIONS),
    ("bt_flip", {"form": "rate"}),
    ("length_biased", {"form": "rate"}),
    ("length_biased", {"unit": "words", "kappa": 2.0}),
    ("mnar", {"form": "rate"}),
    ("mnar", {"form": "rate", "on": "length", "a": 0.0, "b": 0.1}),
    ("mnar", {"on": "delta_ref", "b": -1.0}),
    ("near_tie", {"form": "filter"}),
    ("near_tie", {"tau": 0.5}),
    ("ref_shift", {"form": "reweight", "shift": 0.5}),
    ("prompt_clustered", {"rho": 0.5}),
    ("off_policy", {"form": "generator"}),
    ("truncate", {"side": "both", "fraction": 0.25}),
    ("truncate", {"unit": "characters"}),
    ("pointwise_quality", {"operator": "drop"}),
    ("pointwise_quality", {"operator": "repeat"}),
    ("spurious_feature", {"marker": "column", "kappa": 2.0}),
    ("rm_noise", {"unit": "sd", "noise": 0.5}),
    ("annotator_mixture", {"annotators": [{"share": 0.5, "kappa": 1, "temperature": 1}, {"share": 0.5, "eps": 0.2}]}),
)
NAMES = [f"{kind}-{'-'.join(map(str, params.values()))[:40]}".rstrip("-") for kind, params in CASES]


def takes_rate(kind: str, params: dict[str, Any]) -> bool:
    return CORRUPTIONS[kind].takes_rate(params)


def masked_ids(ledger: pd.DataFrame) -> set[str]:
    """Ids that count as corrupted: those acted on, an appended row under its own id."""
    hit = ledger[ledger["action"] != "relabel_same"]
    return set(hit["new_id"].where(hit["action"] == "append", hit["id"]))


def replay(pairs: Sequence[PreferencePair], ledger: pd.DataFrame) -> list[PreferencePair]:
    """The corrupted set, from the clean pairs (with the unique ids the ledger names) and the ledger alone."""
    out = list(pairs)
    for _, rows in ledger.groupby("step", sort=True):
        extra = [
            new if action == "append" else (int(copies) if action == "reweight" else None)
            for action, new, copies in zip(rows["action"], rows["new_id"], rows["copies"], strict=True)
        ]
        acts = zip(rows["action"], rows["new_chosen"], rows["new_rejected"], extra, strict=True)
        out, _ = perform(out, dict(zip(rows["id"], acts, strict=True)))
    return out
