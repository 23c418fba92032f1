"""A file of real pairs as one replicate sees it: read, split by prompt, tokenised by a tokenizer of its own.

Imports no torch, so `harness plan` can say what a sweep would drop and cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.data.notes import Note
from harness.data.pairs import read_pairs, split
from harness.data.rows import TokenisedPair
from harness.data.tokens import Tokenizer, encode_pairs, train_tokenizer
from harness.names import stream_seed
from harness.types import DataSpec, InputError, ModelSpec, PreferencePair, RunSpec


@dataclass(frozen=True, eq=False)
class TextData:
    """The usable pairs of a data set under one replicate seed, with notes on the file and on this seed's tokens."""

    train: tuple[PreferencePair, ...]
    heldout: tuple[PreferencePair, ...]
    tokens: dict[str, TokenisedPair]
    tokenizer: Tokenizer
    rows: int  # read from the file
    usable: int  # of them pairs
    file_notes: tuple[Note, ...]
    notes: tuple[Note, ...]


def read_text(data: DataSpec, model: ModelSpec, seed: int) -> TextData:
    """Read, split and tokenise. Raises InputError for data that leaves nothing to train on or to hold out."""
    table = read_pairs(data)
    train, heldout = split(table.pairs, data.heldout, stream_seed(seed, "split"))
    tokenizer = train_tokenizer((text for p in train for text in (p.prompt, p.chosen, p.rejected)), model.vocab_size)
    kept, notes = encode_pairs(
        tokenizer,
        [*train, *heldout],
        data.max_length,
        data.max_prompt_length,
        data.on_bad_row,
        data.max_response_length,
    )
    tokens = {pair.id: pair for pair in kept}
    text = TextData(
        tuple(pair for pair in train if pair.id in tokens),
        tuple(pair for pair in heldout if pair.id in tokens),
        tokens,
        tokenizer,
        table.rows,
        len(table.pairs),
        table.notes,
        notes,
    )
    if not text.train or not text.heldout:
        raise InputError(
            f"data.path: {len(text.train)} pairs are left to train on and {len(text.heldout)} to hold out; "
            "harness plan names what was dropped"
        )
    return text


def data_notes(runs: Sequence[RunSpec]) -> list[str]:
    """What a sweep on real pairs reads, drops and cuts, a sentence each; empty for the embedded world."""
    seen: dict[tuple[DataSpec, ModelSpec, int], None] = {}
    for run in runs:
        if run.data is not None and run.model is not None:
            seen.setdefault((run.data, run.model, run.seed))
    lines: dict[str, None] = {}
    for data, model, seed in seen:
        text = read_text(data, model, seed)
        lines.setdefault(f"{text.rows} rows read, {text.rows - text.usable} dropped, {text.usable} usable pairs")
        for note in text.file_notes:
            lines.setdefault(note.text)
        lines.setdefault(f"seed {seed}: {len(text.train)} pairs to train on, {len(text.heldout)} held out by prompt")
        for note in text.notes:
            lines.setdefault(f"seed {seed}: {note.text}")
    return list(lines)
