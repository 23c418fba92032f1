"""The only sampler: free-running samples of every lane at once, with a static key-value cache and pre-drawn uniforms.

It ends when every response has ended. A GPU is asked for that once in several steps, so that it seldom waits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from harness.models.lane_model import LaneModel
from harness.models.logps import picked_logps

# Prompts a lane and forward: a constant, so a lane's samples never depend on its neighbours.
CHUNK = 64
ASKED = 8  # steps of a GPU between two looks at whether all responses have ended
STOP_ASKED = 16  # steps between two looks for stop strings: what is sampled behind one is cut off again


@dataclass(frozen=True, slots=True)
class Drawing:
    """How tokens are drawn from the policy's next-token distribution.

    Log-probs are divided by `temperature` (0: the likeliest token is taken); then only the likeliest tokens that
    together have probability `top_p` are kept, as transformers' warpers do. `stop` tells after how many of the tokens
    given to it a response ends, None where it does not.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    stop: Callable[[Sequence[int]], int | None] | None = None

    @property
    def free(self) -> bool:
        """Whether what is drawn is the policy itself."""
        return self.temperature == 1.0 and self.top_p == 1.0


FREE = Drawing()


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """`tokens` `(K, n, L)` (pad after the end), `lengths` `(K, n)` with end-of-sequence, `logps` `(K, n)` summed nats.

    `ended` `(K, n)`: whether end-of-sequence was sampled, or a stop string, within L tokens. `entropy` `(K, n)`: the
    policy's next-token entropy (at temperature 1) summed over the sampled tokens, nats. `token_logps` `(K, n, L)`:
    log-prob of each token in the distribution that it was drawn from, 0 after the end (greedy: the policy's own).
    """

    tokens: Tensor
    lengths: Tensor
    logps: Tensor
    ended: Tensor
    entropy: Tensor
    token_logps: Tensor


class StaticCache:
    """Keys and values of every layer in memory of fixed size: a step writes its own and sees what stands before.

    It does what transformers asks of a cache where mask and positions are given.
    """

    is_compileable = False

    def __init__(self, layers: int, size: int) -> None:
        self.size = size
        self.stored: list[tuple[Tensor, Tensor]] = []
        self.filled = [0] * layers

    def update(self, key: Tensor, value: Tensor, layer: int, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Store keys and values `(n, heads, t, width)` of one layer; gives all of that layer so far."""
        if layer == len(self.stored):
            shape = (*key.shape[:2], self.size, key.shape[3])
            self.stored.append((key.new_empty(shape), value.new_empty(shape)))
        start = self.filled[layer]
        self.filled[layer] = end = start + key.shape[2]
        for kept, new in zip(self.stored[layer], (key, value), strict=True):
            kept[:, :, start:end] = new
        keys, values = self.stored[layer]
        return keys[:, :, :end], values[:, :, :end]

    def get_seq_length(self, layer: int = 0) -> int:
        """Tokens that a layer holds."""
        return self.filled[layer]

    def repeat(self, copies: int) -> None:
        """Every cached row `copies` times behind each other, row by row."""
        if copies > 1:
            self.stored = [(k.repeat_interleave(copies, 0), v.repeat_interleave(copies, 0)) for k, v in self.stored]

    def rows(self, rows: Tensor, room: int) -> StaticCache:
        """What is cached of `rows` `(n,)`, with room for so many tokens behind it."""
        other = StaticCache(len(self.filled), self.size + room)
        other.filled = list(self.filled)
        for layer in self.stored:
            taken = [torch.nn.functional.pad(kept[rows], (0, 0, 0, room)) for kept in layer]
            other.stored.append((taken[0], taken[1]))
        return other


def pad_prompts(prompts: Sequence[np.ndarray], width: int, pad: int = 0) -> tuple[Tensor, Tensor]:
    """Prompt ids padded on the left to `width`, and their mask, both `(n, width)`."""
    ids = torch.full((len(prompts), width), pad, dtype=torch.int64)
    real = torch.zeros(len(prompts), width, dtype=torch.bool)
    for i, prompt in enumerate(prompts):
        ids[i, width - len(prompt) :] = torch.from_numpy(np.asarray(prompt, dtype=np.int64))
        real[i, width - len(prompt) :] = True
    return ids, real


def sample(
    model: LaneModel,
    prompts: Tensor,
    real: Tensor,
    uniforms: Tensor,
    *,
    eos: int,
    pad: int = 0,
    copies: int = 1,
    drawing: Drawing = FREE,
    entropy: bool = True,
    chunk: int = CHUNK,
) -> Samples:
    """Sample `copies` responses a prompt and lane.

    `prompts`, `real` `(K, n, P)` as `pad_prompts` gives them (an empty prompt gets no response);
    `uniforms` `(K, n * copies, L)` in (0, 1) decide every token by inverse transform, so lanes that share them differ
    only where their policies do. Response i belongs to prompt i // copies: a prompt is read once, however many
    responses it gets. Without `entropy` it is left at 0.
    `chunk` responses a lane go through a forward together: a constant of the caller's, as bits may depend on it.
    """
    count = prompts.shape[1] * copies
    width = max(chunk // copies, 1)
    prompts, real = (filled(value, width) for value in (prompts, real))
    uniforms = filled(uniforms, width * copies)
    parts = [
        _sample(
            model,
            prompts[:, i : i + width],
            real[:, i : i + width],
            uniforms[:, i * copies : (i + width) * copies],
            eos=eos,
            pad=pad,
            copies=copies,
            drawing=drawing,
            entropy=entropy,
        )
        for i in range(0, prompts.shape[1], width)
    ]
    return Samples(*(torch.cat([getattr(p, f.name) for p in parts], 1)[:, :count] for f in fields(Samples)))


def filled(value: Tensor, chunk: int = CHUNK) -> Tensor:
    """`(K, n, ...)` filled up to whole chunks with copies of the last entry, so every forward has one shape."""
    missing = -value.shape[1] % chunk
    return torch.cat([value, value[:, -1:].expand(-1, missing, *value.shape[2:])], 1) if missing else value


@torch.no_grad()
def _sample(
    model: LaneModel,
    prompts: Tensor,
    real: Tensor,
    uniforms: Tensor,
    *,
    eos: int,
    pad: int,
    copies: int,
    drawing: Drawing,
    entropy: bool,
) -> Samples:
    lanes, count, width = prompts.shape
    depth = uniforms.shape[-1]
    cache = StaticCache(model.layers, width + depth)
    seen = real.reshape(-1, width)
    position = (seen.long().cumsum(-1) - 1).clamp(min=0)
    hidden = model.decode(prompts.reshape(-1, width), causal_mask(seen, width), model.places(position), cache)[:, -1]
    cache.repeat(copies)
    hidden, seen, last = (value.repeat_interleave(copies, 0) for value in (hidden, seen, position[:, -1:]))
    rows = lanes * count * copies
    tables = [table[0] for table in model.places(torch.arange(width + depth, device=last.device)[None])]
    seen = torch.cat([seen, torch.ones_like(seen[:, :1]).expand(-1, depth)], 1)
    mask = torch.zeros(seen.shape, device=seen.device).masked_fill_(~seen, float("-inf"))[:, None, None]
    alive = seen[:, :width].any(-1)  # an empty prompt only fills up its chunk
    tokens, token_logps, logps = [], [], torch.zeros(rows, device=prompts.device)
    surprise, so_far = torch.zeros_like(logps), []
    every = ASKED if prompts.is_cuda else 1
    for step in range(depth):
        logp = model.head(hidden[:, None])[:, 0].log_softmax(-1)
        share = logp.exp()
        if entropy:
            surprise = surprise + torch.where(alive, torch.special.entr(share).sum(-1), 0.0)
        if not drawing.free and drawing.temperature:
            logp = warped(logp, drawing.temperature, drawing.top_p)
            share = logp.exp()
        if drawing.temperature == 0:
            drawn = logp.argmax(-1)
        else:
            drawn = (share.cumsum(-1) < uniforms[..., step].reshape(-1, 1)).sum(-1).clamp(max=logp.shape[-1] - 1)
            if drawing.top_p < 1:  # a sum that rounding keeps below the number must not end outside the kept tokens
                drawn = torch.where(logp.gather(-1, drawn[:, None])[:, 0].isinf(), logp.argmax(-1), drawn)
        token_logps.append(torch.where(alive, logp.gather(-1, drawn[:, None])[:, 0], 0.0))
        logps = logps + token_logps[-1]
        token = torch.where(alive, drawn, pad)
        tokens.append(token)
        alive = alive & (token != eos)
        if drawing.stop is not None:
            so_far.append(torch.stack([logps, surprise]))
            if (step + 1) % STOP_ASKED == 0 and bool(alive.any()):
                alive = alive & (_stops(drawing.stop, torch.stack(tokens, -1), alive) > step + 1)
        if step + 1 == depth or ((step + 1) % every == 0 and not bool(alive.any())):
            break
        place = last + step + 1
        places = tuple(table[place] for table in tables)
        hidden = model.decode(token[:, None], mask[..., : width + step + 1], places, cache)[:, -1]
    left = (0, depth - len(tokens))  # steps that were not needed
    stacked = torch.nn.functional.pad(torch.stack(tokens, -1), left, value=pad).view(lanes, -1, depth)
    each = torch.nn.functional.pad(torch.stack(token_logps, -1), left).view(lanes, -1, depth)
    ended = (stacked == eos).any(-1)
    lengths = torch.where(ended, (stacked == eos).int().argmax(-1) + 1, depth)
    found = Samples(stacked, lengths, logps.view(lanes, -1), ended, surprise.view(lanes, -1), each)
    return found if drawing.stop is None else _cut(found, drawing.stop, torch.stack(so_far), pad)


def warped(logp: Tensor, temperature: float, top_p: float) -> Tensor:
    """Log-probs `(n, V)` at a temperature above 0, then of the likeliest tokens that together reach `top_p` alone."""
    logp = (logp / temperature).log_softmax(-1)
    if top_p == 1.0:
        return logp
    ordered, order = logp.sort(stable=True, dim=-1, descending=True)
    share = ordered.exp()
    beyond = share.cumsum(-1) - share >= top_p  # what stands before it reaches top_p already; the first always stays
    return logp.masked_fill(beyond.scatter(-1, order, beyond), float("-inf")).log_softmax(-1)


def _stops(stop: Callable[[Sequence[int]], int | None], tokens: Tensor, asked: Tensor) -> Tensor:
    """After how many of its tokens `(n, t)` each row that is `asked` `(n,)` for ends, t + 1 where it does not."""
    never = tokens.shape[-1] + 1
    rows = zip(tokens.tolist(), asked.tolist(), strict=True)
    found = [(stop(row) or never) if wanted else never for row, wanted in rows]
    return torch.tensor(found, device=tokens.device)


def _cut(samples: Samples, stop: Callable[[Sequence[int]], int | None], so_far: Tensor, pad: int) -> Samples:
    """Responses up to the token that completes a stop string; `so_far` `(t, 2, rows)` sums log-probs and entropy."""
    lanes, _, depth = samples.tokens.shape
    step = torch.arange(depth, device=samples.tokens.device)
    within = step < samples.lengths[..., None]
    ids = [row[mask].tolist() for row, mask in zip(samples.tokens.flatten(0, 1), within.flatten(0, 1), strict=True)]
    places = torch.tensor([stop(row) or 0 for row in ids], device=samples.tokens.device).view(lanes, -1)
    stopped = places > 0
    lengths = torch.where(stopped, places, samples.lengths)
    last = (lengths.flatten() - 1).clamp(max=len(so_far) - 1)
    logps, surprise = so_far.gather(0, last[None, None].expand(1, 2, -1))[0].view(2, lanes, -1)
    within = step < lengths[..., None]
    return replace(
        samples,
        tokens=torch.where(within, samples.tokens, pad),
        lengths=lengths,
        logps=logps,
        ended=samples.ended | stopped,
        entropy=surprise,
        token_logps=torch.where(within, samples.token_logps, 0.0),
    )


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
        logps = picked_logps(model, hidden, tokens.reshape(-1, depth))
        parts.append(torch.where(within.reshape(-1, depth), logps, 0.0).sum(-1).view(lanes, -1))
    return torch.cat(parts, 1)[:, :count]
