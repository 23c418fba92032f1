"""Quality of free-running samples: pure functions of the columns of `samples.parquet`, one row a response."""

from __future__ import annotations

import itertools

import numpy as np

from harness.measure.distributions import mean
from harness.measure.records import Array, Bools, Columns, Floats, column, flags, numbers, select
from harness.types import InputError

EVALUATION_SPLITS = ("eval", "eval_clean")
REPETITIVE = 0.5


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
    """Share of each response's word pairs that occurred before in it, in [0, 1); 0 below two words."""

    def repeated(text: str) -> float:
        words = text.split()
        pairs = list(itertools.pairwise(words))
        return 1.0 - len(set(pairs)) / len(pairs) if pairs else 0.0

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
