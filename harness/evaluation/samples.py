"""Free-running samples: of every lane at the end, scored under policy and reference, and of the reference itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness.models.architecture import Architecture, skeleton
from harness.models.generate import Samples, pad_prompts, sample, score_samples
from harness.models.lane_model import LaneModel, build_lanes


@dataclass(frozen=True, eq=False)
class SamplePlan:
    """What one lane samples: prompt ids, and uniforms `(n, L)` that decide its tokens."""

    prompts: Sequence[np.ndarray]
    uniforms: np.ndarray


@dataclass(frozen=True, eq=False)
class LaneSamples:
    """One lane's samples: token ids each, log-ratio estimates of KL(policy || reference) in nats, lengths, `ended`.

    `entropy` `(n,)`: mean next-token entropy of the policy over each response's tokens, nats per token.
    """

    responses: tuple[np.ndarray, ...]
    k1: np.ndarray
    k3: np.ndarray
    length: np.ndarray
    ended: np.ndarray
    entropy: np.ndarray


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
    prompts, real, drawn = _draw(model, plans, eos, width)
    reference = build_lanes(skeleton(architecture), references, model.flat.device)
    k1 = (drawn.logps - score_samples(reference, prompts, real, drawn)).double().cpu().numpy()
    return [_lane(drawn, lane, k1[lane]) for lane in range(len(plans))]


def sample_reference(
    architecture: Architecture, weights: Tensor, plan: SamplePlan, eos: int, width: int, device: torch.device
) -> LaneSamples:
    """What the reference with `weights` `(P,)` itself answers on a plan, to pair with a policy's samples."""
    _, _, drawn = _draw(build_lanes(skeleton(architecture), [weights], device), [plan], eos, width)
    return _lane(drawn, 0, np.zeros(len(plan.prompts)))


def _draw(model: LaneModel, plans: Sequence[SamplePlan], eos: int, width: int) -> tuple[Tensor, Tensor, Samples]:
    device = model.flat.device
    pads = [pad_prompts(plan.prompts, width=width) for plan in plans]
    prompts = torch.stack([ids for ids, _ in pads]).to(device)
    real = torch.stack([mask for _, mask in pads]).to(device)
    uniforms = torch.from_numpy(np.stack([plan.uniforms for plan in plans])).to(device, torch.float32)
    return prompts, real, sample(model, prompts, real, uniforms, eos=eos)


def _lane(drawn: Samples, lane: int, k1: np.ndarray) -> LaneSamples:
    tokens, lengths = drawn.tokens[lane].cpu().numpy(), drawn.lengths[lane].cpu().numpy()
    return LaneSamples(
        responses=tuple(row[:n] for row, n in zip(tokens, lengths, strict=True)),
        k1=k1.astype(np.float32),
        k3=(np.expm1(-k1) + k1).astype(np.float32),
        length=lengths.astype(np.int32),
        ended=drawn.ended[lane].cpu().numpy(),
        entropy=(drawn.entropy[lane].double().cpu().numpy() / lengths).astype(np.float32),
    )
