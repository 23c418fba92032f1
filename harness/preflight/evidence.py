"""What the checks before training read of a data set: its pairs, notes and tokens, gathered once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from harness.data.chat import Render
from harness.data.pairs import read_pairs
from harness.data.rows import pack_rows
from harness.data.splits import Reading, TextData, read_text
from harness.preflight.row import Evidence
from harness.types import CorruptionSpec, DataSpec, PathModelSpec, PreferencePair, RunSpec


def sources(runs: Sequence[RunSpec]) -> list[tuple[RunSpec, int, tuple[CorruptionSpec, ...]]]:
    """The first run of each data set and model, and of the runs on it the largest batch and the corruptions."""
    found: dict[object, list[RunSpec]] = {}
    for run in runs:
        if run.data is not None:
            found.setdefault((run.data, run.model), []).append(run)
    return [
        (own[0], max(run.training.batch_size for run in own), tuple(dict.fromkeys(run.corruption for run in own)))
        for own in found.values()
    ]


# Opens the tokenizer of a model from a path, which imports torch.
Opened = Callable[[PathModelSpec], Reading]


def gather(
    run: RunSpec, batch: int, reading: Opened | None = None, corruptions: tuple[CorruptionSpec, ...] = ()
) -> Evidence:
    """The evidence of a run's data under its seed, without a reference. Raises InputError for data of no use."""
    data, model = run.data, run.model
    assert data is not None and model is not None
    opened: tuple[Any, ...] = ()
    if isinstance(model, PathModelSpec):
        assert reading is not None
        opened = reading(model)
    text = read_text(data, model, run.seed, *opened)
    rows = pack_rows([text.tokens[pair.id] for pair in text.train])
    shared = _shared(data, text, opened[1] if opened else None)
    return Evidence(data, text, rows, batch, shared=shared, corruptions=corruptions)


def _shared(data: DataSpec, text: TextData, render: Render | None) -> tuple[tuple[PreferencePair, PreferencePair], ...]:
    if not data.heldout_split:
        return ()
    known = {_texts(pair): pair for pair in text.train}
    other = read_pairs(data, render, data.heldout_split).pairs
    return tuple((known[_texts(pair)], pair) for pair in other if _texts(pair) in known)


def _texts(pair: PreferencePair) -> tuple[str, frozenset[str]]:
    return pair.prompt.strip(), frozenset((pair.chosen.strip(), pair.rejected.strip()))
