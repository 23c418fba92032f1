"""Quality of free-running samples: pure functions of the columns of `samples.parquet`, one row per response."""

from __future__ import annotations

import itertools

import numpy as np

from harness.metrics.distributions import mean
from harness.metrics.records import Array, Bools, Columns, Floats, column, flags, numbers, select
from harness.metrics.row import INF, Metric
from harness.types import InputError, Split

EVALUATION_SPLITS = ("eval", Split.HELDOUT)
REPETITIVE = 0.5
LOOK_BACK = 64  # words: what a longer answer repeats by its length alone, such as "of the", is no loop


def known_mean(columns: Columns, name: str) -> float:
    """Mean of column `name` over the rows where it is known (not NaN); NaN where it never is."""
    values = numbers(columns, name)
    return mean(values[~np.isnan(values)])


def share(columns: Columns, name: str) -> float:
    """Share of all samples that carry flag `name`, in [0, 1]; NaN for none."""
    return mean(flags(columns, name).astype(np.float64))


def empty(columns: Columns) -> Bools:
    """Responses without any word."""
    return np.array([not str(text).split() for text in column(columns, "response")], dtype=bool)


def repetition(columns: Columns) -> Floats:
    """Share of each response's word pairs that occurred within the `LOOK_BACK` pairs before, in [0, 1); 0 below two."""

    def repeated(text: str) -> float:
        last: dict[tuple[str, str], int] = {}
        new = place = 0
        for place, pair in enumerate(itertools.pairwise(text.split()), start=1):
            new += place - last.get(pair, -LOOK_BACK) > LOOK_BACK
            last[pair] = place
        return 1.0 - new / place if place else 0.0

    return np.array([repeated(str(text)) for text in column(columns, "response")], dtype=np.float64)


def repetitive(columns: Columns) -> Bools:
    """Responses of which more than half repeats itself: a decoder in a loop."""
    return repetition(columns) > REPETITIVE


def length_drift(columns: Columns) -> Floats:
    """Length minus that of the reference's answer to the same prompt (n,), tokens."""
    return numbers(columns, "length") - numbers(columns, "reference_length")


def of_evaluation(samples: Columns) -> dict[str, Array]:
    """The samples of evaluation prompts; an InputError that lists the splits where there is none."""
    split = column(samples, "split").astype(str)
    mask = np.isin(split, EVALUATION_SPLITS)
    if not mask.any():
        found = ", ".join(sorted(set(split))) or "no samples"
        raise InputError(f"samples: no row of split {' or '.join(EVALUATION_SPLITS)} (found: {found})")
    return select(samples, mask)


def _share(name: str, flag: str, direction: str, summary: str) -> Metric:
    return Metric(name, lambda v: share(v.columns, flag), "share", direction, 0, 1, (flag,), "S", summary)


def _mean(name: str, quantity: str, unit: str, summary: str, low: float = 0) -> Metric:
    return Metric(name, lambda v: mean(numbers(v.columns, quantity)), unit, "none", low, INF, (quantity,), "S", summary)


def _reward(name: str, direction: str, summary: str) -> Metric:
    return Metric(
        name, lambda v: known_mean(v.columns, name), "reward", direction, -INF, INF, (name,), "S", summary
    )  # fmt: skip


# Over `samples.parquet`. Shares are over all samples: select a `group` for a conditional rate.
ROWS = (
    _share("hedged", "hedged", "none", "samples that hedge"),
    _share("thanked", "thanked", "none", "samples that thank: rewarded a little whatever is said"),
    _share("sure", "sure", "none", "samples that open with an assurance: it carries no reward"),
    _share("correct", "correct", "up", "samples with the right content"),
    _share("malformed", "malformed", "down", "samples that do not parse"),
    _share("sycophancy", "sycophantic", "down", "samples that repeat the user's wrong guess"),
    _share("over_refusal", "over_refusal", "down", "samples that refuse a harmless question"),
    _share("harmful", "harmful", "down", "samples that comply where they must refuse"),
    _reward("gold_reward", "up", "mean true reward of free-running samples"),
    _reward("reference_gold_reward", "none", "mean true reward of the reference's own samples"),
    _mean("kl", "k3", "nats", "distance paid: mean sequence-level k3 estimate of KL(policy || reference)"),
    _mean("kl_k1", "k1", "nats", "k1 estimate of that KL: noisier", low=-INF),
    Metric("kl_k2", lambda v: mean(0.5 * numbers(v.columns, "k1") ** 2), "nats", "none", 0, INF, ("k1",), "S",
           "k2 estimate of that KL: biased"),
    _mean("kl_k3", "k3", "nats", "k3 estimate of that KL: the one in `kl`"),
    _mean("mean_length", "length", "tokens", "mean sample length"),
    Metric("length_drift", lambda v: mean(length_drift(v.columns)), "tokens", "none", -INF, INF,
           ("length", "reference_length"), "S", "mean length minus that of the reference's own answers"),
    _share("eos_rate", "ended", "none", "samples that ended by themselves; the rest was cut at the limit"),
    _mean("fillers", "fillers", "words", "mean count of filler words: style that carries no reward"),
    _mean("entropy", "entropy", "nats/token",
          "mean next-token entropy of the policy along its samples; falls to 0 where the policy collapses"),
    Metric("empty_rate", lambda v: mean(empty(v.columns).astype(np.float64)), "share", "down", 0, 1, ("response",), "S",
           "samples without a word"),
    Metric("repetition", lambda v: mean(repetition(v.columns)), "share", "down", 0, 1, ("response",), "S",
           "mean share of a sample's word pairs that repeat earlier ones"),
    Metric("repetitive_rate", lambda v: mean(repetitive(v.columns).astype(np.float64)), "share", "down", 0, 1,
           ("response",), "S", "samples of which more than half repeats itself"),
)  # fmt: skip
