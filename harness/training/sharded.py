"""A model larger than one GPU: one lane, its parameters spread over the processes of a group by FSDP2.

The trainer stays the same: it sees a model whose `flat` holds this process's share. Every process reads its own part
of each batch, log-probs are put together again, so that each sees the whole loss, batch-level objectives included.
`worker/shard_group.py` starts the processes. Source: torch.distributed.fsdp.fully_shard; arXiv 2304.11277.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from harness.model_files.folder import LLAMA_LAYOUT
from harness.models.lane_model import LaneModel, parameter_shapes, scaled_logits, trainable, unflatten
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
    frozen: int  # parameters that are not trained: the base under adapters
    recomputes: bool = False  # gradient checkpointing
    compute: torch.dtype | None = None  # of matrix products over fp32 weights, where it is another (autocast)

    lanes = 1

    @property
    def processes(self) -> int:
        return dist.get_world_size()

    @cached_property
    def trained(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters)

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
        if self.recomputes:
            for module in self.model.modules():
                if getattr(module, "gradient_checkpointing", None) is not None:
                    module.training = torch.is_grad_enabled()
        with self._computing():
            return self.model((ids, mask, position, source), None)  # type: ignore[no-any-return]

    def head(self, hidden: Tensor) -> Tensor:
        """Logits `(..., V)` in fp32 of hidden states `(B, ..., d)`."""
        with self._computing():
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
        return self.row(self.flat, lane)

    def row(self, values: Tensor, lane: int) -> Tensor:
        """A copy `(P,)` on the CPU of `values`, of which each process holds its share; every process must ask."""
        from torch.distributed.tensor import DTensor

        assert lane == 0
        whole = []
        for parameter, part in self._parts(values):
            like: Any = parameter
            shares = DTensor.from_local(
                part.view_as(_share(parameter)),
                like.device_mesh,
                like.placements,
                shape=parameter.shape,
                stride=parameter.stride(),
            )
            whole.append(shares.full_tensor().detach().float().reshape(-1).cpu())
        return torch.cat(whole)

    def put_row(self, values: Tensor, lane: int, row: Tensor) -> None:
        """Write this process's share of `row` `(P,)` to `values`."""
        assert lane == 0
        parts = self._parts(values)
        sizes = [parameter.numel() for parameter, _ in parts]
        for (parameter, part), whole in zip(parts, torch.split(row, sizes), strict=True):
            chunks = whole.view(parameter.shape).chunk(self.processes)  # as FSDP cuts: fewer where rows are few
            if dist.get_rank() < len(chunks):
                part.copy_(chunks[dist.get_rank()].reshape(-1))

    def _parts(self, values: Tensor) -> list[tuple[nn.Parameter, Tensor]]:
        """Each parameter and its columns of `values` `(1, P / processes)`, as views."""
        sizes = [_share(parameter).numel() for parameter in self.parameters]
        return list(zip(self.parameters, torch.split(values.detach()[0], sizes), strict=True))

    def _put_back(self) -> None:
        with torch.no_grad():
            for parameter, part in self._parts(self.flat):
                _share(parameter).copy_(part.view_as(_share(parameter)))

    def _computing(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.compute is None else torch.autocast(self.flat.device.type, self.compute)


class _Halves(nn.Module):
    """A decoder whose two halves go through one `forward`: FSDP gathers parameters there, the tied ones for both."""

    def __init__(self, causal: Any) -> None:
        super().__init__()
        self.causal = causal  # an unmodified transformers causal LM laid out as Llama's
        self.config = causal.config

    def get_output_embeddings(self) -> Any:
        return self.causal.get_output_embeddings()

    def forward(self, inputs: tuple[Tensor, Tensor, Tensor, Tensor] | None, hidden: Tensor | None) -> Tensor:
        """Hidden states at the places asked for, given `inputs`; else the logits of `hidden`."""
        if inputs is None:
            return scaled_logits(self.config, self.causal.lm_head(hidden).float())
        ids, mask, position, source = inputs
        decoder = self.causal.model
        state = decoder.embed_tokens(ids)
        rotary, mask = decoder.rotary_emb(state, position), mask.to(self.causal.dtype)
        for layer in decoder.layers:
            state = layer(state, attention_mask=mask, position_ids=position, position_embeddings=rotary)
        return decoder.norm(state.gather(1, source[..., None].expand(-1, -1, state.shape[-1])))  # type: ignore[no-any-return]


def build_sharded(skeleton: nn.Module, rows: Sequence[Tensor], device: torch.device) -> LaneModel:
    """One lane from the weights `rows[0]` `(P,)`, spread over the processes of the default group (to be given to
    `training.loop.start` as `build`). `skeleton` is consumed; weights that it shares with others stay as they are.

    Raises ValueError for more than one lane, and for a decoder that is not laid out as Llama's.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if len(rows) != 1:
        raise ValueError(f"a sharded model holds one lane, not {len(rows)}")
    plain: Any = skeleton
    if plain.config.model_type not in LLAMA_LAYOUT:
        raise ValueError(f"{type(skeleton).__name__} is not laid out as Llama's decoder")
    recomputes = any(getattr(module, "gradient_checkpointing", False) for module in skeleton.modules())
    _own_parameters(skeleton, unflatten(rows[0].float(), parameter_shapes(skeleton)))
    frozen = sum(parameter.numel() for parameter in skeleton.parameters() if not parameter.requires_grad)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    whole = _Halves(skeleton)
    for part in (*plain.model.layers, whole):
        fully_shard(part, mesh=mesh, reshard_after_forward=True)
    whole.to(device)
    parameters = tuple(trainable(skeleton).values())
    flat = torch.cat([_share(parameter).detach().float().reshape(1, -1) for parameter in parameters], 1)
    model = ShardedModel(whole, flat, parameters, frozen, recomputes, getattr(plain, "compute_dtype", None))
    return cast(LaneModel, model)  # what the trainer asks of one, and no more


def _own_parameters(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a model parameters of its own: the trainable ones with `weights`, the others over the data they have.

    FSDP moves a parameter's data to the device in place, and a loaded base is shared by every pack of the process.
    """
    fresh = {
        id(parameter): nn.Parameter(weights[name])
        if parameter.requires_grad
        else nn.Parameter(parameter.detach(), requires_grad=False)
        for name, parameter in model.named_parameters()  # tied ones once
    }
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            setattr(module, name, fresh[id(parameter)])


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
