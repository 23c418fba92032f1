"""Free-running samples of every lane at the end of training, scored under policy and reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness.models.generate import pad_prompts, sample, score_samples
from harness.models.load import Architecture, skeleton
from harness.models.pack import LaneModel, build_lanes


@dataclass(frozen=True, eq=False)
class SamplePlan:
    """What one lane samples: prompt ids, and uniforms `(n, L)` that decide its tokens."""

    prompts: Sequence[np.ndarray]
    uniforms: np.ndarray


@dataclass(frozen=True, eq=False)
class LaneSamples:
    """One lane's samples: token ids each, log-ratio estimates of KL(policy || reference) in nats, lengths, `ended`."""

    responses: tuple[np.ndarray, ...]
    k1: np.ndarray
    k3: np.ndarray
    length: np.ndarray
    ended: np.ndarray


def sample_lanes(
    architecture: Architecture,
    model: LaneModel,
    references: Sequence[Tensor],
    plans: Sequence[SamplePlan],
    eos: int,
    width: int,
) -> list[LaneSamples]:
    """Sample every lane on its plan; all plans have the same number of prompts, padded on the left to `width`.

    `references[k]` `(P,)` are the weights that lane k is compared with. k1 = log pi - log pi_ref and
    k3 = exp(-k1) - 1 + k1 per sequence, both unbiased for the KL on samples of the policy.
    """
    device = model.flat.device
    pads = [pad_prompts(plan.prompts, width=width) for plan in plans]
    prompts = torch.stack([ids for ids, _ in pads]).to(device)
    real = torch.stack([mask for _, mask in pads]).to(device)
    uniforms = torch.from_numpy(np.stack([plan.uniforms for plan in plans])).to(device, torch.float32)
    drawn = sample(model, prompts, real, uniforms, eos=eos)
    reference = build_lanes(skeleton(architecture), references, device)
    k1 = (drawn.logps - score_samples(reference, prompts, real, drawn)).double().cpu().numpy()
    tokens, lengths = drawn.tokens.cpu().numpy(), drawn.lengths.cpu().numpy()
    return [
        LaneSamples(
            responses=tuple(row[:n] for row, n in zip(tokens[lane], lengths[lane], strict=True)),
            k1=k1[lane].astype(np.float32),
            k3=(np.expm1(-k1[lane]) + k1[lane]).astype(np.float32),
            length=lengths[lane].astype(np.int32),
            ended=drawn.ended[lane].cpu().numpy(),
        )
        for lane in range(len(plans))
    ]
