"""Every row that a spec can name trains: finite, with its state, and with the same bits alone as among the others."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.objectives import OBJECTIVES
from harness.training.loop import start, train
from harness.types import InputError, TrainingSpec
from tests.objectives.cases import NAMES
from tests.training.worlds import CPU, lane, pack

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


def test_what_the_trainer_cannot_give_yet_is_an_error_and_not_a_guess():
    """A row whose extra input is absent refuses to compute."""

    with pytest.raises(InputError, match=r"'kto' needs extra\['mismatched'\]"):
        trained(["kto"])
