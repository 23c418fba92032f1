"""A forward over the real tokens alone: rows of pairs are laid end to end, so padding costs nothing but in attention.

The same function of the weights as `LaneModel.hidden_at`, rounded otherwise: matrix products have another height, the
sum of a batch's rows. Lanes that read the same batches have one height, so a lane's bits are those of its run alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from harness.data.rows import PAD
from harness.model_files.folder import LLAMA_LAYOUT
from harness.models.lane_model import LaneModel
from harness.models.shapes import EXPLICIT

ROUND = 16  # tokens: widths are multiples of it
UNLIKE = "lanes of a pack in strict mode need batches of equal widths: those of one seed and order"
NAME = "harness_rows"  # of the attention below, in transformers' table


@dataclass(frozen=True, slots=True)
class Room:
    """Most real tokens that a lane's batch holds, and most response tokens: widths of a step, multiples of `ROUND`."""

    tokens: int
    responses: int


def rooms(
    segment: Tensor, responses: Tensor, batches: Tensor, widths: Sequence[int] | None = None, alike: bool = False
) -> list[Room | None]:
    """The room of each step of `batches` `(steps, K, B)`; None where rows hold no padding worth leaving out.

    `segment` `(N, T)` of the corpus, `responses` `(N,)` response tokens of its rows; `widths` of the rows by step
    (None: T). Waits for the device, once. Raises ValueError where lanes have to be `alike` and need different rooms.
    """
    full = [batches.shape[-1] * width for width in widths or [segment.shape[1]] * len(batches)]
    counts = torch.stack([(segment != PAD).sum(1), responses.long()])
    used = counts[:, batches].sum(-1)
    if alike and bool((used != used[..., :1]).any()):
        raise ValueError(UNLIKE)
    most = used.amax(-1) + 1  # one slot at least stays free for padding
    needed = (most + ROUND - 1).div(ROUND, rounding_mode="floor") * ROUND
    return [
        Room(tokens, answers) if tokens < limit else None
        for (tokens, answers), limit in zip(needed.t().tolist(), full, strict=True)
    ]


def fits(model: LaneModel) -> bool:
    """Whether the decoder can be read without padding: laid out as Llama's, activations kept, no autocast."""
    return model.model.config.model_type in LLAMA_LAYOUT and not model.recomputes and model.compute is None


@dataclass(frozen=True, slots=True)
class _Moves:
    """Indices of heads of tokens: `rows` `(K * B * h * T,)` for the places of rows, `tokens` `(K * W * h,)` back."""

    rows: Tensor
    tokens: Tensor


class _Moved(torch.autograd.Function):
    """`x[there]` for rows of `x`, of which every one that matters is read once: the gradient is moved back, not added.

    Slots that hold padding are read by nothing that a loss depends on: their gradient is zero, and stays zero.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, there: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(there, back)
        return x.index_select(0, there)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        _, back = ctx.saved_tensors
        return gradient.index_select(0, back), None, None


def token_order(segment: Tensor, lanes: int, width: int) -> tuple[Tensor, Tensor]:
    """Places `(K, W)` of a lane's real tokens in its rows laid end to end, and the slot `(K, B * T)` of each place.

    `segment` `(K * B, T)`. The last slot of a lane is padding; so is every place that no slot holds.
    """
    padding = (segment == PAD).reshape(lanes, -1)
    order = torch.argsort(padding.to(torch.int8), dim=1, stable=True)
    numbers = torch.arange(order.shape[1], device=order.device).expand_as(order)
    slot = torch.empty_like(order).scatter_(1, order, numbers).clamp_(max=width - 1)
    return order[:, :width], slot


def hidden_tokens(
    model: LaneModel, ids: Tensor, mask: Tensor, position: Tensor, places: Tensor, segment: Tensor, width: int
) -> Tensor:
    """Last hidden states `(K, S, d)` at `places` `(K, S)` of each lane's rows laid end to end.

    `ids`, `position`, `segment` `(K * B, T)`, additive `mask` `(K * B, 1, T, T)`; `width` as `Room.tokens`.
    """
    decoder, lanes = model.model.model, model.lanes
    take, slot = token_order(segment, lanes, width)
    hidden = decoder.embed_tokens(ids.reshape(lanes, -1).gather(1, take))
    where = position.reshape(lanes, -1).gather(1, take)
    rotary = decoder.rotary_emb(hidden, where)
    config = model.model.config
    heads, mask = config.num_attention_heads, mask.to(model.model.dtype)
    rows = ids.shape
    if _explicit(mask):
        mask = mask.expand(-1, heads, -1, -1).reshape(-1, rows[1], rows[1])
    known = {"attention_mask": mask, "position_embeddings": rotary}
    known |= {"moves": _moves(take, slot, heads, rows), "shape": (rows[0], heads, rows[1])}
    with _attending(config):
        for layer in decoder.layers[:-1]:
            hidden = layer(hidden, position_ids=where, **known)
        last = decoder.layers[-1]
        attended, _ = last.self_attn(hidden_states=last.input_layernorm(hidden), **known)
    hidden = hidden + attended
    found = slot.gather(1, places)
    hidden = hidden.gather(1, found[..., None].expand(-1, -1, hidden.shape[-1]))
    hidden = hidden + last.mlp(last.post_attention_layernorm(hidden))
    return decoder.norm(hidden)  # type: ignore[no-any-return]


def _explicit(mask: Tensor) -> bool:
    """Whether attention is two plain products: in short rows they are faster than SDPA's CPU kernel. SDPA keeps fp32
    scores whatever the weights are in; products would round them to bfloat16."""
    return mask.shape[-1] <= EXPLICIT and mask.dtype == torch.float32


def _moves(take: Tensor, slot: Tensor, heads: int, rows: torch.Size) -> _Moves:
    """From tokens `(K, W, h)` to rows `(K * B, h, T)` and back, as indices of one axis."""
    lanes, width = take.shape
    batch, length = rows[0] // lanes, rows[1]
    lane = torch.arange(lanes, device=take.device)[:, None, None]
    head = torch.arange(heads, device=take.device)
    from_tokens = (lane * width + slot.view(lanes, batch, length)).view(rows[0], 1, length) * heads + head[:, None]
    row = lane[..., 0] * batch + take // length
    from_rows = ((row[..., None] * heads + head) * length) + (take % length)[..., None]
    return _Moves(from_tokens.reshape(-1), from_rows.reshape(-1))


@contextmanager
def _attending(config: Any) -> Iterator[None]:
    """Attention through `_attend` for the layers called inside."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(NAME, _attend)
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def _attend(
    module: Any,  # noqa: ARG001 - transformers' interface
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float,
    **known: Any,
) -> tuple[Tensor, None]:
    """Attention of tokens `(K, h, W, e)` within the rows that they come from: `(K, W, h, e)`."""
    moves: _Moves = known["moves"]
    rows, heads, length = known["shape"]
    groups = heads // key.shape[1]
    if groups > 1:
        key, value = (part.repeat_interleave(groups, 1) for part in (key, value))

    def to_rows(part: Tensor) -> Tensor:
        flat = part.transpose(1, 2).reshape(-1, part.shape[-1])
        return _Moved.apply(flat, moves.rows, moves.tokens).view(rows * heads, length, -1)  # type: ignore[no-any-return,no-untyped-call]

    q, k, v = map(to_rows, (query, key, value))
    if _explicit(attention_mask):
        scores = torch.baddbmm(attention_mask, q, k.transpose(1, 2), alpha=scaling)
        found = torch.bmm(scores.softmax(-1), v)
    else:
        q, k, v = (part.view(rows, heads, length, -1) for part in (q, k, v))
        found = functional.scaled_dot_product_attention(q, k, v, attn_mask=attention_mask, scale=scaling)
    flat = found.reshape(-1, v.shape[-1])
    back = _Moved.apply(flat, moves.tokens, moves.rows)  # type: ignore[no-untyped-call]
    return back.view(query.shape[0], query.shape[2], heads, -1), None
