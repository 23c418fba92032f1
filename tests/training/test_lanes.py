"""A lane never sees its neighbours: alone, in any pack and at any place it gives the same bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.training.loop import checkpoint_steps, start, train
from harness.types import TrainingSpec
from tests.training.worlds import CPU, PAIRS, lane, pack

LANES = [
    ("dpo", {"beta": 2.0}, 0, 0.0),
    ("ipo", {"beta": 0.1}, 1, 0.2),
    ("cpo_smooth", {"beta": 2.0, "reduction": "sum", "gamma": 1.0, "alpha": 1.0}, 0, 0.4),
    ("dpo", {"beta": 5.0}, 1, 0.0),
    ("simpo", {"beta": 2.5}, 0, 0.2),
    ("robust_dpo", {"beta": 0.5, "eps": 0.2}, 1, 0.4),
    ("hypo", {"beta": 2.0}, 0, 0.0),
    ("cpo_smooth", {"beta": 5.0}, 1, 0.2),
]


def run(numbers: list[int]) -> dict[int, tuple[torch.Tensor, list[np.ndarray]]]:
    """Train these lanes as one pack; weights and every record column by lane number."""
    lanes = [
        lane(str(n), LANES[n][0], LANES[n][1], seed=LANES[n][2], offset=PAIRS * LANES[n][2], flip=LANES[n][3])
        for n in numbers
    ]
    training = start(pack(lanes, seeds=(0, 1)), CPU)
    records: dict[str, list[np.ndarray]] = {str(n): [] for n in numbers}
    for record in train(training):
        records[record.run_key] += [record.columns[name] for name in sorted(record.columns)]
    return {n: (training.model.flat[i].detach().clone(), records[str(n)]) for i, n in enumerate(numbers)}


@pytest.fixture(scope="module")
def alone() -> dict[int, tuple[torch.Tensor, list[np.ndarray]]]:
    return {n: run([n])[n] for n in range(len(LANES))}


@pytest.mark.parametrize(
    "numbers", [[0, 1, 2], [2, 1, 0], [5, 6, 7], list(range(8)), [7, 3, 5, 1, 0, 2, 6, 4], [4, 4 - 1]]
)
def test_a_lane_equals_its_lone_run_bit_for_bit(numbers, alone):
    together = run(numbers)
    for n in numbers:
        assert torch.equal(together[n][0], alone[n][0])
        assert len(together[n][1]) == len(alone[n][1]) > 0
        assert all(np.array_equal(a, b) for a, b in zip(together[n][1], alone[n][1], strict=True))


def test_lanes_do_differ(alone):
    assert len({tuple(weights[:50].tolist()) for weights, _ in alone.values()}) == len(LANES)


def test_a_diverging_lane_is_contained(alone):
    bad = lane(
        "bad",
        "dpo",
        {"beta": 2.0},
        training=TrainingSpec(steps=12, batch_size=8, learning_rate=float("inf"), warmup_steps=3),
    )
    good = lane("0", "dpo", {"beta": 2.0})
    training = start(pack([bad, good], seeds=(0, 1)), CPU)
    list(train(training))
    assert training.diverged_at[0, 0] >= 0 and training.diverged_at[1, 0] == -1
    assert torch.equal(training.model.flat[1].detach(), alone[0][0])


def test_a_lane_that_breaks_keeps_its_last_finite_weights():
    lanes = [lane("a", "dpo", {"beta": 2.0}), lane("b", "dpo", {"beta": 2.0})]
    training = start(pack(lanes), CPU)
    steps = train(training)
    next(steps)
    with torch.no_grad():
        training.model.flat[0, 0] = float("nan")
    list(steps)
    assert training.diverged_at[:, 0].tolist() == [0, -1]
    assert torch.isfinite(training.model.flat[1]).all()


def test_checkpoints_are_log_spaced_and_hold_both_ends():
    assert checkpoint_steps(200, 6) == (0, 12, 25, 50, 100, 200)
    assert checkpoint_steps(1, 8) == (0, 1)
    for steps in (1, 2, 3, 7, 80, 500):
        for count in range(2, 9):
            got = checkpoint_steps(steps, count)
            assert len(got) <= count and got[0] == 0 and got[-1] == steps and sorted(set(got)) == list(got)


def test_step_zero_is_the_reference():
    training = start(pack([lane("a", "dpo", {"beta": 2.0}), lane("b", "cpo_smooth", {"beta": 2.0})]), CPU)
    for record in train(training):
        if record.step == 0:
            gain = (record.columns["policy_chosen"] - record.columns["reference_chosen"]) - (
                record.columns["policy_rejected"] - record.columns["reference_rejected"]
            )
            assert np.abs(gain).max() <= 1e-4
