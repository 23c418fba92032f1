"""Learning-rate schedules: by hand, and cosine against torch's own."""

from __future__ import annotations

import pytest
import torch

from harness.training.optim import learning_rate
from harness.types import TrainingSpec


def rates(schedule: str, **settings: float) -> list[float]:
    training = TrainingSpec(steps=7, learning_rate=2.0, warmup_steps=2, schedule=schedule, **settings)
    return [learning_rate(step, training) for step in range(7)]


def test_linear_and_constant_by_hand():
    assert rates("linear", final_lr_fraction=0.0) == pytest.approx([1, 2, 2, 1.5, 1, 0.5, 0])
    assert rates("constant") == [1, 2, 2, 2, 2, 2, 2]


def test_cosine_is_torch_s():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4, eta_min=0.2)
    expected = []
    for _ in range(5):
        expected += schedule.get_last_lr()
        optimizer.step()
        schedule.step()
    assert rates("cosine", final_lr_fraction=0.1)[2:] == pytest.approx(expected)
