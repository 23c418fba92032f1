"""What the runs of one source and seed share: pairs, how they are encoded and judged, and the reference."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from harness.data.rows import TokenisedPair
from harness.identity import content_hash, plain
from harness.metrics.vote_table import Vote
from harness.models.architecture import Architecture, Frozen
from harness.storage.logps_file import StoredReference
from harness.types import PreferencePair

# Judges a batch of samples: (prompt texts, response token ids) -> columns of `samples.parquet`.
Judge = Callable[[Sequence[str], Sequence[np.ndarray]], Mapping[str, np.ndarray]]


@dataclass(frozen=True, eq=False)
class RunInputs:
    """Pairs are in the clean orientation; `label_flips` `(n,)` are the train pairs that the source labels otherwise,
    `validation_flips` the held-out pairs that it would (None: none).

    `tokens`, `responses`, `prompt_width` are row widths (constants of the source); `max_new_tokens` bounds a sample
    that the spec sets no length for. `stop` tells after how many of its tokens a response ends in a stop string.
    """

    name: str
    architecture: Architecture
    weights: Tensor  # (P,): what every policy starts from
    train: tuple[PreferencePair, ...]
    label_flips: np.ndarray
    evals: Mapping[str, tuple[PreferencePair, ...]]
    encode: Callable[[PreferencePair], TokenisedPair]
    judge: Judge
    eos: int
    tokens: int
    responses: int
    prompt_width: int
    max_new_tokens: int
    notes: tuple[str, ...] = ()
    tokenizer: str = ""  # a tokenizer trained on the data, as JSON; "" where source or model have their own
    validation_flips: np.ndarray | None = None
    vote: Callable[[PreferencePair], Vote] | None = None  # how a pair votes, where the source knows what it is about
    stop: Callable[[Sequence[int]], int | None] | None = None
    prompts: tuple[PreferencePair, ...] = ()  # further prompts to answer, which have no pairs; `group` is their kind
    ladder: bool = False  # rows differ so much in length that they are scored in widths of their own
    tuned: bool = True  # the start was trained by the sweep; False: it is the model of the architecture's source
    other: Frozen | None = None  # the reference where it is not the start
    stored: StoredReference | None = None  # its log-probs from a file, in place of those that its weights would give

    @property
    def reference(self) -> Frozen:
        """The reference: what every policy starts from, unless the spec names another model."""
        return self.other or Frozen(self.architecture, self.weights)

    @property
    def reference_sha256(self) -> str:
        """What the reference is, whoever trains from it: fresh adapters leave a model as it was, whatever the seed."""
        source = self.reference.architecture.source
        model = "" if source is None else content_hash([source.sha256, source.dtype, source.attention])
        if source is not None and (self.other is not None or not self.tuned):
            return model
        weights = hashlib.sha256(self.weights.numpy().tobytes()).hexdigest()
        return weights if source is None else content_hash([model, plain(source.lora), weights])
