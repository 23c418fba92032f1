"""Inputs as rows: tokenised pairs with their stored reference log-probs, as a worker trains and measures on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from harness.data.rows import PairRows, TokenisedPair, pack_rows
from harness.inputs.mythworld import mythworld_inputs
from harness.inputs.reference_cache import Scorer
from harness.inputs.reference_models import reference_weights
from harness.inputs.run_inputs import RunInputs
from harness.inputs.text import text_inputs
from harness.models.reference_logps import pair_keys
from harness.types import RunSpec


@dataclass(frozen=True, eq=False)
class EncodedPairs:
    """Pairs as rows with their reference log-probs `(n,)`, chosen and rejected.

    `products` `(n, 3)`: <H_w, H_l>, |H_w|^2, |H_l|^2 of the reference's summed hidden states; empty where unknown.
    """

    rows: PairRows
    reference: tuple[np.ndarray, np.ndarray]
    products: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.float32))


@dataclass(frozen=True, eq=False)
class EncodedInputs:
    """The inputs of a run with all their pairs encoded: train pairs first, then the evaluation splits (`evals[split]`).

    `answers` keeps what the reference itself answers to a split's prompts, drawn when it is first asked for.
    """

    inputs: RunInputs
    pairs: EncodedPairs
    evals: dict[str, range]
    answers: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)


def open_inputs(run: RunSpec, cache: Path) -> RunInputs:
    """The inputs of a run with its reference. Raises RuntimeError where that is gone from the cache."""
    weights = reference_weights(cache, run)
    return mythworld_inputs(run, weights) if run.world is not None else text_inputs(run, weights)


def encode_inputs(inputs: RunInputs, score: Scorer) -> EncodedInputs:
    """Every clean pair of the inputs, tokenised and scored by the reference."""
    evals, start = {}, len(inputs.train)
    for split, pairs in inputs.evals.items():
        evals[split] = range(start, start + len(pairs))
        start += len(pairs)
    everything = [inputs.encode(pair) for pairs in (inputs.train, *inputs.evals.values()) for pair in pairs]
    return EncodedInputs(inputs, encode_pairs(inputs, everything, score), evals)


def encode_pairs(inputs: RunInputs, pairs: Sequence[TokenisedPair], score: Scorer) -> EncodedPairs:
    """Tokenised pairs as rows, with the log-probs of their responses under the reference of the inputs."""
    table = score(inputs, pairs)
    chosen, rejected = pair_keys(pairs)
    rows = pack_rows(pairs, tokens=inputs.tokens, responses=inputs.responses)
    return EncodedPairs(rows, (table.sums(chosen), table.sums(rejected)), table.hidden_products(chosen, rejected))
