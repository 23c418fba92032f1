"""Per-example records as columns: equal-length numpy arrays by name, and the few ways to cut and turn them.

A row is one pair at one step, in the orientation of its split: `chosen` is the side that split's label prefers.
Columns are those of `examples.parquet`; log-probs are nats, summed over response tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.types import InputError, Split

Array = NDArray[Any]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Columns = Mapping[str, Array]

SIDES = (
    ("policy_chosen", "policy_rejected"),
    ("reference_chosen", "reference_rejected"),
    ("chosen_len", "rejected_len"),
    ("chosen_reward", "rejected_reward"),
    ("ches", "ches_turned"),
    ("ln_ches", "ln_ches_turned"),
)
# What a swap of the two sides negates.
SIGNED = ("observed_label", "clean_label", "validation_label", "gold_margin")
# What a loss computed, in the orientation that it read: meaningless once the pair is turned.
LOSS_COLUMNS = ("loss", "base_loss", "grad_w", "grad_l")
SPLITS = (Split.TRAIN_OBSERVED, Split.TRAIN_CLEAN, Split.HELDOUT, Split.OOD)


def size(columns: Columns) -> int:
    """Number of rows (0 where there is no column)."""
    return len(next(iter(columns.values()))) if columns else 0


def column(columns: Columns, name: str) -> Array:
    """The column `name`; an InputError that names it and lists what is there otherwise."""
    if name not in columns:
        raise InputError(f"column '{name}' is missing from the records (there are: {', '.join(sorted(columns))})")
    return columns[name]


def numbers(columns: Columns, name: str) -> Floats:
    """The column `name` in float64, so that sums and differences of stored float32 lose nothing further."""
    return np.asarray(column(columns, name), dtype=np.float64)


def flags(columns: Columns, name: str) -> Bools:
    """The column `name` as booleans."""
    return np.asarray(column(columns, name), dtype=bool)


def select(columns: Columns, mask: Array) -> dict[str, Array]:
    """The rows where `mask` (n,) is true (or the rows that an index array lists), every column."""
    return {name: np.asarray(values)[mask] for name, values in columns.items()}


def where(columns: Columns, step: int | None = None, split: str | None = None) -> dict[str, Array]:
    """The rows of one step and/or one split; none where there are no such rows."""
    mask = np.ones(size(columns), dtype=bool)
    if step is not None:
        mask &= np.asarray(column(columns, "step") == step, dtype=bool)
    if split is not None:
        mask &= np.asarray(column(columns, "split") == split, dtype=bool)
    return select(columns, mask)


def steps(columns: Columns, split: str | None = None) -> list[int]:
    """The steps at which records exist (of one split, where named), ascending."""
    rows = columns if split is None else where(columns, split=split)
    return [int(step) for step in np.unique(column(rows, "step"))]


def turned(columns: Columns, mask: Array) -> dict[str, Array]:
    """The same rows, chosen and rejected swapped where `mask` is true; labels and gold margin change sign there.

    Losses and pulls (`LOSS_COLUMNS`) are dropped: they belong to the orientation they were computed in.
    """
    out = {name: np.asarray(values) for name, values in columns.items() if name not in LOSS_COLUMNS}
    for left, right in SIDES:
        if left in out and right in out:
            out[left], out[right] = np.where(mask, out[right], out[left]), np.where(mask, out[left], out[right])
    for name in SIGNED:
        if name in out:
            out[name] = np.where(mask, -out[name], out[name])
    return out


def cleaned(columns: Columns) -> dict[str, Array]:
    """Rows of `train_observed` in their clean orientation: turned where clean_label is -1.

    Right for corruptions that only relabel; where the text was changed the clean responses have their own log-probs.
    """
    return turned(columns, np.asarray(column(columns, "clean_label")) < 0)


def rows(examples: Columns, split: str, step: int | None = None, corrupted: bool | None = None) -> dict[str, Array]:
    """The rows of one of `SPLITS` (at one step): the one way by which every measure is had on every split.

    `train_clean` are the stored clean responses where a corruption changed text, else `train_observed` in its clean
    orientation (`cleaned`). `corrupted` keeps the touched pairs alone, or the untouched. No rows where the split has
    none; an InputError for an unknown split.
    """
    if split not in SPLITS:
        raise InputError(f"unknown split '{split}' (known: {', '.join(SPLITS)})")
    selected = where(examples, step, split)
    if split == Split.TRAIN_CLEAN and not size(where(examples, split=split)):
        selected = cleaned(where(examples, step, Split.TRAIN_OBSERVED))
    return selected if corrupted is None else select(selected, flags(selected, "corrupted") == corrupted)


def by_id(first: Columns, second: Columns) -> tuple[dict[str, Array], dict[str, Array]]:
    """Both tables on their common ids, ascending, row i of one beside row i of the other. Raises on a doubled id."""
    names = [column(columns, "id").astype(str) for columns in (first, second)]
    if any(len(set(ids.tolist())) != len(ids) for ids in names):
        raise InputError("ids are doubled: give the rows of one step and one split")
    if np.array_equal(names[0], names[1]):  # two steps of one run: one order serves both
        left = right = np.argsort(names[0], kind="stable")
    else:
        _, left, right = np.intersect1d(names[0], names[1], assume_unique=True, return_indices=True)
    return select(first, left), select(second, right)
