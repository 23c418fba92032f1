"""Log-probs of given tokens without all logits in memory at once: what a large vocabulary would cost."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from harness.models.pack import LaneModel

# Logits of a lane that are held at once (fp32 numbers). Both bounds count one lane, so no bit depends on neighbours.
WHOLE = 2**26  # up to here all of a forward's; beyond, parts of PART, computed again in the backward pass
PART = 2**24


def picked_logps(model: LaneModel, hidden: Tensor, target: Tensor) -> Tensor:
    """Log-probs `(K * B, R)` of the tokens `target` `(K * B, R)` after hidden states `(K * B, R, d)`, fp32."""
    rows = hidden.shape[0] // model.lanes * int(model.model.config.vocab_size)
    if rows * hidden.shape[1] <= WHOLE:
        return _picked(model, hidden, target)
    width = max(PART // rows, 1)
    parts = zip(torch.split(hidden, width, 1), torch.split(target, width, 1), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([_picked(model, *part) for part in parts], 1)
    return torch.cat([checkpoint(_picked, model, *part, use_reentrant=False) for part in parts], 1)


def _picked(model: LaneModel, hidden: Tensor, target: Tensor) -> Tensor:
    # log_softmax works row by row, so a row's bits do not depend on the rows around it (logsumexp's do).
    return model.head(hidden).log_softmax(-1).gather(-1, target[..., None]).squeeze(-1)
