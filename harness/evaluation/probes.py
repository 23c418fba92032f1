"""The two log-prob gradients of single pairs under every lane: their norms and inner product."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from harness.models.lane_model import LaneModel
from harness.models.logps import Corpus, oriented, pair_logps


def gradient_products(model: LaneModel, corpus: Corpus, index: Tensor, flipped: Tensor) -> np.ndarray:
    """<g_w, g_l>, |g_w|^2, |g_l|^2 `(K, n, 3)` float64 of the corpus rows `index` `(K, n)`, turned where `flipped`.

    g_w, g_l are the gradients of the summed log-prob of the chosen and of the rejected response over the lane's
    trainable parameters. One pair a lane and pass: the gradient of a sum over lanes holds each lane's own in its row.
    """
    device = model.flat.device
    index, flipped = index.to(device), flipped.to(device)
    found = []
    for pair in range(index.shape[1]):
        part = slice(pair, pair + 1)
        sides = [
            model.gradient(getattr(oriented(pair_logps(model, corpus, index[:, part]), flipped[:, part]), side).sum())
            for side in ("chosen", "rejected")
        ]
        chosen, rejected = (side.double() for side in sides)
        products = [(chosen * rejected).sum(-1), (chosen * chosen).sum(-1), (rejected * rejected).sum(-1)]
        found.append(torch.stack(products, -1).cpu().numpy())
    return np.stack(found, axis=1)
