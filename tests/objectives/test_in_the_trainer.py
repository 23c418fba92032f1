"""Every row that a spec can name trains: finite, with its state, and with the same bits alone as among the others."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.models.architecture import skeleton
from harness.models.lane_model import build_lanes, parameter_shapes, unflatten
from harness.models.logps import pair_logps_with
from harness.objectives import OBJECTIVES
from harness.training.loop import start, train
from harness.types import TrainingSpec
from tests.objectives.cases import NAMES
from tests.training.worlds import ARCHITECTURE, CPU, corpus, lane, pack, world

STEPS = TrainingSpec(steps=3, batch_size=8, learning_rate=1e-3, warmup_steps=1)
GIVEN = {"mixture": {"mixture": [{"name": "dpo"}, {"name": "hinge", "weight": 0.5}, {"name": "nll", "weight": 0.1}]}}
READY = [name for name in NAMES if not OBJECTIVES[name].needs and OBJECTIVES[name].tier != "internal"]


def trained(names):
    lanes = [lane(name, name, GIVEN.get(name, {}), training=STEPS, flip=0.2) for name in names]
    run = start(pack(lanes, checkpoints=(0, 3)), CPU)
    return run, list(train(run))


def test_every_ready_row_trains_and_no_lane_sees_another():
    run, records = trained(READY)
    assert bool(run.alive.all()), [name for name, fine in zip(READY, run.alive, strict=True) if not fine]
    before = lane("x", "dpo", {}, training=STEPS).weights
    for position, name in enumerate(READY):
        assert not torch.equal(run.model.weights(position), before), name
    for record in records:
        for column, values in record.columns.items():
            assert np.isfinite(values).all(), (record.run_key, column)
    for group in run.groups:
        for key, value in group.state.items():
            assert not torch.equal(value, torch.zeros_like(value)), (group.row.name, key)
    alone, _ = trained(["cpo_dual"])
    assert torch.equal(alone.model.flat[0], run.model.flat[READY.index("cpo_dual")])
    alone, _ = trained(["beta_dpo"])
    assert torch.equal(alone.model.flat[0], run.model.flat[READY.index("beta_dpo")])


NEEDY = [name for name in NAMES if OBJECTIVES[name].needs]


@pytest.mark.parametrize("name", NEEDY)
def test_rows_that_need_more_than_log_probs_get_it(name):
    """They train, start at their closed-form loss, and at step 0 policy and reference give the same extras."""
    lanes = [lane("a", name, {}, training=STEPS, flip=0.2), lane("b", name, {"beta": 0.3}, training=STEPS)]
    run = start(pack(lanes, checkpoints=(0, 3)), CPU)
    records = list(train(run))
    assert bool(run.alive.all())
    assert all(np.isfinite(values).all() for record in records for values in record.columns.values())
    alone = start(pack(lanes[:1], checkpoints=(0, 3)), CPU)
    list(train(alone))
    assert torch.equal(alone.model.flat[0], run.model.flat[0])
    assert not torch.equal(run.model.weights(0), lanes[0].weights)


def test_extras_by_their_definition():
    """Against a loop over pairs and tokens on the plain module."""
    table = corpus((0,))
    policy = build_lanes(skeleton(ARCHITECTURE), [world(1)[0]], CPU)
    reference = build_lanes(skeleton(ARCHITECTURE), [world(0)[0]], CPU)
    index = torch.arange(6)[None]
    needs = frozenset(key for name in NEEDY for key in OBJECTIVES[name].needs)
    with torch.no_grad():
        own, others = pair_logps_with(policy, reference, table, index, needs)
    for i, pair in enumerate(world(0)[1][:6]):
        shared = min(len(pair.chosen), len(pair.rejected))
        entropies = []
        for side, response in (("chosen", pair.chosen), ("rejected", pair.rejected)):
            p, q = (distributions(world(seed)[0], pair.prompt, response) for seed in (1, 0))
            taken = p[torch.arange(len(response)), torch.tensor(response.tolist())]
            other = q[torch.arange(len(response)), torch.tensor(response.tolist())]
            expected = {
                f"{side}_head": taken[:shared].sum(),
                f"{side}_kl": (q.exp() * (q - p)).sum(),
                f"{side}_log_weight": (taken - p.exp().pow(2).sum(-1).log()).mean(),
            }
            for key, value in expected.items():
                assert own.extra[key][0, i].item() == pytest.approx(value.item(), rel=1e-4, abs=1e-5), key
            assert others.extra[f"{side}_head"][0, i].item() == pytest.approx(other[:shared].sum().item(), rel=1e-4)
            entropies.append(-(q.exp() * q).sum(-1))
        share = sum(values.mean() for values in entropies) / 2 / np.log(ARCHITECTURE.vocab_size)
        assert others.extra["entropy_share"][0, i].item() == pytest.approx(share.item(), rel=1e-4)
    foreign = table.mismatched[:6]
    rows = table.ids[foreign]
    assert (rows[:, :8] == table.ids[:6, :8]).all() and not (rows == table.ids[:6]).all(-1).any()


def distributions(weights, prompt, response):
    model = skeleton(ARCHITECTURE)
    values = unflatten(weights, parameter_shapes(model))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(values[name])
        return model(torch.tensor([[*prompt, *response]])).logits.log_softmax(-1)[0, len(prompt) - 1 : -1]
