"""Noisy validation labels: the training set's own noise on held-out pairs, in a draw of its own, touching nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.corruptions.registry import CORRUPTIONS
from harness.corruptions.registry import resolve as resolve_corruption
from harness.identity import run_key
from harness.inputs.encoded import encode_inputs
from harness.inputs.mythworld import mythworld_architecture, mythworld_inputs
from harness.models.architecture import initial_weights
from harness.models.reference_logps import score_responses
from harness.types import CorruptionSpec
from harness.worker.datasets import training_set, validation_labels
from harness.worker.lanes import build_lane
from tests.sweep.test_training_sets import RUN, SPEC
from tests.training.worlds import CPU

BIG = replace(RUN, evaluation=replace(RUN.evaluation, heldout=400))
RATED = {name for name, row in CORRUPTIONS.items() if row.rate == "fixed"}


def score(inputs, pairs):
    return score_responses(inputs.architecture, inputs.weights, pairs, CPU)


def ready(run):
    return encode_inputs(mythworld_inputs(run, initial_weights(mythworld_architecture(SPEC), 0)), score)


@pytest.fixture(scope="module")
def encoded():
    return ready(BIG)


@pytest.mark.parametrize("kind", sorted(set(CORRUPTIONS) - {"sequence"}))
def test_every_kind_labels_the_held_out_pairs(encoded, kind):
    spec = resolve_corruption({"kind": kind, **({"rate": 0.2} if kind in RATED else {})})
    labels = validation_labels(encoded, spec, 0)
    assert labels.shape == (400,) and labels.dtype == np.int8 and set(labels.tolist()) <= {-1, 0, 1}
    assert (labels == validation_labels(encoded, spec, 0)).all()
    if kind == "none":
        assert (labels == 1).all()


def test_a_fifth_is_turned_in_a_draw_of_its_own(encoded):
    spec = CorruptionSpec("uniform_flip", 0.2)
    labels = validation_labels(encoded, spec, 0)
    assert (labels == -1).sum() == 80 and (labels == 0).sum() == 0
    assert (labels != validation_labels(encoded, spec, 1)).any()
    nested = validation_labels(encoded, CorruptionSpec("uniform_flip", 0.4), 0)
    assert (nested[labels == -1] == -1).all()  # as everywhere, what is turned at .2 is turned at .4


def test_changed_texts_and_dropped_pairs_are_no_labels(encoded):
    truncated = validation_labels(encoded, resolve_corruption({"kind": "truncate", "fraction": 0.5, "rate": 0.5}), 0)
    assert (truncated == 0).sum() == 200 and (truncated == 1).sum() == 200
    steps = [{"kind": "uniform_flip", "rate": 0.2}, {"kind": "curate_drop", "rate": 0.1}]
    curated = validation_labels(encoded, resolve_corruption({"sequence": steps}), 0)
    assert (curated == 0).sum() == 40 and (curated == -1).any()


def test_bradley_terry_sources_are_noisy_without_any_corruption():
    run = replace(BIG, world=replace(SPEC, labels="bradley_terry"))
    labels = validation_labels(ready(run), CorruptionSpec(), 0)
    assert 0.05 < (labels == -1).mean() < 0.35 and (labels != 0).all()


def test_records_carry_them_on_held_out_pairs_alone(encoded):
    run = replace(BIG, corruption=CorruptionSpec("uniform_flip", 0.2))
    data = training_set(encoded, run.corruption, run.seed, score)
    lane, columns = build_lane(run_key(run), run, encoded, data, 0, 0)
    start = 0
    for part in lane.evals:
        own = columns["validation_label"][start : start + len(part.ids)]
        assert (own == data.validation_label).all() if part.split == "eval_clean" else not own.any()
        start += len(part.ids)
    clean = encoded.inputs.evals["eval_clean"]
    assert lane.evals[1].ids == tuple(pair.id for pair in clean) and not lane.evals[1].flipped.any()
