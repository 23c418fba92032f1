"""Trained weights as one safetensors file, under the names that transformers and peft give them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from harness.models.architecture import Architecture, skeleton
from harness.models.lane_model import parameter_shapes, unflatten
from harness.models.lora import peft_name
from harness.storage.atomic import write_atomic
from harness.types import InputError

FILE = "weights.safetensors"
_HEAD = "score."  # a value or reward head is no part of a language model


@dataclass(frozen=True, slots=True)
class WeightsNote:
    """What stands beside the tensors: `rule` final or best, the `step` they are of, `kind` full or lora.

    `tokenizer` is the JSON of one that was trained on the data ("": source or model have their own).
    """

    kind: str
    rule: str
    step: int
    tokenizer: str = ""


def weight_tensors(architecture: Architecture, row: Tensor) -> dict[str, Tensor]:
    """The tensors of a row `(P,)` by name, in the dtype that the model computes in; adapters in fp32 under peft's
    names."""
    source = architecture.source
    parts = unflatten(row, parameter_shapes(skeleton(architecture)))
    parts = {name: part for name, part in parts.items() if not name.startswith(_HEAD)}
    if source is not None and source.lora is not None:
        return {peft_name(name): part.contiguous() for name, part in parts.items()}
    dtype = torch.bfloat16 if source is not None and source.dtype == "bfloat16" else torch.float32
    return {name: part.to(dtype).contiguous() for name, part in parts.items()}


def save_weights(path: Path, architecture: Architecture, row: Tensor, note: WeightsNote) -> None:
    """Write one lane's row `(P,)` to `path`, atomically."""
    from safetensors.torch import save

    tensors = {name: part.clone() for name, part in weight_tensors(architecture, row).items()}
    # One key: safetensors writes several in any order, and equal runs have equal files.
    write_atomic(path, save(tensors, {"harness": json.dumps(asdict(note), sort_keys=True)}))


def load_weights_file(path: Path) -> tuple[Mapping[str, Tensor], WeightsNote]:
    """The tensors of a file and the note beside them. Raises InputError for a file that cannot be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            note = WeightsNote(**json.loads(file.metadata()["harness"]))
            return {name: file.get_tensor(name) for name in file.keys()}, note  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run the sweep again") from error
