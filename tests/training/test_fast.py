"""`mode: fast` is the same training, rounded otherwise: nothing is left out but padding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.data.rows import TokenisedPair, pack_rows
from harness.models import unpadded
from harness.models.architecture import Architecture, initial_weights, skeleton
from harness.models.lane_model import build_lanes
from harness.models.logps import build_corpus, pair_logps, pair_logps_with
from harness.models.pack import EvalSet, Lane, Pack
from harness.training.loop import start, train
from harness.types import TrainingSpec
from tests.training.worlds import CPU, PAIRS, lane, pack

FAST = TrainingSpec(steps=12, batch_size=8, learning_rate=1e-3, warmup_steps=3, mode="fast")


def assert_close_after_training(found: np.ndarray, expected: np.ndarray, one: Lane) -> None:
    """Training amplifies rounding, on each processor by another factor: it stays far below what training itself does.

    A thousandth of how far the log-probs moved, where leaving out a step would change a twelfth.
    """
    _, before = final("strict", [replace(one, training=replace(one.training, learning_rate=0.0))])
    moved = np.abs(expected - before[one.key]).max()
    assert moved > 0.1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3 * moved)


def final(mode: str, lanes: list[Lane]) -> tuple[torch.Tensor, dict[str, np.ndarray]]:
    own = [replace(one, training=replace(one.training, mode=mode)) for one in lanes]
    run = start(pack(own, seeds=(0, 1)), CPU)
    last = {record.run_key: record.columns["policy_chosen"] for record in train(run)}
    return run.diverged_at[:, 0], last


def lanes() -> list[Lane]:
    return [
        lane("a", "dpo", {"beta": 2.0}, training=FAST, flip=0.2),
        lane("b", "ipo", {"beta": 0.1}, seed=1, offset=PAIRS, training=FAST),
        lane("c", "simpo", {"beta": 2.0}, training=FAST),
    ]


def test_final_log_probs_are_those_of_strict():
    _, strict = final("strict", lanes())
    _, fast = final("fast", lanes())
    for one in lanes():
        assert_close_after_training(fast[one.key], strict[one.key], one)
        assert not np.array_equal(fast[one.key], strict[one.key])  # another arithmetic indeed: the path was taken


def test_a_lane_depends_on_neighbours_of_other_orders_in_its_rounding_alone():
    _, together = final("fast", lanes())
    for one in lanes():
        _, alone = final("fast", [one])
        assert_close_after_training(together[one.key], alone[one.key], one)


def test_lanes_of_one_order_equal_their_lone_runs_to_the_bit():
    """Which the plan sees to (`sweep/packing.py`): such lanes need the same room in every step and evaluation."""
    own = [one for one in lanes() if one.key != "b"]
    _, together = final("fast", own)
    for one in own:
        _, alone = final("fast", [one])
        assert np.array_equal(together[one.key], alone[one.key])


def test_a_diverging_lane_is_contained():
    bad = replace(lanes()[0], key="bad", training=replace(FAST, learning_rate=float("inf")))
    diverged, found = final("fast", [bad, lanes()[1]])
    _, alone = final("fast", [lanes()[1]])
    assert diverged[0] >= 0 and diverged[1] == -1
    assert_close_after_training(found["b"], alone["b"], lanes()[1])


def random_pairs(count: int, longest: int, vocabulary: int) -> list[TokenisedPair]:
    rng = np.random.default_rng(0)

    def tokens() -> np.ndarray:
        return rng.integers(3, vocabulary, rng.integers(1, longest + 1)).astype(np.int32)

    return [TokenisedPair(str(i), tokens(), tokens(), tokens()) for i in range(count)]


@pytest.mark.parametrize("longest", [6, 100])  # rows of up to 18 tokens: plain products; up to 300: SDPA
@pytest.mark.parametrize("layers", [1, 2])
def test_values_and_gradients_without_padding(longest, layers):
    architecture = Architecture(64, 32, layers, 2, 64, 512)
    pairs = random_pairs(12, longest, 64)
    corpus = build_corpus([pack_rows(pairs)], None, CPU)
    model = build_lanes(skeleton(architecture), [initial_weights(architecture, seed) for seed in (0, 1)], CPU)
    index = torch.tensor([[0, 3, 5, 7], [1, 2, 3, 11]])
    responses = corpus.chosen_len + corpus.rejected_len
    space = unpadded.rooms(corpus.segment, responses, index[None])[0]
    assert space is not None and space.tokens < 4 * corpus.ids.shape[1]

    def gradient(fast: bool) -> tuple[torch.Tensor, torch.Tensor]:
        if fast:
            read, _ = pair_logps_with(model, None, corpus, index, frozenset(), space)
        else:
            read = pair_logps(model, corpus, index)
        values = torch.stack([read.chosen, read.rejected])
        return values.detach(), model.gradient((values * torch.tensor([1.0, -0.5])[:, None, None]).sum())

    (values, slope), (wanted, expected) = gradient(True), gradient(False)
    torch.testing.assert_close(values, wanted, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(slope, expected, rtol=1e-4, atol=1e-4)
    assert expected.abs().max() > 1


def test_full_rows_leave_nothing_to_save():
    pairs = [TokenisedPair(str(i), *(np.arange(3, 9, dtype=np.int32) for _ in range(3))) for i in range(4)]
    corpus = build_corpus([pack_rows(pairs)], None, CPU)
    responses = corpus.chosen_len + corpus.rejected_len
    assert unpadded.rooms(corpus.segment, responses, torch.arange(4)[None, None]) == [None]


def test_an_objective_that_needs_whole_distributions_trains_all_the_same():
    one = [replace(lane("t", "tdpo2", {"beta": 0.5}, training=FAST))]
    _, strict = final("strict", one)
    _, fast = final("fast", one)
    assert np.array_equal(strict["t"], fast["t"])


def test_evaluation_sets_may_be_empty():
    one = replace(lanes()[0], evals=(EvalSet("eval_clean", (), torch.zeros(0).long(), torch.zeros(0).bool()),))
    run = start(Pack(pack([one]).architecture, pack([one]).corpus, (one,), ()), CPU)
    assert list(train(run)) == [] and run.step == FAST.steps
