"""Low-rank adapters over a frozen model: W x + (alpha / rank) B A x (arXiv 2106.09685), by lanes over one base.

Names, initialisation and scaling are those of peft, so that what is trained here is loaded there.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.model_files.folder import end_problem
from harness.models.lane_layers import LaneFrozen
from harness.types import InputError, LoraSpec

ALL = "all-linear"
PREFIX, A, B = "base_model.model.", "lora_A", "lora_B"  # of peft's tensor names


class Lora(nn.Module):
    """A frozen linear layer `base` with an adapter of its own: `lora_A` `(r, in)`, `lora_B` `(out, r)`, fp32."""

    def __init__(self, base: nn.Module, rank: int, scale: float) -> None:
        super().__init__()
        self.base = base
        self.scale = scale
        weight: Tensor = base.weight  # type: ignore[assignment]
        out, width = weight.shape if isinstance(base, nn.Linear) else weight.shape[::-1]
        self.lora_A = nn.Parameter(torch.zeros(rank, width))
        self.lora_B = nn.Parameter(torch.zeros(out, rank))

    def forward(self, x: Tensor) -> Tensor:
        """The layer with its adapter, where there is one lane alone."""
        y: Tensor = self.base(x)
        inner = functional.linear(x, self.lora_A.to(x.dtype))
        return y + (functional.linear(inner, self.lora_B.to(x.dtype)) * self.scale).to(y.dtype)


class LaneLora(nn.Module):
    """`y = base(x) + scale * x A[k]^T B[k]^T` for input `(K * B, ..., in)`: one base, an adapter a lane.

    The adapter is computed in the dtype of `x`; its weights are kept in fp32.
    """

    def __init__(self, plain: Lora, a: nn.Parameter, b: nn.Parameter) -> None:
        super().__init__()
        self.base = LaneFrozen(plain.base, a.shape[0])
        self.scale = plain.scale
        self.lora_A = a  # (K, r, in)
        self.lora_B = b  # (K, out, r)

    def forward(self, x: Tensor) -> Tensor:
        lanes, _, width = self.lora_A.shape
        y: Tensor = self.base(x)
        rows = x.reshape(lanes, -1, width)
        inner = torch.bmm(rows, self.lora_A.to(rows.dtype).transpose(1, 2))
        added = torch.bmm(inner, self.lora_B.to(rows.dtype).transpose(1, 2)) * self.scale
        return y + added.reshape(y.shape).to(y.dtype)


def is_linear(module: nn.Module) -> bool:
    """Whether an adapter can stand on a module: a linear layer, or GPT-2's, whose weight lies the other way round."""
    return type(module) is nn.Linear or type(module).__name__ == "Conv1D"


def target_names(model: Any, lora: LoraSpec) -> list[str]:
    """The names of the modules that get an adapter, in the model's order, chosen as peft chooses them.

    Raises InputError for a target that names no linear layer.
    """
    linear = [name for name, module in model.named_modules() if is_linear(module)]
    head = model.get_output_embeddings()
    if lora.targets == (ALL,):
        return [name for name in linear if model.get_submodule(name) is not head]

    def hit(name: str, target: str) -> bool:
        return name == target or name.endswith(f".{target}")

    tied = head is not None and head.weight is model.get_input_embeddings().weight
    if ends := [why for target in lora.targets if (why := end_problem(target, tied))]:
        raise InputError(f"model.lora.targets: {'; '.join(ends)}")
    if missed := [target for target in lora.targets if not any(hit(name, target) for name in linear)]:
        known = sorted({name.rpartition(".")[2] for name in linear})
        raise InputError(
            f"model.lora.targets: {', '.join(missed)} names no linear layer of this model; expected {ALL}, or some of "
            f"{', '.join(known)}"
        )
    return [name for name in linear if any(hit(name, target) for target in lora.targets)]


def adapt(model: Any, lora: LoraSpec) -> Any:
    """Freeze a model and put an adapter of zeros on its targets, in place; returns the model."""
    names = target_names(model, lora)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for name in names:
        parent, _, own = name.rpartition(".")
        base = model.get_submodule(name)
        setattr(model.get_submodule(parent), own, Lora(base, lora.rank, lora.alpha / lora.rank))
    return model


def initial_adapters(model: Any, seed: int) -> Tensor:
    """A fresh row `(P,)` for an adapted model, drawn from `seed` alone: A uniform as peft draws it, B zero.

    A is uniform in +-1 / sqrt(in): `kaiming_uniform_` with a = sqrt(5).
    """
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        drawn = torch.zeros(parameter.shape)
        if name.endswith(A):
            drawn.uniform_(-1.0, 1.0, generator=generator).mul_(1.0 / math.sqrt(parameter.shape[1]))
        parts.append(drawn.reshape(-1))
    return torch.cat(parts)


def peft_name(name: str) -> str:
    """The name of an adapter's tensor in peft's files: `base_model.model.<module>.lora_A.weight`."""
    return f"{PREFIX}{name}.weight"
