"""The names that users may rely on: importable from `harness` itself, without loading torch or pandas."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import harness
from harness import CORRUPTIONS, METRICS, OBJECTIVES, LossOutput, PairLogps, PreferencePair, corrupt

LIGHT = """
import sys
import harness
from harness import CORRUPTIONS, METRICS, OBJECTIVES, InputError, LossOutput, PairLogps, PreferencePair, corrupt
from harness import audit, compare, corrupt_file, diagnose, load, plan, publish, report, status, study, sweep
heavy = {"torch", "pandas", "transformers", "mlflow", "pydantic"} & set(sys.modules)
assert not heavy - {"pandas"}, heavy  # `load` returns pandas tables
"""


def test_public_names_load_no_torch():
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there_and_documented():
    assert set(dir(harness)) == set(harness.__all__)
    for name in harness.__all__:
        assert getattr(harness, name) is not None and f"`{name}" in (harness.__doc__ or "")
    with pytest.raises(AttributeError, match="no attribute 'sweeep'"):
        _ = harness.sweeep


def test_a_loss_by_hand():
    """beta = 0.1, log-ratios 1 and -2: -log sigmoid(0.3) = log(1 + exp(-0.3))."""
    sides = {"chosen_len": torch.tensor([3.0]), "rejected_len": torch.tensor([4.0])}
    policy = PairLogps(torch.tensor([-9.0]), torch.tensor([-12.0]), **sides)
    reference = PairLogps(torch.tensor([-10.0]), torch.tensor([-10.0]), **sides)
    output = OBJECTIVES["dpo"].loss(policy, reference, beta=0.1)
    assert isinstance(output, LossOutput)
    assert output.loss.item() == pytest.approx(0.5543552444685272, rel=1e-6)


def test_corrupt_returns_pairs_and_ledger():
    pairs = [PreferencePair(str(n), f"prompt {n}", "good", "bad") for n in range(10)]
    noisy, ledger = corrupt(pairs, kind="uniform_flip", rate=0.3, seed=1)
    flipped = {pair.id for pair in noisy if pair.chosen == "bad"}
    assert len(flipped) == 3 and set(ledger["id"]) == flipped
    assert "uniform_flip" in CORRUPTIONS and "ranking_accuracy" in METRICS
