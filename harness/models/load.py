"""Architectures by recipe: the small Llama-type decoders that the harness trains from scratch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from harness.models.pack import flatten


@dataclass(frozen=True, slots=True)
class Architecture:
    """Shape of a Llama-type decoder with tied embeddings. `initializer_range` 0.1: 0.02 learns far too slowly here.

    `score` adds a scalar head on the last hidden state: a reward model's score, or a policy's value estimate. Its
    weights stand behind all others in a row `(P,)`, so `with_score` turns a decoder's row into one with a head.
    """

    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    max_positions: int
    initializer_range: float = 0.1
    score: bool = False


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
    model = LlamaForCausalLM(config)
    if architecture.score:
        model.score = nn.Linear(architecture.hidden_size, 1, bias=False)
    return model


def with_score(architecture: Architecture, weights: Tensor) -> tuple[Architecture, Tensor]:
    """The same decoder with a scalar head that starts at zero: every response scores 0, whatever the weights."""
    return replace(architecture, score=True), torch.cat([weights, weights.new_zeros(architecture.hidden_size)])


def initial_weights(architecture: Architecture, seed: int) -> Tensor:
    """A fresh row `(P,)` of weights drawn from `seed` alone; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return flatten(skeleton(architecture))
