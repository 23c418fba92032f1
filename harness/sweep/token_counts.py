"""How many tokens the pairs of a data set have, read once and cached: what a plan reckons with. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from harness.data.pairs import read_pairs
from harness.data.splits import folder_render, read_text
from harness.data.tokenize import folder_vocabulary, tokenise
from harness.identity import WHEREABOUTS, content_hash, plain
from harness.model_files.location import model_folder
from harness.models.shapes import rung
from harness.storage.atomic import read_json, write_json
from harness.types import InputError, PathModelSpec, RunSpec

CODE_VERSION = 1  # bump when reading or tokens change
PAIRS = 20_000  # that are kept, evenly spaced
DRAWS = 256  # batches that a mean width is taken over


@dataclass(frozen=True)
class TokenCounts:
    """Tokens of the prompt, the chosen and the rejected response of each pair, cut as training cuts them, and the
    number of different prompts."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    prompts: int

    @cached_property
    def pairs_per_prompt(self) -> float:
        """Mean number of pairs that share a prompt."""
        return len(self.prompt) / max(self.prompts, 1)

    @cached_property
    def widest(self) -> tuple[int, int]:
        """Most tokens of a row, and most of both its responses."""
        responses = np.add(self.chosen, self.rejected)
        return int(np.max(responses + self.prompt)), int(responses.max())

    def row_tokens(self, pairs: int, skipping: bool) -> float:
        """Mean tokens that training computes of a row in a batch of so many pairs: the width of the longest, rounded up
        as training does, or where it is `skipping` padding the batch's tokens and one slot, in multiples of 16."""
        rows = np.sum([self.prompt, self.chosen, self.rejected], axis=0)
        drawn = np.random.Generator(np.random.Philox(0)).choice(rows, (DRAWS, pairs))
        padded = np.array([min(rung(one), int(rows.max())) for one in drawn.max(1).tolist()])
        if not skipping:
            return float(padded.mean())
        return float(np.minimum(16 * -(-(drawn.sum(1) + 1) // 16) / pairs, padded).mean())

    @cached_property
    def scored_tokens(self) -> float:
        """Mean tokens that scoring a pair takes: its share of the prompt, and both responses."""
        prompts = sum(map(rung, self.prompt)) / self.pairs_per_prompt
        return (prompts + sum(map(rung, (*self.chosen, *self.rejected)))) / len(self.prompt)

    @cached_property
    def prompt_tokens(self) -> float:
        """Mean tokens of a prompt."""
        return sum(self.prompt) / len(self.prompt)


def token_counts(run: RunSpec, cache: Path) -> TokenCounts | None:
    """The counts of a run's pairs, from the cache or from the data; None for the embedded world, and for a model whose
    folder has no `tokenizer.json`."""
    if run.data is None or run.model is None:
        return None
    data, model = plain(run.data), plain(run.model)
    for section, values in (("data", data), ("model", model)):
        for name in WHEREABOUTS[section]:
            values.pop(name, None)
    # Of a tokenizer that each seed trains one will do: they hardly differ in how many tokens a text has.
    key = content_hash(["token counts", CODE_VERSION, data, model])
    path = cache / "tokens" / f"{key[:32]}.json"
    if path.exists():
        return _loaded(read_json(path))
    found = _of_path(run) if isinstance(run.model, PathModelSpec) else _of_text(run)
    if found is not None and os.access(cache.parent, os.W_OK):  # a plan leaves nothing where no sweep has been
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_json(path, plain(found))
    return found


def _loaded(stored: Any) -> TokenCounts:
    return TokenCounts(tuple(stored["prompt"]), tuple(stored["chosen"]), tuple(stored["rejected"]), stored["prompts"])


def _of_text(run: RunSpec) -> TokenCounts:
    assert run.data is not None and run.model is not None
    text = read_text(run.data, run.model, run.seed)
    return _counted([*text.train, *text.heldout], lambda pairs: [text.tokens[pair.id] for pair in pairs])


def _of_path(run: RunSpec) -> TokenCounts | None:
    data, model = run.data, run.model
    assert data is not None and isinstance(model, PathModelSpec)
    folder = model_folder(model.path, model.sha256)
    words = folder_vocabulary(folder)
    if words is None:
        return None
    table = read_pairs(data, folder_render(model))
    lengths = data.max_length, data.max_prompt_length, data.max_response_length
    return _counted(table.pairs, lambda pairs: tokenise(words, pairs, *lengths)[0])


def _counted(pairs: Any, tokens: Callable[[Any], Any]) -> TokenCounts:
    if not pairs:
        raise InputError("data: no usable pair")
    kept = pairs[:: -(-len(pairs) // PAIRS)]
    sizes = [(len(one.prompt), len(one.chosen), len(one.rejected)) for one in tokens(kept)]
    prompt, chosen, rejected = (tuple(side) for side in zip(*sizes, strict=True))
    return TokenCounts(prompt, chosen, rejected, len({pair.prompt for pair in kept}))
