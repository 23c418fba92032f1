"""What is measured of a training, and that a step never waits for its device."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from harness.training.loop import start, train
from harness.training.timing import Spans, gemm_ceiling
from harness.types import TrainingSpec
from tests.training.worlds import CPU, lane, pack

# What reads a value of the device back: on a GPU each of them would stall the step.
WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "item", "equal", "_to_cpu", "unique", "masked_select")


class Waits(TorchDispatchMode):
    """Notes every operation that would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name.startswith(WAITS):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", ["strict", "fast"])
@pytest.mark.parametrize("objective", ["dpo", "cpo_dual", "bco", "kto"])
def test_no_step_waits_for_the_device(mode, objective):
    training = TrainingSpec(steps=4, batch_size=8, learning_rate=1e-3, warmup_steps=1, mode=mode)
    one = lane("a", objective, {"beta": 2.0}, training=training)
    run = start(pack([one, replace(one, key="b")], checkpoints=()), CPU)
    list(train(run, 1))  # the timetable is made once, before the first step
    with Waits() as waits:
        list(train(run))
    assert run.step == 4 and waits.seen == []


def test_the_counter_counts():
    with Waits() as waits:
        bool(torch.ones(1).sum() > 0)
        torch.ones(3).nonzero()
    assert len(waits.seen) == 2


def test_spans_add_up_by_name_and_cost_nothing_when_off():
    spans = Spans(on=True)
    run = start(pack([lane("a", "dpo", {"beta": 2.0})]), CPU)
    run.spans = spans
    list(train(run))
    assert set(spans.seconds) == {"forward", "head", "backward", "optimizer", "evaluation"}
    assert 0 < spans.seconds["head"] < spans.seconds["forward"]
    before = dict(spans.seconds)
    spans.on = False
    with spans("forward"):
        pass
    assert spans.seconds == before


def test_a_profiled_run_is_the_same_run():
    runs = [start(pack([lane("a", "dpo", {"beta": 2.0})]), CPU) for _ in range(2)]
    runs[0].spans = Spans(on=True)
    for run in runs:
        list(train(run))
    assert torch.equal(runs[0].model.flat, runs[1].model.flat)


def test_the_ceiling_is_a_speed_of_matrix_products():
    assert 1e8 < gemm_ceiling(CPU, seconds=0.01) < 1e15
