"""A model larger than one GPU: one lane, its parameters spread over the processes of a group by FSDP2.

The trainer stays the same: it sees a model whose `flat` holds this process's share. Every process reads its own part
of each batch, log-probs are put together again, so that each sees the whole loss, batch-level objectives included.
Starting the processes is torchrun's business. Source: torch.distributed.fsdp.fully_shard; arXiv 2304.11277.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from harness.models.lane_model import LaneModel, parameter_shapes, trainable, unflatten
from harness.types import PairLogps

Read = Callable[[Tensor], tuple[PairLogps, PairLogps]]


@dataclass(frozen=True)
class ShardedModel:
    """What the trainer needs of a `LaneModel`, for one lane. `flat` `(1, P / processes)` is this process's share.

    FSDP holds the share a second time, as it is laid out by parameter: `flat` is copied there before each forward.
    """

    model: nn.Module  # a `_Halves` under fully_shard
    flat: Tensor
    parameters: tuple[nn.Parameter, ...]  # DTensors, in the order of `flat`'s columns

    lanes = 1

    def spread(self, index: Tensor, read: Read) -> tuple[PairLogps, PairLogps]:
        """Policy and reference on `index` `(1, B)`, of which this process reads its share of columns alone."""
        processes, own = dist.get_world_size(), dist.get_rank()
        count = -(-index.shape[1] // processes)
        filled = torch.cat([index, index[:, :1].expand(1, count * processes - index.shape[1])], 1)
        policy, reference = read(filled[:, own * count : (own + 1) * count])
        return _gathered(policy, index.shape[1]), _gathered(reference, index.shape[1])

    def hidden_at(self, ids: Tensor, mask: Tensor, position: Tensor, source: Tensor) -> Tensor:
        """Last hidden states `(B, R, d)` at the row indices `source` `(B, R)`."""
        self._put_back()
        return self.model((ids, mask, position, source), None)  # type: ignore[no-any-return]

    def head(self, hidden: Tensor) -> Tensor:
        """Logits `(..., V)` in fp32 of hidden states `(B, ..., d)`."""
        return self.model(None, hidden)  # type: ignore[no-any-return]

    def gradient(self, objective: Tensor, out: Tensor | None = None) -> Tensor:
        """This process's share `(1, P / processes)` of d objective / d parameters, written into `out` where given."""
        objective.backward()  # type: ignore[no-untyped-call]  # FSDP reduces gradients in its backward hooks
        parts = [
            torch.zeros_like(_share(parameter)) if parameter.grad is None else _share(parameter.grad)
            for parameter in self.parameters
        ]
        for parameter in self.parameters:
            parameter.grad = None
        return torch.cat([part.float().reshape(1, -1) for part in parts], 1, out=out)

    def norm(self, grad: Tensor) -> Tensor:
        """The norm `(1, 1)` of the whole gradient."""
        square = grad.square().sum(1, keepdim=True)
        dist.all_reduce(square)
        return square.sqrt()

    def weights(self, lane: int) -> Tensor:
        """A copy of the parameters `(P,)` on the CPU; every process must ask, each gets all."""
        assert lane == 0
        self._put_back()
        full = [cast(Any, parameter).full_tensor() for parameter in self.parameters]
        return torch.cat([part.detach().float().reshape(-1).cpu() for part in full])

    def _put_back(self) -> None:
        with torch.no_grad():
            sizes = [_share(parameter).numel() for parameter in self.parameters]
            for parameter, part in zip(self.parameters, torch.split(self.flat[0], sizes), strict=True):
                _share(parameter).copy_(part.view_as(_share(parameter)))


class _Halves(nn.Module):
    """A decoder whose two halves go through one `forward`: FSDP gathers parameters there, the tied ones for both."""

    def __init__(self, causal: Any) -> None:
        super().__init__()
        self.causal = causal  # an unmodified transformers causal LM laid out as Llama's
        self.config = causal.config

    def forward(self, inputs: tuple[Tensor, Tensor, Tensor, Tensor] | None, hidden: Tensor | None) -> Tensor:
        """Hidden states at the places asked for, given `inputs`; else the logits of `hidden`."""
        if inputs is None:
            logits: Tensor = self.causal.lm_head(hidden).float()
            cap = getattr(self.causal.config, "final_logit_softcapping", None)
            return logits if cap is None else torch.tanh(logits / cap) * cap
        ids, mask, position, source = inputs
        decoder = self.causal.model
        state = decoder.embed_tokens(ids)
        rotary, mask = decoder.rotary_emb(state, position), mask.to(self.causal.dtype)
        for layer in decoder.layers:
            state = layer(state, attention_mask=mask, position_ids=position, position_embeddings=rotary)
        return decoder.norm(state.gather(1, source[..., None].expand(-1, -1, state.shape[-1])))  # type: ignore[no-any-return]


def build_sharded(skeleton: nn.Module, rows: Sequence[Tensor], device: torch.device) -> LaneModel:
    """One lane from the weights `rows[0]` `(P,)`, spread over the processes of the default group (to be given to
    `training.loop.start` as `build`). `skeleton` is consumed.

    Raises ValueError for more than one lane, TypeError for a decoder that is not laid out as Llama's.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if len(rows) != 1:
        raise ValueError(f"a sharded model holds one lane, not {len(rows)}")
    decoder: Any = getattr(skeleton, "model", None)
    wanted = ("embed_tokens", "layers", "norm", "rotary_emb")
    if not all(hasattr(decoder, name) for name in wanted) or not hasattr(skeleton, "lm_head"):
        raise TypeError(f"{type(skeleton).__name__}: only decoders laid out as Llama's are sharded")
    with torch.no_grad():
        for name, part in unflatten(rows[0].float(), parameter_shapes(skeleton)).items():
            skeleton.get_parameter(name).copy_(part)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    whole = _Halves(skeleton)
    for part in (*decoder.layers, whole):
        fully_shard(part, mesh=mesh, reshard_after_forward=True)
    whole.to(device)
    parameters = tuple(trainable(skeleton).values())
    flat = torch.cat([_share(parameter).detach().float().reshape(1, -1) for parameter in parameters], 1)
    return cast(LaneModel, ShardedModel(whole, flat, parameters))  # what the trainer asks of one, and no more


def _share(value: Any) -> Tensor:
    """The part of a DTensor that this process holds."""
    return value.to_local()  # type: ignore[no-any-return]


def _gathered(pairs: PairLogps, count: int) -> PairLogps:
    """The columns `(1, b)` of every process behind each other, cut to `count`."""
    values = {
        field.name: _gather(getattr(pairs, field.name))[:, :count] for field in fields(pairs) if field.name != "extra"
    }
    extra = {name: _gather(value)[:, :count] for name, value in pairs.extra.items()}
    return replace(pairs, **values, extra=extra)


def _gather(own: Tensor) -> Tensor:
    whole: Tensor = _Gather.apply(own)  # type: ignore[no-untyped-call]
    return whole


class _Gather(torch.autograd.Function):
    """All processes' columns. Each goes on to the same loss, so a column's gradient is the same everywhere.

    FSDP averages gradients over processes; each holds the part of its own columns, so parts count as many times.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        ctx.width = own.shape[1]
        parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, own.contiguous())
        return torch.cat(parts, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        own = grad[:, dist.get_rank() * ctx.width :][:, : ctx.width]
        return own * dist.get_world_size()
