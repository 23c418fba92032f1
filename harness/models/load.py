"""Architectures by recipe: the small Llama-type decoders that the harness trains from scratch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.models.pack import flatten


@dataclass(frozen=True, slots=True)
class Architecture:
    """Shape of a Llama-type decoder with tied embeddings. `initializer_range` 0.1: 0.02 learns far too slowly here."""

    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    max_positions: int
    initializer_range: float = 0.1


def skeleton(architecture: Architecture) -> Any:
    """An unmodified `LlamaForCausalLM` of this shape, weights as transformers initialises them (fp32, SDPA)."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=architecture.vocab_size,
        hidden_size=architecture.hidden_size,
        intermediate_size=architecture.intermediate_size,
        num_hidden_layers=architecture.layers,
        num_attention_heads=architecture.heads,
        num_key_value_heads=architecture.heads,
        max_position_embeddings=architecture.max_positions,
        initializer_range=architecture.initializer_range,
        tie_word_embeddings=True,
        attn_implementation="sdpa",
        use_cache=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config)


def initial_weights(architecture: Architecture, seed: int) -> Tensor:
    """A fresh row `(P,)` of weights drawn from `seed` alone; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return flatten(skeleton(architecture))
