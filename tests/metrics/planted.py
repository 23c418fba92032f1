"""Records with planted log-probs, for the tests of measures."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from hypothesis import strategies as st

from harness.laws.metrics import records
from harness.metrics.margin_columns import log_ratio_margin
from harness.metrics.records import Columns

__all__ = ["dpo_pull", "full", "pairs", "records", "stack"]


def full(split: str, step: int, columns: Columns, beta: float = 0.5) -> dict[str, np.ndarray]:
    """`columns` as rows of `examples.parquet`, with a dpo loss and its rewards."""
    n = len(columns["id"])
    shift_w = columns["policy_chosen"] - columns["reference_chosen"]
    shift_l = columns["policy_rejected"] - columns["reference_rejected"]
    loss = np.logaddexp(0.0, -beta * (shift_w - shift_l))
    rows: Mapping[str, np.ndarray] = {
        "step": np.full(n, step, dtype=np.int32),
        "split": np.array([split] * n),
        "loss": loss,
        "base_loss": loss,
        "chosen_reward": beta * shift_w,
        "rejected_reward": beta * shift_l,
    }
    return {**columns, **rows}


def stack(*tables: Columns) -> dict[str, np.ndarray]:
    """The rows of all tables below one another."""
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


# Log-probs from a coarse grid: ties in delta, delta_ref and gain turn up all the time, and rounding at the 1e-5 level.
coarse = st.sampled_from([-7.0, -6.5, -6.0, -5.5, -5.0, -5.0 + 3e-5, -6.0 - 7e-5, -6.0 + 2e-4])
smooth = st.floats(-300.0, 0.0, width=32)
SIDES = ("policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected")


@st.composite
def pairs(draw: st.DrawFn, max_size: int = 12) -> dict[str, np.ndarray]:
    """Arbitrary records: tie-laden or smooth float32 log-probs, any lengths."""
    n = draw(st.integers(1, max_size))
    values = draw(st.sampled_from([coarse, smooth, st.one_of(coarse, smooth)]))
    columns: dict[str, np.ndarray] = {
        side: np.array(draw(st.lists(values, min_size=n, max_size=n)), dtype=np.float32) for side in SIDES
    }
    for side in ("chosen_len", "rejected_len"):
        columns[side] = np.array(draw(st.lists(st.integers(1, 40), min_size=n, max_size=n)), dtype=np.int32)
    signs = draw(st.lists(st.sampled_from([-1, 1]), min_size=n, max_size=n))
    columns["clean_label"] = np.array(signs, dtype=np.int8)
    columns["observed_label"] = np.ones(n, dtype=np.int8)
    gaps = draw(st.lists(st.sampled_from([0.25, 1.0, 2.0, np.nan]), min_size=n, max_size=n))
    columns["gold_margin"] = np.array(gaps, dtype=np.float32)
    columns["id"] = np.array([f"p{i}" for i in range(n)])
    return columns


def dpo_pull(columns: Columns, beta: float) -> np.ndarray:
    """-d loss / d delta of dpo, in closed form: beta sigmoid(-beta log-ratio margin)."""
    return beta / (1 + np.exp(beta * log_ratio_margin(columns)))
