"""Batch order is a function of (seed, epoch, id), so comparisons stay paired."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data.order import batch_ids, probe_ids

names = st.lists(st.text("abcdef0123456789", min_size=1, max_size=8), min_size=1, max_size=30, unique=True)


def epochs(ids: list[str], seed: int, count: int) -> list[list[str]]:
    return [[ids[i] for i in row] for row in batch_ids(ids, seed, count, len(ids))]


@settings(deadline=None, max_examples=100)
@given(names, st.integers(0, 2**40), st.integers(1, 9), st.integers(1, 9))
def test_shape_and_every_epoch_is_a_permutation(ids: list[str], seed: int, steps: int, batch: int) -> None:
    order = batch_ids(ids, seed, steps, batch)
    assert order.shape == (steps, batch) and order.dtype == np.int64
    flat = order.ravel().tolist()
    for at in range(0, len(flat), len(ids)):  # the last stretch may be part of an epoch: then without repeats
        part = flat[at : at + len(ids)]
        assert len(set(part)) == len(part) and set(part) <= set(range(len(ids)))


@settings(deadline=None, max_examples=100)
@given(names, st.integers(0, 2**40), st.randoms(use_true_random=False))
def test_order_of_ids_does_not_matter_and_dropping_keeps_the_rest(ids, seed, random) -> None:
    full = epochs(ids, seed, 3)
    shuffled = random.sample(ids, len(ids))
    assert epochs(shuffled, seed, 3) == full
    kept = shuffled[: max(1, len(ids) // 2)]
    assert epochs(kept, seed, 3) == [[i for i in epoch if i in kept] for epoch in full]


def test_longer_runs_and_other_batch_sizes_see_the_same_sequence() -> None:
    ids = [f"id{i}" for i in range(10)]
    long = batch_ids(ids, 3, 12, 4).ravel()
    assert batch_ids(ids, 3, 4, 4).ravel().tolist() == long[:16].tolist()
    assert batch_ids(ids, 3, 16, 3).ravel().tolist() == long.tolist()


def test_seeds_and_epochs_differ() -> None:
    ids = [f"id{i}" for i in range(50)]
    first, second = epochs(ids, 0, 2)
    assert first != second and first != epochs(ids, 1, 1)[0]


def test_golden_order() -> None:
    """Frozen: a change here changes every run of an unchanged spec, so RECIPE_VERSION must change with it."""
    ids = ["a", "b", "c", "d", "e"]
    assert batch_ids(ids, 0, 2, 4).tolist() == [[1, 2, 3, 4], [0, 0, 3, 1]]
    assert probe_ids(ids, 3) == ("b", "e", "d")


def test_probes_are_nested_and_independent_of_order() -> None:
    ids = [f"id{i}" for i in range(40)]
    assert probe_ids(ids, 10) == probe_ids(ids[::-1], 20)[:10]
    assert set(probe_ids(ids, 100)) == set(ids)
    assert probe_ids([], 5) == ()


def test_refuses() -> None:
    with pytest.raises(ValueError, match="no ids"):
        batch_ids([], 0, 1, 1)
    with pytest.raises(ValueError, match="unique"):
        batch_ids(["a", "a"], 0, 1, 1)
