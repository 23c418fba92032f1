"""The only sampler: free-running samples of every lane at once, with key-value cache and pre-drawn uniforms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness.models.pack import LaneModel

# Prompts a lane and forward: a constant, so a lane's samples never depend on its neighbours.
CHUNK = 64


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """`tokens` `(K, n, L)` (pad after the end), `lengths` `(K, n)` with end-of-sequence, `logps` `(K, n)` summed nats.

    `ended` `(K, n)`: whether end-of-sequence was sampled within L tokens. `entropy` `(K, n)`: the policy's next-token
    entropy summed over the sampled tokens, nats.
    """

    tokens: Tensor
    lengths: Tensor
    logps: Tensor
    ended: Tensor
    entropy: Tensor


def pad_prompts(prompts: Sequence[np.ndarray], width: int, pad: int = 0) -> tuple[Tensor, Tensor]:
    """Prompt ids padded on the left to `width`, and their mask, both `(n, width)`."""
    ids = torch.full((len(prompts), width), pad, dtype=torch.int64)
    real = torch.zeros(len(prompts), width, dtype=torch.bool)
    for i, prompt in enumerate(prompts):
        ids[i, width - len(prompt) :] = torch.from_numpy(np.asarray(prompt, dtype=np.int64))
        real[i, width - len(prompt) :] = True
    return ids, real


def sample(model: LaneModel, prompts: Tensor, real: Tensor, uniforms: Tensor, *, eos: int, pad: int = 0) -> Samples:
    """Sample one response a prompt and lane at temperature 1.

    `prompts`, `real` `(K, n, P)` as `pad_prompts` gives them; `uniforms` `(K, n, L)` in (0, 1) decide every token by
    inverse transform, so lanes that share them differ only where their policies do.
    """
    count = prompts.shape[1]
    prompts, real, uniforms = (filled(value) for value in (prompts, real, uniforms))
    parts = [
        _sample(model, *(value[:, i : i + CHUNK] for value in (prompts, real, uniforms)), eos=eos, pad=pad)
        for i in range(0, prompts.shape[1], CHUNK)
    ]
    fields = ("tokens", "lengths", "logps", "ended", "entropy")
    return Samples(*(torch.cat([getattr(p, f) for p in parts], 1)[:, :count] for f in fields))


def filled(value: Tensor) -> Tensor:
    """`(K, n, ...)` filled up to whole chunks with copies of the last entry, so every forward has one shape."""
    missing = -value.shape[1] % CHUNK
    return torch.cat([value, value[:, -1:].expand(-1, missing, *value.shape[2:])], 1) if missing else value


@torch.no_grad()
def _sample(model: LaneModel, prompts: Tensor, real: Tensor, uniforms: Tensor, *, eos: int, pad: int) -> Samples:
    from transformers import DynamicCache

    lanes, count, width = prompts.shape
    depth = uniforms.shape[-1]
    cache = DynamicCache()
    seen = real.reshape(-1, width)
    position = (seen.long().cumsum(-1) - 1).clamp(min=0)
    ids, mask = prompts.reshape(-1, width), causal_mask(seen, width)
    alive = torch.ones(lanes * count, dtype=torch.bool, device=prompts.device)
    tokens, logps = [], torch.zeros(lanes * count, device=prompts.device)
    entropy = torch.zeros_like(logps)
    for step in range(depth):
        hidden = model.hidden(ids, mask, position, cache)[:, -1]
        logp = model.head(hidden[:, None])[:, 0].log_softmax(-1)
        share = logp.exp()
        entropy = entropy + torch.where(alive, torch.special.entr(share).sum(-1), 0.0)
        drawn = (share.cumsum(-1) < uniforms[..., step].reshape(-1, 1)).sum(-1).clamp(max=logp.shape[-1] - 1)
        logps = logps + torch.where(alive, logp.gather(-1, drawn[:, None])[:, 0], 0.0)
        token = torch.where(alive, drawn, pad)
        tokens.append(token)
        alive = alive & (token != eos)
        seen = torch.cat([seen, torch.ones_like(seen[:, :1])], 1)
        ids, position = token[:, None], position[:, -1:] + 1
        mask = torch.zeros(seen.shape, device=seen.device).masked_fill_(~seen, float("-inf"))[:, None, None]
    stacked = torch.stack(tokens, -1).view(lanes, count, depth)
    ended = (stacked == eos).any(-1)
    lengths = torch.where(ended, (stacked == eos).int().argmax(-1) + 1, depth)
    return Samples(stacked, lengths, logps.view(lanes, count), ended, entropy.view(lanes, count))


def causal_mask(real: Tensor, width: int) -> Tensor:
    """Additive mask `(n, 1, P, P)` for left-padded rows; a padding position sees itself, so no row is empty."""
    causal = torch.ones(width, width, dtype=torch.bool, device=real.device).tril()
    own = torch.eye(width, dtype=torch.bool, device=real.device)
    visible = (causal & real[:, None, :]) | own
    return torch.zeros(visible.shape, device=real.device).masked_fill_(~visible, float("-inf"))[:, None]


@torch.no_grad()
def score_samples(model: LaneModel, prompts: Tensor, real: Tensor, samples: Samples) -> Tensor:
    """Summed log-probs `(K, n)` of sampled responses under another model of the same shape (the reference)."""
    parts = []
    lanes, count, width = prompts.shape
    depth = samples.tokens.shape[-1]
    prompts, real = filled(prompts), filled(real)
    all_tokens, all_lengths = filled(samples.tokens), filled(samples.lengths)
    for start in range(0, prompts.shape[1], CHUNK):
        part = slice(start, start + CHUNK)
        tokens, lengths = all_tokens[:, part], all_lengths[:, part]
        within = torch.arange(depth, device=tokens.device) < lengths[..., None]
        ids = torch.cat([prompts[:, part], tokens], -1).reshape(-1, width + depth)
        seen = torch.cat([real[:, part], within], -1).reshape(ids.shape)
        position = (seen.long().cumsum(-1) - 1).clamp(min=0)
        hidden = model.hidden(ids, causal_mask(seen, width + depth), position)[:, width - 1 : -1]
        logps = model.head(hidden).log_softmax(-1).gather(-1, tokens.reshape(-1, depth, 1)).squeeze(-1)
        parts.append(torch.where(within.reshape(-1, depth), logps, 0.0).sum(-1).view(lanes, -1))
    return torch.cat(parts, 1)[:, :count]
