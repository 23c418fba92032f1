"""Rollouts of K lanes: k responses to each prompt, sampled in one batch, as rows that any model of the pack scores.

A row is `prompt | response 1 | ... | response k`: a prompt is computed once for its k responses, and each response sees
the prompt and itself alone. Shapes are constants of the run, whatever is sampled; nothing waits for the device.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from harness.data.rows import PROMPT
from harness.models.generate import sample
from harness.models.lane_model import LaneModel
from harness.models.logps import Corpus
from harness.rlhf.algorithms import Forward

CHUNK = 128  # responses a lane and forward of the sampler: a constant, so a lane does not depend on its neighbours


@dataclass(frozen=True, slots=True, eq=False)
class Responses:
    """k responses of L tokens to p prompts of K lanes, n = p x k; every field begins with `(K, p, ...)`.

    Rows: `ids`, `position` `(K, p, T)`, T = P + k L, with additive `mask` `(K, p, 1, T, T)`; `source` `(K, p, k L)` are
    the positions that predict each response token, `ends` `(K, p, k)` those of each response's last token.
    What was sampled: `tokens`, `real`, `logps` `(K, p, k, L)` (log-probs kept from sampling, 0 where not real);
    `lengths`, `ended` `(K, p, k)`.
    """

    ids: Tensor
    position: Tensor
    mask: Tensor
    source: Tensor
    ends: Tensor
    tokens: Tensor
    real: Tensor
    logps: Tensor
    lengths: Tensor
    ended: Tensor

    def flat(self, name: str) -> Tensor:
        """A field with its prompts and their responses side by side: `(K, n, ...)`."""
        return getattr(self, name).flatten(1, 2)  # type: ignore[no-any-return]

    def prompts(self, rows: Tensor) -> Responses:
        """The prompts `rows` `(K, m)` with their responses."""
        lanes = torch.arange(rows.shape[0], device=rows.device)[:, None]
        return Responses(*(getattr(self, field.name)[lanes, rows] for field in fields(Responses)))


def prompt_table(corpus: Corpus, width: int) -> tuple[Tensor, Tensor]:
    """The prompts of all corpus rows padded on the left, `(N, width)`, and which of these are tokens of the prompt."""
    length = (corpus.segment == PROMPT).sum(-1, keepdim=True)
    column = torch.arange(width, device=length.device) - (width - length)
    real = column >= 0
    return torch.where(real, corpus.ids.gather(1, column.clamp(min=0)), 0), real


@torch.no_grad()
def roll_out(model: LaneModel, prompts: Tensor, real: Tensor, uniforms: Tensor, *, k: int, eos: int) -> Responses:
    """Sample k responses to each of the prompts `(K, p, P)`; `uniforms` `(K, p k, L)` decide every token."""
    lanes, count, width = prompts.shape
    depth = uniforms.shape[-1]
    drawn = sample(model, prompts, real, uniforms, eos=eos, copies=k, entropy=False, chunk=CHUNK)
    shape = (lanes, count, k)
    tokens, lengths = drawn.tokens.reshape(*shape, depth), drawn.lengths.reshape(shape)
    start = real.sum(-1, keepdim=True)  # tokens of each prompt
    step = torch.arange(depth, device=prompts.device)
    position = (real.long().cumsum(-1) - 1).clamp(min=0)
    later = (start + step).repeat(1, 1, k)
    first = width + depth * torch.arange(k, device=prompts.device)[:, None]
    source = torch.where(step == 0, width - 1, first + step - 1).view(1, 1, -1)
    return Responses(
        ids=torch.cat([prompts, tokens.flatten(2)], -1),
        position=torch.cat([position, later], -1),
        mask=_mask(real, k, depth),
        source=source.expand(lanes, count, -1),
        ends=first[:, 0] + lengths - 1,
        tokens=tokens,
        real=step < lengths[..., None],
        logps=drawn.token_logps.reshape(*shape, depth),
        lengths=lengths,
        ended=drawn.ended.reshape(shape),
    )


def _mask(real: Tensor, k: int, depth: int) -> Tensor:
    """Additive mask `(K, p, 1, T, T)`: a token sees the prompt's own tokens and its own response up to itself."""
    width = real.shape[-1]
    segment = torch.cat([torch.zeros(width), torch.arange(1, k + 1).repeat_interleave(depth)]).to(real.device)
    total = len(segment)
    causal = torch.ones(total, total, dtype=torch.bool, device=real.device).tril()
    own = causal & ((segment[:, None] == segment) | (segment == 0))
    key = torch.cat([real, real.new_ones(1, 1, 1).expand(*real.shape[:2], k * depth)], -1)
    itself = torch.eye(total, dtype=torch.bool, device=real.device)  # padding sees itself: no row is empty
    visible = (own & key[:, :, None]) | itself
    return torch.zeros(visible.shape, device=real.device).masked_fill_(~visible, float("-inf"))[:, :, None]


def read(model: LaneModel, responses: Responses, *, values: bool = False, entropy: bool = False) -> Forward:
    """Log-probs `(K, n, L)` of the responses' tokens under each lane, 0 where not real; more where asked."""
    lanes, count, k, depth = responses.tokens.shape
    shape = (lanes, count * k, depth)
    hidden = _hidden(model, responses, responses.source)
    distributions = model.head(hidden).log_softmax(-1)
    picked = distributions.gather(-1, responses.tokens.reshape(lanes * count, -1, 1)).view(shape)
    real = responses.flat("real")
    return Forward(
        logps=torch.where(real, picked, 0.0),
        values=torch.where(real, model.score(hidden).view(shape), 0.0) if values else None,
        entropy=-(distributions.exp() * distributions).sum(-1).view(shape) if entropy else None,
    )


@torch.no_grad()
def rewards(model: LaneModel, responses: Responses) -> Tensor:
    """Scores `(K, n)` of whole responses by each lane's reward model, read at the response's last token."""
    lanes, count, k = responses.ends.shape
    return model.score(_hidden(model, responses, responses.ends)).view(lanes, count * k)


def _hidden(model: LaneModel, responses: Responses, source: Tensor) -> Tensor:
    ids, position, mask, at = (
        value.flatten(0, 1) for value in (responses.ids, responses.position, responses.mask, source)
    )
    return model.hidden_at(ids, mask, position, at)
