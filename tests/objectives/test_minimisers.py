"""The theory panel's closed forms against the objectives' own losses: each is where the population loss is lowest."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.metrics.theory import MARGINS, MINIMISERS, minimiser
from harness.objectives import OBJECTIVES
from tests.objectives.test_closed_forms import LEVEL, observed

# cpo_dual's stationary point lies at the fixed point of its multiplier, sympo's at infinity: tested where they train.
FINITE = sorted((set(MINIMISERS) | MARGINS) - {"cpo_dual", "sympo"})
CHANGED = {"contrastive_cpo": {"lam": 0.0}, "cpo_smooth": {"reduction": "sum"}, "robust_dpo": {"eps": 0.1}}
KNOBS = {"beta": 0.5, "gamma": 0.05}


def settings(name):
    row = OBJECTIVES[name]
    own = {key: parameter.default for key, parameter in row.hyperparameters.items()}
    return own | {key: value for key, value in KNOBS.items() if key in own} | CHANGED.get(name, {})


@pytest.mark.parametrize("name", FINITE)
@pytest.mark.parametrize("share", [0.55, 0.7, 0.85])
@pytest.mark.parametrize("reference", [-3.0, 1.0])
def test_no_other_margin_has_a_lower_loss(name, share, reference):
    """On a grid of margins around the closed form, one token a response, the loss is lowest at it."""
    hp = settings(name)
    ones = np.ones(1)
    rows = {
        "reference_chosen": ones * (LEVEL + reference / 2), "reference_rejected": ones * (LEVEL - reference / 2),
        "policy_chosen": ones * LEVEL, "policy_rejected": ones * LEVEL, "chosen_len": ones, "rejected_len": ones,
    }  # fmt: skip
    found = minimiser(name, rows, np.array([share]), hp)
    assert found is not None and np.isfinite(found).all()
    offsets = torch.tensor([0.0, *np.linspace(-3, 3, 60)], dtype=torch.float64)
    margins = offsets + float(found[0])
    share_of = torch.full_like(margins, share)
    losses = observed(name, torch.full_like(margins, reference), share_of, **hp)(margins)
    assert losses[0] <= losses.min() + 1e-9
