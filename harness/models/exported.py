"""An exported run opened once, and the weights of others put into it: one base in memory, its models in turn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ADAPTER_CONFIG = "adapter_config.json"


def open_exported(folder: Path, device: torch.device) -> tuple[Any, Any]:
    """The model of an exported folder, on `device`, with its tokenizer; an adapter stands on its base model."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    own: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(folder, **own)
    if (folder / ADAPTER_CONFIG).is_file():
        from peft import AutoPeftModelForCausalLM

        model = AutoPeftModelForCausalLM.from_pretrained(folder, **own)
    else:
        model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, dtype="auto", **own)
    return model.eval().to(device), tokenizer


@torch.no_grad()
def put_weights(model: Any, tensors: Mapping[str, Tensor]) -> None:
    """Put a run's tensors, under the names of its weights file, into an opened model of the same base.

    Raises RuntimeError where a tensor has no place in the model, so that no run is taken for another.
    """
    if hasattr(model, "peft_config"):
        from peft import set_peft_model_state_dict

        found: Any = set_peft_model_state_dict(model, dict(tensors))
        if found.unexpected_keys:
            raise RuntimeError(f"adapter tensors without a place: {', '.join(sorted(found.unexpected_keys)[:3])}")
        return
    places = dict(model.named_parameters())
    if lost := sorted(set(places) ^ set(tensors)):
        raise RuntimeError(f"tensors without a place or places without a tensor: {', '.join(lost[:3])}")
    for name, tensor in tensors.items():
        places[name].copy_(tensor)
