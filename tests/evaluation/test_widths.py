"""Evaluation in widths of the pairs: the numbers of whole rows, the bits of a run alone, the reference at step 0."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.data.order import batch_ids
from harness.data.rows import TokenisedPair, pack_rows
from harness.evaluation import heldout
from harness.evaluation.heldout import evaluate
from harness.evaluation.widths import read_responses
from harness.inputs.encoded import EncodedPairs
from harness.models import shapes
from harness.models.architecture import Architecture
from harness.models.folder import Source, start_weights
from harness.models.logps import build_corpus, reference_logps
from harness.models.pack import EvalSet, Lane, Pack
from harness.models.reference_logps import pair_keys, score_responses
from harness.objectives.registry import resolve
from harness.training.loop import start, train
from harness.types import LoraSpec, Record, TrainingSpec
from harness.worker.datasets import with_mismatches
from tests.models.families import write

CPU = torch.device("cpu")
TRAINING = TrainingSpec(steps=3, batch_size=4, learning_rate=1e-2, warmup_steps=1)
OBJECTIVES = (("dpo", {"beta": 2.0}), ("kto", {"beta": 0.5}), ("tdpo2", {"beta": 0.5}), ("ipo", {"beta": 0.1}))


@pytest.fixture(scope="module", params=[LoraSpec(rank=4), None], ids=["lora", "full"])
def architecture(request, tmp_path_factory) -> Architecture:
    folder = str(write("llama", tmp_path_factory.mktemp("widths") / "model"))
    return Architecture(0, 32, 2, 4, 48, 0, source=Source(folder, "widths", lora=request.param))


def pairs() -> list[TokenisedPair]:
    """24 pairs of 4 to 120 tokens, three to a prompt."""
    rng = np.random.default_rng(5)
    prompts = [rng.integers(3, 280, n).astype(np.int32) for n in (2, 60, 7, 20, 33, 9, 40, 15)]
    sides = [[rng.integers(3, 280, n).astype(np.int32) for n in rng.integers(1, 31, 2)] for _ in range(24)]
    return [TokenisedPair(f"{i:02}", prompts[i // 3], *both) for i, both in enumerate(sides)]


def packed(architecture: Architecture, numbers: list[int], ladder: bool = True, objectives=OBJECTIVES) -> Pack:
    """Lanes by number: objective, seed and evaluation set are their own."""
    own = pairs()
    weights = [start_weights(architecture.source, n % 2) for n in range(4)]
    table = score_responses(architecture, weights[0], own, CPU, ladder)
    chosen, rejected = pair_keys(own)
    block = EncodedPairs(pack_rows(own), (table.sums(chosen), table.sums(rejected)))
    blocks, mismatched = with_mismatches([block])
    corpus = build_corpus([b.rows for b in blocks], [b.reference for b in blocks], CPU, mismatched)
    lanes = []
    for n in numbers:
        order = torch.from_numpy(batch_ids([pair.id for pair in own], 1, TRAINING.steps, TRAINING.batch_size))
        rows = torch.arange(n, 24, 2 + n % 2)
        split = EvalSet("eval_clean", tuple(own[i].id for i in rows), rows, rows % 3 == 0)
        lanes.append(
            Lane(str(n), resolve(*objectives[n]), TRAINING, weights[n], order, torch.zeros_like(order).bool(), (split,))
        )
    return Pack(architecture, corpus, tuple(lanes), (0, 1, 3), ladder)


def records(pack: Pack) -> dict[tuple[str, int], Record]:
    return {(record.run_key, record.step): record for record in train(start(pack, CPU))}


@pytest.mark.parametrize("names", [("dpo", "ipo"), ("kto", "kto"), ("tdpo2", "tdpo2")], ids="-".join)
def test_lanes_equal_lone_runs_bit_for_bit(architecture, names, monkeypatch):
    monkeypatch.setattr(shapes, "MOST", 2)  # several chunks of every width
    options = dict(OBJECTIVES)
    objectives = [(name, options[name]) for name in names * 2]
    together = records(packed(architecture, [0, 1, 3], objectives=objectives))
    for n in (0, 1, 3):
        for key, record in records(packed(architecture, [n], objectives=objectives)).items():
            for name, values in record.columns.items():
                assert np.array_equal(together[key].columns[name], values), (key, name)


@pytest.mark.parametrize("number", range(4))
def test_widths_change_rounding_alone(architecture, number):
    own, wide = (records(packed(architecture, [number], ladder)) for ladder in (True, False))
    assert own.keys() == wide.keys()
    for key, record in own.items():
        for name, values in record.columns.items():
            # Training in widths of its own rounds otherwise, too, and amplifies that: see `test_batch_widths.py`.
            assert np.allclose(values, wide[key].columns[name], rtol=2e-3, atol=2e-3), (key, name)


def test_step_0_is_the_stored_reference_to_the_bit(architecture, monkeypatch):
    pack = packed(architecture, [0, 3])
    run = start(pack, CPU)
    index = torch.arange(24).expand(2, -1)
    live, stored = read_responses(run.model, pack.corpus, index), reference_logps(pack.corpus, index)
    assert torch.equal(live.chosen, stored.chosen) and torch.equal(live.rejected, stored.rejected)
    monkeypatch.setattr(heldout, "read_responses", None)  # no forward
    for record in evaluate(pack, run.model, None, run.groups, 0):
        moved = record.columns["policy_chosen"] - record.columns["reference_chosen"]
        assert not moved.any() and not record.columns["chosen_reward"].any()


def test_a_pair_is_evaluated_alike_in_any_set(architecture):
    pack = packed(architecture, [0])
    run = start(pack, CPU)
    list(train(run))
    rows = torch.tensor([20, 3, 3, 11])
    some, whole = (read_responses(run.model, pack.corpus, index[None]) for index in (rows, torch.arange(24)))
    assert torch.equal(some.chosen, whole.chosen[:, rows]) and torch.equal(some.rejected, whole.rejected[:, rows])
    lane = replace(pack.lanes[0], evals=(EvalSet("eval_clean", ("a",), rows[:1], torch.tensor([False])),))
    [record] = evaluate(replace(pack, lanes=(lane,)), run.model, None, run.groups, 3)
    assert record.columns["policy_chosen"][0] == whole.chosen[0, 20]
