"""A transformers decoder turned into K lanes (runs of a pack): its trained parameters get a leading dimension K.

Modules with trainable parameters (all of a model, or the adapters over a frozen one) are replaced by versions with
stacked parameters; lanes are folded into the batch everywhere else, so attention code stays transformers' own. All
trainable state of a pack is one `(K, P)` matrix and its gradient another: a lane is a row, which makes clipping, AdamW,
masking and checkpointing per-lane row operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from harness.model_files.folder import LLAMA_LAYOUT
from harness.models.lane_layers import LaneByLane, LaneFrozen, lane_version
from harness.models.lora import LaneLora, Lora, is_linear

T = TypeVar("T")


F = TypeVar("F", bound=Callable[..., Any])


def _in_compute_dtype(method: F) -> F:
    """Run a method of `LaneModel` under autocast where the model computes in another dtype than its weights have."""

    @wraps(method)
    def run(self: LaneModel, *args: Any, **kwargs: Any) -> Any:
        if self.compute is None:
            return method(self, *args, **kwargs)
        with torch.autocast(self.flat.device.type, self.compute):
            return method(self, *args, **kwargs)

    return run  # type: ignore[return-value]  # the same signature


@dataclass(frozen=True)
class LaneModel:
    """A decoder for K lanes. `flat` `(K, P')` holds every trainable parameter; the modules of `model` read views of it.

    P' is P filled up with zeros to a multiple of 64: rows then stay aligned with vector instructions, whose results
    may differ from their scalar tails in the last bit, and a lane's update does not depend on its row.
    """

    model: Any  # a transformers causal LM after surgery
    flat: Tensor
    parameters: tuple[nn.Parameter, ...]  # the stacked views, in the order of `flat`'s columns
    recomputes: bool = False  # gradient checkpointing
    compute: torch.dtype | None = None  # of matrix products over fp32 weights, where it is another (autocast)

    processes = 1  # that the lanes are spread over

    @property
    def lanes(self) -> int:
        """K."""
        return self.flat.shape[0]

    @cached_property
    def trained(self) -> int:
        """Parameters of a lane that are trained (P)."""
        return sum(parameter[0].numel() for parameter in self.parameters)

    @cached_property
    def frozen(self) -> int:
        """Parameters that all lanes share: those of the base under adapters, else none."""
        own = {id(parameter) for parameter in self.parameters}
        return sum(parameter.numel() for parameter in self.model.parameters() if id(parameter) not in own)

    @property
    def layers(self) -> int:
        """Decoder layers."""
        return int(self.model.config.num_hidden_layers)

    @property
    def _llama(self) -> bool:
        return self.model.config.model_type in LLAMA_LAYOUT

    @_in_compute_dtype
    def hidden(self, ids: Tensor, mask: Tensor, position: Tensor, cache: Any = None) -> Tensor:
        """Last hidden states `(K * B, T, d)`; ids, positions `(K * B, T)` and an additive mask `(K * B, 1, T, S)`."""
        self._recompute(cache is None)
        output = self.model.base_model(
            input_ids=ids,
            attention_mask=mask.to(self.model.dtype),
            position_ids=position,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        return output.last_hidden_state  # type: ignore[no-any-return]

    @_in_compute_dtype
    def hidden_at(self, ids: Tensor, mask: Tensor, position: Tensor, source: Tensor) -> Tensor:
        """Last hidden states `(K * B, R, d)` at the row indices `source` `(K * B, R)` alone.

        Where the decoder is laid out as Llama's, its last layer's attention needs every position, what follows it
        only those that predict something: MLP and norm are not computed for prompts and padding. The same numbers as
        `hidden` gathered at `source`.
        """
        if not self._llama:
            return _gathered(self.hidden(ids, mask, position), source)
        self._recompute(True)
        decoder = self.model.model
        hidden = decoder.embed_tokens(ids)
        rotary = decoder.rotary_emb(hidden, position)
        mask = mask.to(self.model.dtype)
        for layer in decoder.layers[:-1]:
            hidden = layer(hidden, attention_mask=mask, position_ids=position, position_embeddings=rotary)
        last = decoder.layers[-1]
        attended, _ = last.self_attn(
            hidden_states=last.input_layernorm(hidden), attention_mask=mask, position_embeddings=rotary
        )
        hidden = _gathered(hidden + attended, source)
        hidden = hidden + last.mlp(last.post_attention_layernorm(hidden))
        return decoder.norm(hidden)  # type: ignore[no-any-return]

    @_in_compute_dtype
    def decode(self, ids: Tensor, mask: Tensor, places: tuple[Tensor, ...], cache: Any) -> Tensor:
        """Last hidden states `(K * B, t, d)` of the next t tokens, behind those that `cache` holds.

        `places` holds what `places` gives for the positions of `ids` `(K * B, t)`; `mask` `(K * B, 1, t, S)` is
        additive over the S positions cached so far, these t among them.
        """
        if not self._llama:
            return self.hidden(ids, mask, places[0], cache)
        self._recompute(False)
        decoder = self.model.model
        hidden = decoder.embed_tokens(ids)
        mask = mask.to(self.model.dtype)
        for layer in decoder.layers:
            hidden = layer(hidden, attention_mask=mask, position_embeddings=places, past_key_values=cache)
        return decoder.norm(hidden)  # type: ignore[no-any-return]

    def places(self, position: Tensor) -> tuple[Tensor, ...]:
        """What `decode` reads of positions `(K * B, t)`: cosines and sines `(K * B, t, head width)`, or themselves."""
        if not self._llama:
            return (position,)
        like = torch.empty(0, dtype=self.model.dtype, device=self.flat.device)
        return self.model.model.rotary_emb(like, position)  # type: ignore[no-any-return]

    def _recompute(self, allowed: bool) -> None:
        """Layers recompute their activations in the backward pass where that was asked for; never beside a cache."""
        if self.recomputes:
            for module in self.model.modules():
                if getattr(module, "gradient_checkpointing", None) is not None:
                    module.training = allowed and torch.is_grad_enabled()

    def gradient(self, objective: Tensor, out: Tensor | None = None) -> Tensor:
        """d objective / d flat for a scalar that is a sum over lanes, so lane k's row is its own gradient.

        Written into `out` `(K, P')` where it is given; its columns beyond P are left as they are.
        """
        out = torch.zeros_like(self.flat) if out is None else out
        start = 0
        for part in torch.autograd.grad(objective, self.parameters):
            size = part[0].numel()
            out[:, start : start + size].view(part.shape).copy_(part)
            start += size
        return out

    def norm(self, grad: Tensor) -> Tensor:
        """The norm `(K, 1)` of each lane's gradient."""
        norm: Tensor = torch.linalg.vector_norm(grad, dim=1, keepdim=True)
        return norm

    def spread(self, index: Tensor, read: Callable[[Tensor], T]) -> T:
        """What is read of the pairs `index` `(K, B)`: here, all of them in this process."""
        return read(index)

    def weights(self, lane: int) -> Tensor:
        """A copy of one lane's parameters `(P,)` on the CPU, as `flatten` lays them out."""
        return self.row(self.flat, lane)

    def row(self, values: Tensor, lane: int) -> Tensor:
        """A copy `(P,)` on the CPU of one lane's row of `values` `(K, P')`: the parameters, or a moment of them."""
        return values[lane, : self.trained].detach().cpu().clone()

    def put_row(self, values: Tensor, lane: int, row: Tensor) -> None:
        """Write `row` `(P,)`, as `row` gives it, to a lane of `values`."""
        values[lane, : len(row)] = row.to(values.device)

    def score(self, hidden: Tensor) -> Tensor:
        """Scores `(K * B, ...)` in fp32 of hidden states `(K * B, ..., d)`, for an architecture with a scalar head."""
        # Not a matrix product: with one column the library picks its kernel by the number of lanes.
        weight = self.model.score.weight
        rows = hidden.reshape(self.lanes, -1, weight.shape[-1])
        scores: Tensor = (rows * weight).sum(-1).float().reshape(hidden.shape[:-1])
        return scores

    @_in_compute_dtype
    def head(self, hidden: Tensor) -> Tensor:
        """Logits `(..., V)` in fp32 of hidden states `(K * B, ..., d)`."""
        return scaled_logits(self.model.config, self.model.get_output_embeddings()(hidden).float())


def scaled_logits(config: Any, logits: Tensor) -> Tensor:
    """The logits of a model from those of its output layer: some architectures scale them or cap them softly."""
    if scale := getattr(config, "logit_scale", None):  # Cohere
        logits = logits * scale
    if divisor := getattr(config, "logits_scaling", None):  # Granite
        logits = logits / divisor
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma 2
    return logits if cap is None else torch.tanh(logits / cap) * cap


def _gathered(hidden: Tensor, source: Tensor) -> Tensor:
    return hidden.gather(1, source[..., None].expand(-1, -1, hidden.shape[-1]))


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trainable parameters of an unmodified model by name, tied ones once, in a stable order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def parameter_shapes(model: nn.Module) -> dict[str, torch.Size]:
    """Name -> shape of the trainable parameters of an unmodified model."""
    return {name: parameter.shape for name, parameter in trainable(model).items()}


def flatten(model: nn.Module) -> Tensor:
    """The trainable parameters of an unmodified model as one fp32 row `(P,)`, in the order of `parameter_shapes`."""
    return torch.cat([parameter.detach().float().reshape(-1) for parameter in trainable(model).values()])


def unflatten(row: Tensor, shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    """The inverse of `flatten`: name -> tensor, views of `row`."""
    sizes = [shape.numel() for shape in shapes.values()]
    return {
        name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), torch.split(row, sizes), strict=True)
    }


def build_lanes(skeleton: nn.Module, rows: Sequence[Tensor], device: torch.device) -> LaneModel:
    """A pack whose lane k starts from the weights `rows[k]` `(P,)`.

    `skeleton` is an unmodified transformers causal LM of the architecture, or one with adapters over frozen weights; it
    is consumed (its modules are replaced). Frozen parameters are shared by all lanes, and by all packs over them.
    """
    flat = torch.stack([row.to(torch.float32) for row in rows])
    flat = nn.functional.pad(flat, (0, -flat.shape[1] % 64)).to(device)
    stacked: dict[int, nn.Parameter] = {}
    start = 0
    for parameter in trainable(skeleton).values():
        size = parameter.numel()
        stacked[id(parameter)] = nn.Parameter(flat[:, start : start + size].view(len(rows), *parameter.shape))
        start += size
    recomputes = any(getattr(module, "gradient_checkpointing", False) for module in skeleton.modules())
    _replace(skeleton, stacked, len(rows))
    compute = getattr(skeleton, "compute_dtype", None)
    return LaneModel(skeleton.to(device), flat, tuple(stacked.values()), recomputes, compute)


def _replace(module: nn.Module, stacked: dict[int, nn.Parameter], lanes: int) -> None:
    """Swap every module that owns trainable parameters for its lane version, in place; frozen linear layers are shared.

    A module with parameters of its own beside others inside it is taken as a whole.
    """
    for name, child in list(module.named_children()):
        direct = dict(child.named_parameters(recurse=False))
        within = {key: parameter for key, parameter in child.named_parameters() if id(parameter) in stacked}
        own = {key: stacked[id(parameter)] for key, parameter in within.items()}
        if isinstance(child, Lora):
            setattr(module, name, LaneLora(child, own["lora_A"], own["lora_B"]))
        elif not within:
            setattr(module, name, LaneFrozen(child, lanes)) if is_linear(child) else _replace(child, stacked, lanes)
        elif not direct:
            _replace(child, stacked, lanes)
        elif direct.keys() == within.keys():
            setattr(module, name, lane_version(child, own))
        else:
            setattr(module, name, LaneByLane(child, own))
