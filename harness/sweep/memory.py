"""How much memory a lane of a pack takes while it trains, from the sizes in its spec alone. Imports no torch.

Counted are the tensors that are alive at the peak of a step, which is the start of the backward pass: state and
gradients, what the layers keep for the backward pass, and the logits with their gradients.
"""

from __future__ import annotations

from dataclasses import dataclass

FLOAT = 4  # bytes


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a decoder laid out as Llama's, and of a step: `pairs` rows of `tokens`, `responses` of them predicted.

    `trained` counts the trainable parameters of a lane, `frozen` those that all lanes share.
    """

    hidden_size: int
    layers: int
    intermediate_size: int
    vocab_size: int
    pairs: int
    tokens: int
    responses: int
    trained: int
    frozen: int = 0


def parameters(vocab_size: int, hidden_size: int, layers: int, intermediate_size: int) -> int:
    """Parameters of the built decoders: tied embedding, as many key as query heads, no biases."""
    layer = 4 * hidden_size**2 + 3 * hidden_size * intermediate_size + 2 * hidden_size
    return vocab_size * hidden_size + layers * layer + hidden_size


def lane_bytes(shape: Shape) -> int:
    """Bytes that one more lane adds to the peak of a training step in float32."""
    # Weights, both moments, the gradient and, until it is copied there, autograd's own.
    state = 5 * shape.trained
    # What a layer keeps of a token: two norms (normalised, scaled) and their inputs 6 d; queries and keys before,
    # half-turned and after rotation 6 d; values, attended values and their copy 3 d; gate, its activation, up and
    # product 4 f. The attention kernel keeps no scores.
    layer = 15 * shape.hidden_size + 4 * shape.intermediate_size
    kept = shape.pairs * shape.tokens * (layer * shape.layers + shape.tokens)  # the mask: a row of T a token
    # Logits, their log-softmax, and the gradients of both.
    head = 4 * shape.pairs * shape.responses * shape.vocab_size
    return FLOAT * (state + kept + head)


def lanes_within(shape: Shape, budget: int) -> int:
    """How many lanes fit in `budget` bytes beside the shared weights, at least 1."""
    return max((budget - FLOAT * shape.frozen) // lane_bytes(shape), 1)
