"""peft adapters that were trained anywhere, merged into the base that they name."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import torch

from harness.identity import file_sha256
from harness.models.folder import Source, base_model
from harness.models.lane_model import flatten
from harness.storage.atomic import read_json
from harness.types import InputError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds a peft adapter."""
    return (folder / CONFIG).is_file()


def adapter_base(folder: Path) -> str:
    """The base model that an adapter names: a path or a hub id. Raises InputError where it names none."""
    base = read_json(folder / CONFIG).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise InputError(f"{folder / CONFIG}: no base_model_name_or_path; write there which model it was trained on")
    beside = (folder / base).resolve()
    return str(beside) if beside.is_dir() and not Path(base).exists() else base


def adapter_sha256(folder: Path) -> str:
    """The hash of an adapter's weights and configuration. Raises InputError where it has no safetensors file."""
    if not (folder / WEIGHTS).is_file():
        raise InputError(f"{folder} has no {WEIGHTS}; save the adapter as safetensors (peft's default)")
    return f"{file_sha256(folder / CONFIG)[:32]}{file_sha256(folder / WEIGHTS)[:32]}"


def merged_weights(source: Source, folder: Path) -> torch.Tensor:
    """The weights `(P,)` of the source's model with an adapter merged into them: a row of the same architecture.

    Raises InputError where peft cannot put the adapter on this base.
    """
    from peft import PeftModel

    base = copy.deepcopy(base_model(source))
    names = [name for name, _ in base.named_parameters()]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft uses names that transformers is giving up
            merged: Any = PeftModel.from_pretrained(base, str(folder), is_trainable=False).merge_and_unload()
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{folder}: the adapter does not fit its base {source.folder} ({why})") from None
    if [name for name, _ in merged.named_parameters()] != names:
        raise InputError(
            f"{folder}: the adapter changes the layers of {source.folder}; merge it once and save the model"
        )
    for parameter in merged.parameters():
        parameter.requires_grad_(True)
    return flatten(merged)
