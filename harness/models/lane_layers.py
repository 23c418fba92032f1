"""The layers of a decoder with one set of parameters per lane: linear, embedding, norm.

What has no version of its own runs lane by lane through the unmodified module, so no architecture is refused for a
layer that it brings along.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class LaneLinear(nn.Module):
    """`y[k] = x[k] @ weight[k].T + bias[k]` for input `(K * B, ..., in)`: one GEMM a lane, so lanes never mix."""

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.weight = weight  # (K, out, in)
        self.bias = bias  # (K, out)

    def forward(self, x: Tensor) -> Tensor:
        lanes, out, width = self.weight.shape
        rows = x.reshape(lanes, -1, width)
        if torch.is_autocast_enabled(x.device.type) or not torch.is_grad_enabled():
            y = torch.bmm(rows, self.weight.transpose(1, 2))
        else:
            y = _LaneProduct.apply(rows, self.weight)  # type: ignore[no-untyped-call]
        if self.bias is not None:
            y = y + self.bias[:, None]
        return y.reshape(*x.shape[:-1], out)


class _LaneProduct(torch.autograd.Function):
    """`x[k] @ weight[k].T`, whose weight gradient comes out laid out as the weight is: autograd's own is turned."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return torch.bmm(rows, weight.transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors
        back = torch.bmm(gradient, weight) if ctx.needs_input_grad[0] else None
        own = torch.bmm(gradient.transpose(1, 2), rows) if ctx.needs_input_grad[1] else None
        return back, own


class LaneConv1D(nn.Module):
    """GPT-2's linear layer, whose weight is stored the other way round: `y[k] = x[k] @ weight[k] + bias[k]`."""

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight  # (K, in, out)
        self.bias = bias  # (K, out)

    def forward(self, x: Tensor) -> Tensor:
        lanes, width, out = self.weight.shape
        y = torch.baddbmm(self.bias[:, None], x.reshape(lanes, -1, width), self.weight)
        return y.reshape(*x.shape[:-1], out)


class LaneEmbedding(nn.Module):
    """Embedding of ids `(K * B, T)`: lane k reads its own table."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight  # (K, V, d)

    def forward(self, ids: Tensor) -> Tensor:
        lanes, vocabulary, width = self.weight.shape
        if not torch.is_grad_enabled():  # one table would be a copy of all of them, at every sampled token
            lane = torch.arange(lanes, device=ids.device).repeat_interleave(ids.shape[0] // lanes)
            return self.weight[lane[:, None], ids]
        offset = torch.arange(lanes, device=ids.device).mul_(vocabulary).repeat_interleave(ids.shape[0] // lanes)
        return functional.embedding(ids + offset[:, None], self.weight.reshape(lanes * vocabulary, width))


class LaneNorm(nn.Module):
    """Root-mean-square norm with one scale vector a lane (fp32 inside, as transformers computes it)."""

    def __init__(self, weight: nn.Parameter, epsilon: float) -> None:
        super().__init__()
        self.weight = weight  # (K, d)
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        lanes, width = self.weight.shape
        hidden = x.float()
        hidden = hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.epsilon)
        scaled = self.weight[:, None] * hidden.to(x.dtype).reshape(lanes, -1, width)
        return scaled.reshape(x.shape)


class LaneShiftedNorm(LaneNorm):
    """Gemma's norm: the scale is 1 + weight, and the result is rounded only after it."""

    def forward(self, x: Tensor) -> Tensor:
        lanes, width = self.weight.shape
        hidden = x.float()
        hidden = hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.epsilon)
        scaled = hidden.reshape(lanes, -1, width) * (1.0 + self.weight.float())[:, None]
        return scaled.reshape(x.shape).type_as(x)


class LaneLayerNorm(nn.Module):
    """Layer norm with a scale (and shift) vector a lane."""

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None, epsilon: float) -> None:
        super().__init__()
        self.weight = weight  # (K, d)
        self.bias = bias  # (K, d)
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        lanes, width = self.weight.shape
        y = functional.layer_norm(x, (width,), None, None, self.epsilon).reshape(lanes, -1, width)
        y = y * self.weight[:, None]
        if self.bias is not None:
            y = y + self.bias[:, None]
        return y.reshape(x.shape)


class LaneByLane(nn.Module):
    """Any other module with parameters: the unmodified module itself, called once a lane with that lane's parameters.

    Tensors as long as the first argument are cut into lanes; everything else is handed on as it is.
    """

    def __init__(self, inner: nn.Module, stacked: Mapping[str, nn.Parameter]) -> None:
        super().__init__()
        self.names = tuple(stacked)
        self.stacked = nn.ParameterList(stacked.values())
        object.__setattr__(self, "inner", inner)  # no child: its own parameters are no part of the model any more

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        lanes = self.stacked[0].shape[0]
        first = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        size = first.shape[0] // lanes

        def part(value: Any, lane: int) -> Any:
            own = isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] == first.shape[0]
            return value[lane * size : (lane + 1) * size] if own else value

        found = []
        for lane in range(lanes):
            own = {name: p[lane] for name, p in zip(self.names, self.stacked, strict=True)}
            inner: Any = self.inner
            given = {name: part(value, lane) for name, value in kwargs.items()}
            found.append(torch.func.functional_call(inner, own, tuple(part(v, lane) for v in args), given))
        return torch.cat(found)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        inner: Any = self.inner
        inner._apply(fn)  # its buffers move along
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]


class LaneFrozen(nn.Module):
    """A frozen linear layer that all K lanes share.

    On a CPU the bits of a matrix product may depend on how many rows it has, so there each lane has a product of its
    own; on a GPU one product serves all.
    """

    def __init__(self, inner: nn.Module, lanes: int) -> None:
        super().__init__()
        self.inner = inner
        self.lanes = lanes

    @property
    def weight(self) -> Tensor:
        """The shared weight, as the unmodified module stores it."""
        return self.inner.weight  # type: ignore[return-value]

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cuda or self.lanes == 1:
            return self.inner(x)  # type: ignore[no-any-return]
        return torch.cat([self.inner(part) for part in x.chunk(self.lanes)])


def lane_version(module: nn.Module, stacked: Mapping[str, nn.Parameter]) -> nn.Module:
    """The version of a module without lanes for stacked parameters `{name: (K, ...)}`, all of the module's own."""
    kind = type(module).__name__
    weight, bias = stacked.get("weight"), stacked.get("bias")
    if weight is not None and stacked.keys() <= {"weight", "bias"}:
        if type(module) is nn.Linear:
            return LaneLinear(weight, bias)
        if type(module) is nn.Embedding:
            return LaneEmbedding(weight)
        if type(module) is nn.LayerNorm and len(module.normalized_shape) == 1:
            return LaneLayerNorm(weight, bias, float(module.eps))
        if kind == "Conv1D" and bias is not None:
            return LaneConv1D(weight, bias)
        if kind in SCALED_NORMS:
            return LaneNorm(weight, float(module.variance_epsilon))  # type: ignore[arg-type]
        if kind in SHIFTED_NORMS:
            return LaneShiftedNorm(weight, float(module.eps))  # type: ignore[arg-type]
    return LaneByLane(module, stacked)


# Root-mean-square norms by class name, by what multiplies: the weight, or 1 + weight.
SCALED_NORMS = ("LlamaRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm", "MistralRMSNorm")
SHIFTED_NORMS = ("GemmaRMSNorm", "Gemma2RMSNorm", "Gemma3RMSNorm")
