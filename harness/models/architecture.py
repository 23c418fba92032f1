"""Architectures by recipe: small Llama-type decoders trained from scratch, and models from a folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from harness.model_files.location import model_shape
from harness.models.folder import Source, shell, source_of, start_weights
from harness.models.lane_model import flatten
from harness.types import PathModelSpec


@dataclass(frozen=True, slots=True)
class Architecture:
    """Shape of a Llama-type decoder with tied embeddings. `initializer_range` 0.1: 0.02 learns far too slowly here.

    `score` adds a scalar head on the last hidden state: a reward model's score, or a policy's value estimate. Its
    weights stand behind all others in a row `(P,)`, so `with_score` turns a decoder's row into one with a head.
    With a `source` it is the model of that folder, and the shape says how large that is.
    """

    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    max_positions: int
    initializer_range: float = 0.1
    score: bool = False
    source: Source | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Frozen:
    """A model that is not trained: an architecture and its weights `(P,)`."""

    architecture: Architecture
    weights: Tensor


def path_reference(model: PathModelSpec) -> Frozen | None:
    """The reference that a spec names beside its policy, run as the policy is; None where it names none.

    With `lora` it carries adapters that do nothing, so that lanes share its frozen weights.
    """
    if not model.reference:
        return None
    own = replace(model, path=model.reference, sha256=model.reference_sha256, revision="", reference="")
    architecture = path_architecture(own)
    return Frozen(architecture, initial_weights(architecture, 0))


def path_architecture(model: PathModelSpec) -> Architecture:
    """The architecture of a model from a path."""
    own = model_shape(model)
    return Architecture(
        own.vocab_size, own.hidden_size, own.layers, own.heads, own.intermediate_size, 0, source=source_of(model)
    )


def skeleton(architecture: Architecture) -> Any:
    """An unmodified causal LM of transformers: a `LlamaForCausalLM` of this shape, weights as transformers initialises
    them (fp32, SDPA), or the model of the architecture's source."""
    model = _from_scratch(architecture) if architecture.source is None else shell(architecture.source)
    if architecture.score:
        model.score = nn.Linear(architecture.hidden_size, 1, bias=False)
    return model


def _from_scratch(architecture: Architecture) -> Any:
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


def with_score(architecture: Architecture, weights: Tensor) -> tuple[Architecture, Tensor]:
    """The same decoder with a scalar head that starts at zero: every response scores 0, whatever the weights."""
    return replace(architecture, score=True), torch.cat([weights, weights.new_zeros(architecture.hidden_size)])


def initial_weights(architecture: Architecture, seed: int) -> Tensor:
    """The row `(P,)` of weights to start from; what is drawn comes from `seed` alone, the global generator stays."""
    if architecture.source is not None:
        return start_weights(architecture.source, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return flatten(skeleton(architecture))
