"""From inputs to lanes: what a relabelling costs, what changed text costs, and which way round every pair stands."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.corruptions.registry import resolve as resolve_corruption
from harness.data.order import probe_ids
from harness.identity import run_key
from harness.inputs.encoded import encode_inputs
from harness.inputs.mythworld import mythworld_architecture, mythworld_inputs
from harness.models.architecture import initial_weights
from harness.models.reference_logps import pair_keys, score_responses
from harness.objectives.registry import resolve
from harness.types import CorruptionSpec, EvaluationSpec, InputError, RunSpec, TrainingSpec, WorldSpec
from harness.worker.datasets import training_set
from harness.worker.lanes import build_lane
from tests.training.worlds import CPU

SPEC = WorldSpec(pairs=96, hidden_size=32, heads=2, intermediate_size=64)
RUN = RunSpec(
    resolve("dpo", {"beta": 2.0}),
    CorruptionSpec(),
    TrainingSpec(steps=6, batch_size=8),
    EvaluationSpec(checkpoints=2, heldout=16, probe=32, ood=8, samples=0),
    seed=0,
    world=SPEC,
)


class Counter:
    """A scorer that counts the responses it had to run through the model."""

    def __init__(self) -> None:
        self.forwards = 0

    def __call__(self, inputs, pairs):
        chosen, rejected = pair_keys(pairs)
        self.forwards += len({*chosen, *rejected})
        return score_responses(inputs.architecture, inputs.weights, pairs, CPU)


@pytest.fixture(scope="module")
def encoded():
    weights = initial_weights(mythworld_architecture(SPEC), 0)
    return encode_inputs(mythworld_inputs(RUN, weights), Counter())


def test_a_flip_costs_no_forward_pass(encoded):
    for given in (
        {"kind": "uniform_flip", "rate": 0.4},
        {"kind": "bt_flip"},
        {"kind": "adversarial_hard", "rate": 0.2},
        {"kind": "prompt_clustered", "rate": 0.3},
        {"kind": "contradictory_dup", "rate": 0.2},
        {"kind": "rm_noise", "noise": 1},
        {"kind": "curate_relabel", "rate": 0.1},
        {"kind": "mnar"},
    ):
        score = Counter()
        data = training_set(encoded, resolve_corruption(given), 0, score)
        assert score.forwards == 0 and data.extra is None, given
        assert data.corrupted.any() or len(data.ids) < 96, given


def test_fixed_columns_follow_the_orientation(encoded):
    """A flipped pair has the CHES of its exchanged sides, the kind that flipped it, and the prompt it always had."""
    clean, flips = (
        training_set(encoded, resolve_corruption(given), 0, Counter())
        for given in ({"kind": "none"}, {"kind": "uniform_flip", "rate": 0.4})
    )
    before, after = (build_lane("x", RUN, encoded, data, 0, 0)[1] for data in (clean, flips))
    turned = after["clean_label"] == -1
    assert turned.any() and not turned[32:].any()
    assert np.array_equal(after["ches"], np.where(turned, before["ches_turned"], before["ches"]))
    assert np.array_equal(after["ln_ches_turned"], np.where(turned, before["ln_ches"], before["ln_ches_turned"]))
    assert np.array_equal(after["corruption_kind"] == "uniform_flip", turned) and set(before["corruption_kind"]) == {""}
    assert np.array_equal(after["prompt_id"], before["prompt_id"]) and not after["vacuous"].any()


def test_identical_texts_are_marked(encoded):
    data = training_set(encoded, resolve_corruption({"kind": "identical", "rate": 0.5}), 0, Counter())
    columns = build_lane("x", RUN, encoded, data, 0, 1000)[1]
    vacuous, touched = columns["vacuous"], columns["corruption_kind"] == "identical"
    assert vacuous[:32].any() and np.array_equal(vacuous[:32], touched[:32])
    assert np.array_equal(touched[32:64], touched[:32]) and not vacuous[32:].any()  # the clean twins of the same pairs
    assert (columns["ches"][columns["vacuous"]] == 0).all()


def test_changed_text_is_scored_and_only_that(encoded):
    score = Counter()
    data = training_set(encoded, resolve_corruption({"kind": "truncate", "rate": 0.25}), 0, score)
    assert data.changed.sum() == 24 and data.extra is not None
    assert 24 <= score.forwards <= 48
    assert np.isnan(data.gold_margin[data.changed]).all() and np.isfinite(data.gold_margin[~data.changed]).all()


def test_orientation_survives_a_sequence(encoded):
    steps = [{"kind": "uniform_flip", "rate": 0.5}, {"kind": "truncate", "rate": 0.5, "side": "both"}]
    spec = resolve_corruption({"sequence": steps})
    data = training_set(encoded, spec, 0, Counter())
    flips = training_set(encoded, resolve_corruption(steps[0]), 0, Counter())
    assert np.array_equal(data.clean_label, flips.clean_label)
    assert (data.changed & (data.clean_label == -1)).any()
    assert not data.flipped[data.changed].any()  # a new row stands as labelled


def test_bradley_terry_labels_turn_pairs_before_any_corruption():
    run = replace(RUN, world=replace(SPEC, labels="bradley_terry", pairs=400))
    weights = initial_weights(mythworld_architecture(SPEC), 0)
    made = encode_inputs(mythworld_inputs(run, weights), Counter())
    clean = training_set(made, CorruptionSpec(), 0, Counter())
    assert 0.05 < clean.flipped.mean() < 0.25 and not clean.corrupted.any()
    assert ((clean.gold_margin < 0) == clean.flipped).all()
    flipped = training_set(made, resolve_corruption({"kind": "uniform_flip", "rate": 0.3}), 0, Counter())
    assert np.array_equal(flipped.flipped, clean.flipped ^ flipped.corrupted)


def test_a_set_without_pairs_is_refused(encoded):
    with pytest.raises(InputError, match="leaves no training pair"):
        training_set(encoded, resolve_corruption({"kind": "curate_drop", "rate": 1.0}), 0, Counter())


def test_lanes_of_a_replicate_share_data_and_order(encoded):
    data = training_set(encoded, resolve_corruption({"kind": "uniform_flip", "rate": 0.4}), 0, Counter())
    other = replace(RUN, objective=resolve("ipo", {"beta": 0.5}))
    lanes = [build_lane(run_key(run), run, encoded, data, 0, 0)[0] for run in (RUN, other)]
    assert (lanes[0].batches == lanes[1].batches).all() and (lanes[0].flipped == lanes[1].flipped).all()
    moved, columns = build_lane("x", RUN, encoded, data, 1000, 0)
    assert (moved.batches == lanes[0].batches + 1000).all()
    assert moved.evals[0].ids == probe_ids(data.ids, 32)
    assert len(columns["clean_label"]) == sum(len(part.ids) for part in moved.evals) == 32 + 16 + 8
