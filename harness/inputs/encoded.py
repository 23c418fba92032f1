"""Inputs as rows: tokenised pairs with their stored reference log-probs, as a worker trains and measures on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from harness.data.rows import PairRows, TokenisedPair, pack_rows
from harness.inputs.mythworld import mythworld_inputs
from harness.inputs.reference_cache import Scorer
from harness.inputs.reference_models import start_weights
from harness.inputs.run_inputs import RunInputs
from harness.inputs.text import text_inputs
from harness.models.architecture import path_reference
from harness.models.reference_logps import ReferenceTable, pair_keys
from harness.types import PathModelSpec, RunSpec


@dataclass(frozen=True, eq=False)
class EncodedPairs:
    """Pairs as rows with their reference log-probs `(n,)`, chosen and rejected; NaN where they are not scored yet.

    `products` `(n, 3)`: <H_w, H_l>, |H_w|^2, |H_l|^2 of the reference's summed hidden states; empty where unknown.
    `score` gives the reference's table for rows of `tokenised`.
    """

    rows: PairRows
    reference: tuple[np.ndarray, np.ndarray]
    products: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.float32))
    tokenised: Sequence[TokenisedPair] = ()
    score: Callable[[Sequence[TokenisedPair]], ReferenceTable] | None = None

    def score_rows(self, rows: Iterable[int]) -> None:
        """Have the reference score those of `rows` that it has not scored."""
        missing = [row for row in sorted(set(rows)) if np.isnan(self.reference[0][row])]
        if not missing or self.score is None:
            return
        pairs = [self.tokenised[row] for row in missing]
        table, keys = self.score(pairs), pair_keys(pairs)
        for side, own in zip(self.reference, keys, strict=True):
            side[missing] = table.sums(own)
        self.products[missing] = table.hidden_products(*keys)


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
    """The inputs of a run, models included. Raises RuntimeError where one that the sweep builds is not in the cache."""
    weights = start_weights(cache, run)
    if run.world is not None:
        return mythworld_inputs(run, weights)
    return text_inputs(run, weights, path_reference(run.model) if isinstance(run.model, PathModelSpec) else None)


def encode_inputs(inputs: RunInputs, score: Scorer) -> EncodedInputs:
    """Every clean pair of the inputs, tokenised."""
    evals, start = {}, len(inputs.train)
    for split, pairs in inputs.evals.items():
        evals[split] = range(start, start + len(pairs))
        start += len(pairs)
    everything = [inputs.encode(pair) for pairs in (inputs.train, *inputs.evals.values()) for pair in pairs]
    return EncodedInputs(inputs, encode_pairs(inputs, everything, score), evals)


def encode_pairs(inputs: RunInputs, pairs: Sequence[TokenisedPair], score: Scorer) -> EncodedPairs:
    """Tokenised pairs as rows, to be scored by the reference of the inputs.

    Where a score depends on its own row alone, that is done as rows are needed, and rows are as wide as these pairs
    need, whose texts may have become longer; else all are scored now, in the one width of the inputs.
    """
    tokens, responses = (None, None) if inputs.ladder else (inputs.tokens, inputs.responses)
    rows = pack_rows(pairs, tokens=tokens, responses=responses)
    chosen, rejected, *products = (np.full(len(pairs), np.nan, np.float32) for _ in range(5))
    encoded = EncodedPairs(rows, (chosen, rejected), np.stack(products, -1), pairs, partial(score, inputs))
    if not inputs.ladder:
        encoded.score_rows(range(len(pairs)))
    return encoded
