"""Real pairs as one replicate sees them: read, split by prompt, tokenised by a tokenizer of their own or the model's.

Imports no torch, so `harness plan` can say what a sweep would drop and cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.data.chat import Render
from harness.data.notes import Note, make_note, overlap
from harness.data.pairs import PairTable, read_pairs, source, split
from harness.data.rows import TokenisedPair
from harness.data.tokens import Tokenizer, Vocabulary, encode_pairs, train_tokenizer, vocabulary
from harness.names import stream_seed
from harness.types import DataSpec, InputError, ModelSpec, PreferencePair, RunSpec


@dataclass(frozen=True, eq=False)
class TextData:
    """The usable pairs of a data set under one replicate seed, with notes on the file and on this seed's tokens."""

    train: tuple[PreferencePair, ...]
    heldout: tuple[PreferencePair, ...]
    tokens: dict[str, TokenisedPair]
    tokenizer: Tokenizer | None  # None: the model's own, known to `words` alone
    words: Vocabulary
    rows: int  # read from the file
    usable: int  # of them pairs
    file_notes: tuple[Note, ...]
    notes: tuple[Note, ...]


def read_text(
    data: DataSpec, model: ModelSpec, seed: int, words: Vocabulary | None = None, render: Render | None = None
) -> TextData:
    """Read, split and tokenise. Raises InputError for data that leaves nothing to train on or to hold out.

    `words` and `render` are the tokenizer of a model that has one, and its chat template; without `words` a tokenizer
    is trained on the training side.
    """
    table = read_pairs(data, render)
    train, heldout, split_notes = _sides(data, table, seed, render)
    tokenizer = None
    if words is None:
        texts = (text for p in train for text in (p.prompt, p.chosen, p.rejected))
        tokenizer = train_tokenizer(texts, model.vocab_size)
        words = vocabulary(tokenizer)
    kept, notes = encode_pairs(
        words,
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
        words,
        table.rows,
        len(table.pairs),
        table.notes,
        (*split_notes, *notes),
    )
    if not text.train or not text.heldout:
        raise InputError(
            f"{source(data)}: {len(text.train)} pairs are left to train on and {len(text.heldout)} to hold out; "
            "harness plan names what was dropped"
        )
    return text


def _sides(
    data: DataSpec, table: PairTable, seed: int, render: Render | None
) -> tuple[list[PreferencePair], list[PreferencePair], list[Note]]:
    """(train, heldout, notes): by the seed's share of the prompts, or the held-out split less the training prompts."""
    if not data.heldout_split:
        train, heldout = split(table.pairs, data.heldout, stream_seed(seed, "split"))
        near = overlap(train, heldout)
        return train, heldout, [near] if near.count else []
    other = read_pairs(data, render, data.heldout_split)
    known = {pair.meta["prompt_id"] for pair in table.pairs}
    shared = [pair.meta["row"] for pair in other.pairs if pair.meta["prompt_id"] in known]
    heldout = [pair for pair in other.pairs if pair.meta["prompt_id"] not in known]
    notes = [Note(note.kind, note.count, note.rows, f"{data.heldout_split}: {note.text}") for note in other.notes]
    if shared:
        text = f"of {len(other.pairs)} pairs of {data.heldout_split} dropped: their prompt stands in the training split"
        notes.append(make_note("shared_prompt", shared, text))
    near = overlap(table.pairs, heldout)
    return list(table.pairs), heldout, [*notes, near] if near.count else notes


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
