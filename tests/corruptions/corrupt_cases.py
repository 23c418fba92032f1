"""Shared by the corruption tests: a small planted data set, and every kind in every form."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import pandas as pd

from harness.corruptions import CORRUPTIONS, corrupt
from harness.corruptions.ledger import perform
from harness.identity import content_hash
from harness.types import PreferencePair

WORDS = [f"word{i}" for i in range(40)] + ["für", "naïve", "日本", "🙂"]
RATES = (0.0, 0.1, 0.3, 0.5, 1.0)

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


def made(n: int, seed: int = 0, prompts: int | None = None) -> tuple[list[PreferencePair], pd.DataFrame]:
    """`n` pairs with positive gold margins, texts of 3 to 12 words, and a full table of facts."""
    rng = random.Random(seed)
    pairs, facts = [], []
    for i in range(n):
        prompt = f"prompt {i % (prompts or max(4, n // 3))}"
        chosen = " ".join(rng.choice(WORDS) for _ in range(rng.randint(3, 12)))
        rejected = " ".join(rng.choice(WORDS) for _ in range(rng.randint(3, 12)))
        margin = abs(rng.gauss(1, 1)) + 1e-3
        identity = content_hash([prompt, chosen, rejected, i])
        pairs.append(PreferencePair(identity, prompt, chosen, rejected, "made", margin, {"row": i}))
        facts.append(
            {
                "id": identity,
                "prompt_id": prompt,
                "score_chosen": margin,
                "score_rejected": 0.0,
                "chosen_len": len(chosen.split()) + 1,
                "rejected_len": len(rejected.split()) + 1,
                "delta_ref": rng.gauss(0, 3),
                "gold_margin": margin,
                "marker_chosen": float(rng.random() < 0.3),
                "marker_rejected": float(rng.random() < 0.3),
                "generator_chosen": f"other good {i}",
                "generator_rejected": f"other bad {i}",
            }
        )
    return pairs, pd.DataFrame(facts)


def run(
    kind: str, params: dict[str, Any], pairs: list[PreferencePair], facts: Any, rate: float = 0.3, seed: int = 0
) -> tuple[list[PreferencePair], pd.DataFrame]:
    """`corrupt` with the rate where the case takes one."""
    share = rate if takes_rate(kind, params) else None
    return corrupt(pairs, kind=kind, rate=share, seed=seed, facts=facts, **params)


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


def half_up(share: float, n: int) -> int:
    return math.floor(share * n + 0.5)


def by_id(pairs: list[PreferencePair]) -> dict[str, PreferencePair]:
    found = {pair.id: pair for pair in pairs}
    assert len(found) == len(pairs), "ids are unique"
    return found
