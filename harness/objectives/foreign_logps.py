"""Losses and gradients by pair of stored log-probs: what an objective makes of pairs scored by another trainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.objectives.registry import OBJECTIVES
from harness.types import PairLogps


def pair_losses(
    objective: str, hyperparameters: Mapping[str, Any], columns: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[np.float64]]:
    """`base_loss` of every pair (n,) and what it pulls at: grad_w = -d/d log p(w), grad_l = d/d log p(l), 1/nat.

    `columns` are the six of a log-prob file. Only for objectives that need nothing beside them.
    """

    def logps(model: str) -> PairLogps:
        chosen, rejected, chosen_len, rejected_len = (
            torch.tensor(columns[name], dtype=torch.float64)
            for name in (f"{model}_chosen", f"{model}_rejected", "chosen_len", "rejected_len")
        )
        return PairLogps(chosen, rejected, chosen_len, rejected_len)

    policy = logps("policy")
    sides = policy.chosen.requires_grad_(), policy.rejected.requires_grad_()
    with torch.enable_grad():
        loss = OBJECTIVES[objective].loss(policy, logps("reference"), **hyperparameters).base_loss
    chosen, rejected = torch.autograd.grad(loss.sum(), sides)
    return {"base_loss": loss.detach().numpy(), "grad_w": -chosen.numpy(), "grad_l": rejected.numpy()}
