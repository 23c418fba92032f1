"""Lanes by module surgery: one transformers decoder whose trainable state carries a leading lane dimension K.

Linear, embedding and norm modules are replaced by versions with stacked parameters; lanes are folded into the batch
everywhere else, so attention code stays transformers' own. All trainable state of a pack is one `(K, P)` matrix and
its gradient another: a lane is a row, which makes clipping, AdamW, masking and checkpointing per-lane row operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
        y = torch.bmm(rows, self.weight.transpose(1, 2))
        if self.bias is not None:
            y = y + self.bias[:, None]
        return y.reshape(*x.shape[:-1], out)


class LaneEmbedding(nn.Module):
    """Token embedding for ids `(K * B, T)`: lane k reads its own table."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight  # (K, V, d)

    def forward(self, ids: Tensor) -> Tensor:
        lanes, vocabulary, width = self.weight.shape
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


@dataclass(frozen=True)
class LaneModel:
    """A decoder for K lanes. `flat` `(K, P')` holds every parameter; the modules of `model` read views of it.

    P' is P filled up with zeros to a multiple of 64: rows then stay aligned with vector instructions, whose results
    may differ from their scalar tails in the last bit, and a lane's update does not depend on its row.
    """

    model: Any  # a transformers causal LM after surgery
    flat: Tensor
    parameters: tuple[nn.Parameter, ...]  # the stacked views, in the order of `flat`'s columns

    @property
    def lanes(self) -> int:
        return self.flat.shape[0]

    @property
    def layers(self) -> int:
        """Decoder layers."""
        return len(self.model.model.layers)

    def hidden(self, ids: Tensor, mask: Tensor | None, position: Tensor, cache: Any = None) -> Tensor:
        """Last hidden states `(K * B, T, d)`; ids, positions `(K * B, T)` and an additive mask `(K * B, 1, T, S)`."""
        output = self.model.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=position,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        return output.last_hidden_state  # type: ignore[no-any-return]

    def hidden_at(self, ids: Tensor, mask: Tensor, position: Tensor, source: Tensor) -> Tensor:
        """Last hidden states `(K * B, R, d)` at the row indices `source` `(K * B, R)` alone.

        The last layer's attention needs every position, what follows it only those that predict something: its MLP
        and norm are not computed for prompts and padding. The same numbers as `hidden` gathered at `source`.
        """
        decoder = self.model.model
        hidden = decoder.embed_tokens(ids)
        rotary = decoder.rotary_emb(hidden, position)
        for layer in decoder.layers[:-1]:
            hidden = layer(hidden, attention_mask=mask, position_ids=position, position_embeddings=rotary)
        last = decoder.layers[-1]
        attended, _ = last.self_attn(
            hidden_states=last.input_layernorm(hidden), attention_mask=mask, position_embeddings=rotary
        )
        hidden = hidden + attended
        hidden = hidden.gather(1, source[..., None].expand(-1, -1, hidden.shape[-1]))
        hidden = hidden + last.mlp(last.post_attention_layernorm(hidden))
        return decoder.norm(hidden)  # type: ignore[no-any-return]

    def decode(self, ids: Tensor, mask: Tensor, rotary: tuple[Tensor, Tensor], cache: Any) -> Tensor:
        """Last hidden states `(K * B, t, d)` of the next t tokens, behind those that `cache` holds.

        `rotary` holds cosines and sines at the positions of `ids` `(K * B, t)`; `mask` `(K * B, 1, t, S)` is additive
        over the S positions cached so far, these t among them.
        """
        decoder = self.model.model
        hidden = decoder.embed_tokens(ids)
        for layer in decoder.layers:
            hidden = layer(hidden, attention_mask=mask, position_embeddings=rotary, past_key_values=cache)
        return decoder.norm(hidden)  # type: ignore[no-any-return]

    def rotary(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines `(K * B, t, head width)` of positions `(K * B, t)`."""
        return self.model.model.rotary_emb(self.flat, position)  # type: ignore[no-any-return]

    def gradient(self, objective: Tensor) -> Tensor:
        """d objective / d flat for a scalar that is a sum over lanes, so lane k's row is its own gradient."""
        parts = [part.reshape(self.lanes, -1) for part in torch.autograd.grad(objective, self.parameters)]
        parts.append(parts[0].new_zeros(self.lanes, self.flat.shape[1] - sum(part.shape[1] for part in parts)))
        return torch.cat(parts, dim=1)

    def weights(self, lane: int) -> Tensor:
        """A copy of one lane's parameters `(P,)` on the CPU, as `flatten` lays them out."""
        size = sum(parameter[0].numel() for parameter in self.parameters)
        return self.flat[lane, :size].detach().cpu().clone()

    def score(self, hidden: Tensor) -> Tensor:
        """Scores `(K * B, ...)` in fp32 of hidden states `(K * B, ..., d)`, for an architecture with a scalar head."""
        # Not a matrix product: with one column the library picks its kernel by the number of lanes.
        weight = self.model.score.weight
        rows = hidden.reshape(self.lanes, -1, weight.shape[-1])
        scores: Tensor = (rows * weight).sum(-1).float().reshape(hidden.shape[:-1])
        return scores

    def head(self, hidden: Tensor) -> Tensor:
        """Logits `(..., V)` in fp32 of hidden states `(K * B, ..., d)`."""
        return self.model.lm_head(hidden).float()  # type: ignore[no-any-return]


def parameter_shapes(model: nn.Module) -> dict[str, torch.Size]:
    """Name -> shape of the parameters of an unmodified model, tied ones once, in a stable order."""
    return {name: parameter.shape for name, parameter in model.named_parameters()}


def flatten(model: nn.Module) -> Tensor:
    """The parameters of an unmodified model as one fp32 row `(P,)`, in the order of `parameter_shapes`."""
    return torch.cat([parameter.detach().float().reshape(-1) for parameter in model.parameters()])


def unflatten(row: Tensor, shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    """The inverse of `flatten`: name -> tensor, views of `row`."""
    sizes = [shape.numel() for shape in shapes.values()]
    return {
        name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), torch.split(row, sizes), strict=True)
    }


def build_lanes(skeleton: nn.Module, rows: Sequence[Tensor], device: torch.device) -> LaneModel:
    """A pack whose lane k starts from the weights `rows[k]` `(P,)`.

    `skeleton` is an unmodified transformers causal LM of the architecture; it is consumed (its modules are replaced).
    Raises TypeError for a module with parameters that has no lane version.
    """
    shapes = parameter_shapes(skeleton)
    flat = torch.stack([row.to(torch.float32) for row in rows])
    flat = nn.functional.pad(flat, (0, -flat.shape[1] % 64)).to(device)
    stacked: dict[int, nn.Parameter] = {}
    start = 0
    for name, parameter in skeleton.named_parameters():
        size = shapes[name].numel()
        stacked[id(parameter)] = nn.Parameter(flat[:, start : start + size].view(len(rows), *shapes[name]))
        start += size
    _replace(skeleton, stacked)
    return LaneModel(skeleton.to(device), flat, tuple(stacked.values()))


def _replace(module: nn.Module, stacked: dict[int, nn.Parameter]) -> None:
    """Swap every module that owns parameters for its lane version, in place."""
    for name, child in list(module.named_children()):
        own = dict(child.named_parameters(recurse=False))
        if not own:
            _replace(child, stacked)
            continue
        weight = stacked[id(own["weight"])]
        if isinstance(child, nn.Linear):
            bias = None if child.bias is None else stacked[id(child.bias)]
            setattr(module, name, LaneLinear(weight, bias))
        elif isinstance(child, nn.Embedding):
            setattr(module, name, LaneEmbedding(weight))
        elif type(child).__name__.endswith("RMSNorm"):
            setattr(module, name, LaneNorm(weight, float(child.variance_epsilon)))  # type: ignore[arg-type]
        else:
            raise TypeError(f"no lane version of {type(child).__name__} ('{name}')")
