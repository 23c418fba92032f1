"""Free-running samples: of every lane at the end, scored under policy and reference, and of the reference itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from harness.models.architecture import Frozen, skeleton
from harness.models.generate import CHUNK, FREE, Drawing, Samples, pad_prompts, sample, score_samples
from harness.models.lane_model import LaneModel, build_lanes
from harness.models.responses import NOTHING, score
from harness.models.shapes import rows_at_once, rung

STEP_WIDTH = 16  # prompts of one width are answered as many at once as rows of so many tokens are read


@dataclass(frozen=True, eq=False)
class SamplePlan:
    """What one lane samples: prompt ids, and uniforms `(n, L)` that decide its tokens."""

    prompts: Sequence[np.ndarray]
    uniforms: np.ndarray


@dataclass(frozen=True, eq=False)
class LaneSamples:
    """One lane's samples: token ids each, log-ratio estimates of KL(policy || reference) in nats, lengths, `ended`.

    Where samples are not drawn from the policy itself, the estimates are of others to the same prompts that are.
    `entropy` `(n,)`: mean next-token entropy of the policy over each response's tokens, nats per token.
    """

    responses: tuple[np.ndarray, ...]
    k1: np.ndarray
    k3: np.ndarray
    length: np.ndarray
    ended: np.ndarray
    entropy: np.ndarray


def sample_lanes(
    references: Sequence[Frozen],
    model: LaneModel,
    plans: Sequence[SamplePlan],
    eos: int,
    width: int,
    ladder: bool = False,
    drawing: Drawing = FREE,
) -> list[LaneSamples]:
    """Sample every lane on its plan; all plans have the same number of prompts, padded on the left to `width`.

    With `ladder` prompts are padded to widths of their own (`models/shapes.py`), those of one width together.
    Lane k is compared with `references[k]`, all of one architecture. k1 = log pi - log pi_ref and
    k3 = exp(-k1) - 1 + k1 per sequence, both unbiased for the KL on samples of the policy.
    """
    device = model.flat.device
    if not drawing.free:
        plain = replace(drawing, temperature=1.0, top_p=1.0)
        paid = sample_lanes(references, model, plans, eos, width, ladder, plain)
        answers = _draw_alone(model, plans, eos, width, ladder, drawing)
        return [
            replace(_lane(one, np.zeros(0)), k1=lane.k1, k3=lane.k3) for one, lane in zip(answers, paid, strict=True)
        ]
    if not ladder:
        prompts, real, drawn = _draw(
            model, [plan.prompts for plan in plans], [plan.uniforms for plan in plans], eos, width, CHUNK, drawing
        )
        frozen = skeleton(references[0].architecture)
        reference = build_lanes(frozen, [own.weights for own in references], device)
        k1 = (drawn.logps - score_samples(reference, prompts, real, drawn)).double().cpu().numpy()
        return [_lane(_of_lane(drawn, lane), k1[lane]) for lane in range(len(plans))]
    drawn_by_lane = _draw_by_width(model, plans, eos, drawing)
    k1s: list[np.ndarray] = [np.zeros(0)] * len(plans)
    rows = [reference.weights for reference in references]
    for first in {id(row): row for row in rows}.values():  # lanes with one reference are scored as one
        members = [lane for lane, row in enumerate(rows) if row is first]
        responses = [
            one for lane in members for one in zip(plans[lane].prompts, drawn_by_lane[lane].responses, strict=True)
        ]
        [scored] = score(build_lanes(skeleton(references[0].architecture), [first], device), [responses])
        logps = np.array([one.logps.sum(dtype=np.float64) for one in scored]).reshape(len(members), -1)
        for lane, own in zip(members, logps, strict=True):
            k1s[lane] = drawn_by_lane[lane].logps - own
    return [_lane(own, k1) for own, k1 in zip(drawn_by_lane, k1s, strict=True)]


def sample_reference(
    reference: Frozen,
    plan: SamplePlan,
    eos: int,
    width: int,
    device: torch.device,
    ladder: bool = False,
    drawing: Drawing = FREE,
) -> LaneSamples:
    """What the reference itself answers on a plan, to pair with a policy's samples."""
    model = build_lanes(skeleton(reference.architecture), [reference.weights], device)
    [drawn] = _draw_alone(model, [plan], eos, width, ladder, drawing)
    return _lane(drawn, np.zeros(len(plan.prompts)))


@dataclass(frozen=True, eq=False)
class _Drawn:
    """One lane's responses `(n_i,)`, and `(n,)` each of their summed log-probs, whether they ended, summed entropy."""

    responses: list[np.ndarray]
    logps: np.ndarray
    ended: np.ndarray
    entropy: np.ndarray


def _draw_alone(
    model: LaneModel, plans: Sequence[SamplePlan], eos: int, width: int, ladder: bool, drawing: Drawing
) -> list[_Drawn]:
    """Every lane's responses, not scored by any other model."""
    if ladder:
        return _draw_by_width(model, plans, eos, drawing)
    prompts, uniforms = [plan.prompts for plan in plans], [plan.uniforms for plan in plans]
    drawn = _draw(model, prompts, uniforms, eos, width, CHUNK, drawing)[2]
    return [_of_lane(drawn, lane) for lane in range(len(plans))]


def _draw(
    model: LaneModel,
    prompts: Sequence[Sequence[np.ndarray]],
    uniforms: Sequence[np.ndarray],
    eos: int,
    width: int,
    chunk: int,
    drawing: Drawing,
) -> tuple[Tensor, Tensor, Samples]:
    """Prompts and their mask `(K, n, P)`, and what is drawn for them."""
    device = model.flat.device
    pads = [pad_prompts(own, width=width) for own in prompts]
    ids = torch.stack([ids for ids, _ in pads]).to(device)
    real = torch.stack([mask for _, mask in pads]).to(device)
    numbers = torch.from_numpy(np.stack(uniforms)).to(device, torch.float32)
    return ids, real, sample(model, ids, real, numbers, eos=eos, chunk=chunk, drawing=drawing)


def _of_lane(drawn: Samples, lane: int) -> _Drawn:
    tokens, lengths = drawn.tokens[lane].cpu().numpy(), drawn.lengths[lane].cpu().numpy()
    return _Drawn(
        [row[:n] for row, n in zip(tokens, lengths, strict=True)],
        drawn.logps[lane].double().cpu().numpy(),
        drawn.ended[lane].cpu().numpy(),
        drawn.entropy[lane].double().cpu().numpy(),
    )


def _draw_by_width(model: LaneModel, plans: Sequence[SamplePlan], eos: int, drawing: Drawing) -> list[_Drawn]:
    """Prompts of one width are answered together; where a lane has fewer than others, empty ones fill it up."""
    found = [
        _Drawn([NOTHING] * n, np.zeros(n), np.zeros(n, bool), np.zeros(n))
        for n in (len(plan.prompts) for plan in plans)
    ]
    widths = [[rung(len(prompt)) for prompt in plan.prompts] for plan in plans]
    for width in sorted({width for own in widths for width in own}):
        alike = [[n for n, one in enumerate(own) if one == width] for own in widths]
        most = max(map(len, alike))
        prompts, uniforms = [], []
        for plan, own in zip(plans, alike, strict=True):
            missing = most - len(own)
            prompts.append([plan.prompts[n] for n in own] + [NOTHING] * missing)
            uniforms.append(np.pad(plan.uniforms[own], ((0, missing), (0, 0))))
        drawn = _draw(model, prompts, uniforms, eos, width, rows_at_once(model, STEP_WIDTH), drawing)[2]
        for lane, own in enumerate(alike):
            one = _of_lane(drawn, lane)
            for at, n in enumerate(own):
                found[lane].responses[n] = one.responses[at]
            for name in ("logps", "ended", "entropy"):
                getattr(found[lane], name)[own] = getattr(one, name)[: len(own)]
    return found


def _lane(drawn: _Drawn, k1: np.ndarray) -> LaneSamples:
    lengths = np.array([len(row) for row in drawn.responses], dtype=np.int64)
    return LaneSamples(
        responses=tuple(drawn.responses),
        k1=k1.astype(np.float32),
        k3=(np.expm1(-k1) + k1).astype(np.float32),
        length=lengths.astype(np.int32),
        ended=drawn.ended,
        entropy=(drawn.entropy / lengths).astype(np.float32),
    )
