"""Training in the width of the batch: lanes equal lone runs to the bit, the rest changes by rounding alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.data.order import batch_ids
from harness.data.rows import TokenisedPair, pack_rows
from harness.inputs.encoded import EncodedPairs
from harness.models.architecture import Architecture
from harness.models.folder import Source, start_weights
from harness.models.logps import Widths, build_corpus, pair_logps, pair_logps_with
from harness.models.pack import EvalSet, Lane, Pack
from harness.models.reference_logps import pair_keys, score_responses
from harness.models.unpadded import rooms
from harness.objectives.registry import resolve
from harness.training.loop import Timetable, lane_state, start, timetable, train
from harness.types import LoraSpec, TrainingSpec
from harness.worker.datasets import with_mismatches
from tests.models.families import write

CPU = torch.device("cpu")
TRAINING = TrainingSpec(steps=4, batch_size=4, learning_rate=1e-2, warmup_steps=1)
NAMES = (("dpo", {"beta": 2.0}), ("ipo", {"beta": 0.1}), ("cpo_smooth", {"beta": 2.0}))


@pytest.fixture(scope="module", params=[LoraSpec(rank=4), None], ids=["lora", "full"])
def architecture(request, tmp_path_factory) -> Architecture:
    folder = str(write("llama", tmp_path_factory.mktemp("widths") / "model"))
    return Architecture(0, 32, 2, 4, 48, 0, source=Source(folder, "widths", lora=request.param))


def packed(architecture: Architecture, objectives, training: TrainingSpec = TRAINING, ladder: bool = True) -> Pack:
    """A lane for each objective, all of one order of 16 pairs of 4 to 120 tokens."""
    rng = np.random.default_rng(3)

    def drawn(most: int) -> np.ndarray:
        return rng.integers(3, 280, rng.integers(1, most)).astype(np.int32)

    own = [TokenisedPair(f"{i:02}", drawn(4 + 4 * i), drawn(20), drawn(20)) for i in range(16)]
    weights = start_weights(architecture.source, 0)
    table = score_responses(architecture, weights, own, CPU, ladder)
    chosen, rejected = pair_keys(own)
    blocks, mismatched = with_mismatches([EncodedPairs(pack_rows(own), (table.sums(chosen), table.sums(rejected)))])
    kto = any(name == "kto" for name, _ in objectives)
    corpus = build_corpus([b.rows for b in blocks], [b.reference for b in blocks], CPU, mismatched if kto else None)
    order = torch.from_numpy(batch_ids([pair.id for pair in own], 1, training.steps, training.batch_size))
    rows = torch.arange(16)
    split = EvalSet("eval_clean", tuple(pair.id for pair in own), rows, rows % 3 == 0)
    lanes = [
        Lane(str(n), resolve(name, given), training, weights, order, order % 5 == 0, (split,))
        for n, (name, given) in enumerate(objectives)
    ]
    return Pack(architecture, corpus, tuple(lanes), (0, training.steps), ladder)


def start_timetable(pack: Pack) -> Timetable:
    """What the updates of a pack read, from its beginning."""
    return timetable(pack, start(pack, CPU).model, [0] * len(pack.lanes), CPU)


def trained(pack: Pack) -> tuple[torch.Tensor, dict[tuple[str, str], np.ndarray]]:
    """Final weights `(K, P)` and the last records' columns."""
    run = start(pack, CPU)
    last = {(record.run_key, name): values for record in train(run) for name, values in record.columns.items()}
    return run.model.flat[:, : run.model.trained].detach().clone(), last


def test_each_batch_is_as_wide_as_its_longest_row_needs(architecture):
    pack = packed(architecture, NAMES)
    parts = start_timetable(pack).parts
    widths = [part.widths for [part] in parts]
    assert len(set(widths)) > 1 and max(one.tokens for one in widths) <= pack.corpus.ids.shape[1]
    for number, one in enumerate(widths):
        rows = pack.lanes[0].batches[number]
        assert (pack.corpus.segment[rows] >= 0).sum(1).max() <= one.tokens
        assert (pack.corpus.side[rows] > 0).sum(1).max() <= one.responses
    whole = Widths(pack.corpus.ids.shape[1], pack.corpus.target.shape[1])
    assert {part.widths for [part] in start_timetable(replace(pack, ladder=False)).parts} == {whole}


def test_a_lane_equals_its_lone_run_to_the_bit(architecture):
    weights, columns = trained(packed(architecture, NAMES))
    for n, one in enumerate(NAMES):
        pack = packed(architecture, [one])
        alone, own = trained(replace(pack, lanes=(replace(pack.lanes[0], key=str(n)),)))
        assert torch.equal(weights[n], alone[0])
        assert own and all(np.array_equal(columns[key], values) for key, values in own.items())


@pytest.mark.parametrize("objectives", [NAMES, [("kto", {"beta": 0.5})], [("tdpo2", {"beta": 0.5})]])
@pytest.mark.parametrize("mode", ["strict", "fast"])
def test_widths_and_micro_batches_change_rounding_alone(architecture, objectives, mode):
    weights, columns = trained(packed(architecture, objectives, ladder=False))
    for size in (0, 1, 3):
        training = replace(TRAINING, mode=mode, micro_batch=size)
        found, own = trained(packed(architecture, objectives, training))
        torch.testing.assert_close(found, weights, rtol=1e-3, atol=2e-4)
        for key, values in own.items():
            np.testing.assert_allclose(values, columns[key], rtol=2e-3, atol=2e-3, err_msg=str((size, key)))


BATCH = [("kto", {"beta": 0.5}), ("bco", {"beta": 0.5}), ("cpo_dual", {})]


@pytest.mark.parametrize("one", BATCH, ids=lambda one: one[0])
def test_a_gradient_over_micro_batches_is_that_of_the_batch(architecture, one):
    """One step without clipping and momentum: the weights move by the gradient's sign and size alone."""
    training = replace(TRAINING, steps=2, batch_size=8, max_grad_norm=1e9, warmup_steps=0)
    whole, _ = trained(packed(architecture, [one], training))
    parts, _ = trained(packed(architecture, [one], replace(training, micro_batch=3)))
    torch.testing.assert_close(parts, whole, rtol=1e-3, atol=2e-4)


def test_lanes_of_different_orders_are_refused_in_strict(architecture):
    pack = packed(architecture, NAMES)
    other = replace(pack.lanes[1], batches=pack.lanes[1].batches.flip(0))
    mixed = replace(pack, lanes=(pack.lanes[0], other))
    with pytest.raises(ValueError, match="batches of equal widths"):
        start_timetable(mixed)
    fast = [replace(lane, training=replace(TRAINING, mode="fast")) for lane in mixed.lanes]
    assert len(start_timetable(replace(mixed, lanes=tuple(fast))).parts) == TRAINING.steps


def test_resumed_equals_undisturbed(architecture):
    weights, columns = trained(packed(architecture, NAMES))
    run = start(packed(architecture, NAMES), CPU)
    list(train(run, until=2))
    states = [lane_state(run, lane) for lane in range(3)]
    again = start(packed(architecture, NAMES), CPU, states)
    last = {(record.run_key, name): values for record in train(again) for name, values in record.columns.items()}
    assert torch.equal(again.model.flat[:, : again.model.trained], weights)
    assert all(np.array_equal(columns[key], values) for key, values in last.items())


def test_bfloat16_rows_attend_alike_with_and_without_padding(tmp_path):
    """Scores of attention stay fp32, as in SDPA: rounded to bfloat16 they would move log-probs by tenths of nats."""
    source = Source(str(write("llama", tmp_path / "model")), "bf16", lora=LoraSpec(rank=4), dtype="bfloat16")
    pack = packed(Architecture(0, 32, 2, 4, 48, 0, source=source), NAMES[:1])
    run, corpus, index = start(pack, CPU), pack.corpus, torch.arange(16)[None]
    [room] = rooms(corpus.segment, corpus.chosen_len + corpus.rejected_len, index[None])
    assert run.model.compute is None and room is not None
    with torch.no_grad():
        padded = pair_logps(run.model, corpus, index).chosen
        skipped, _ = pair_logps_with(run.model, None, corpus, index, frozenset(), room)
    torch.testing.assert_close(skipped.chosen, padded, rtol=0, atol=1e-2)
