"""Real pairs as one replicate sees them: read, split by prompt, tokenised by a tokenizer of their own or the model's.

Imports no torch, so `harness plan` can say what a sweep would drop and cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.data.chat import Render
from harness.data.notes import Note, make_note, overlap
from harness.data.pairs import PairTable, read_pairs, source, split
from harness.data.rows import TokenisedPair
from harness.data.tokenize import Tokenizer, Vocabulary, encode_pairs, train_tokenizer, vocabulary
from harness.identity import stream_seed
from harness.model_files.location import model_folder
from harness.types import DataSpec, InputError, ModelSpec, PathModelSpec, PreferencePair, RunSpec


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
    test: tuple[PreferencePair, ...] = ()  # held out like `heldout`, and nothing is chosen on them


def read_text(
    data: DataSpec,
    model: ModelSpec | PathModelSpec,
    seed: int,
    words_of: Callable[[bool], Vocabulary] | None = None,
    render: Render | None = None,
) -> TextData:
    """Read, split and tokenise. Raises InputError for data that leaves nothing to train on or to hold out.

    `words_of` gives the vocabulary of a model that has a tokenizer, for texts of its chat template (True) or plain
    ones; `render` is that template. Without them a tokenizer is trained on the training side.
    """
    table = read_pairs(data, render)
    train, heldout, split_notes = _sides(data, table, seed, render)
    train, test = split(train, data.test / (1 - (0 if data.heldout_split else data.heldout)), stream_seed(seed, "test"))
    tokenizer = None
    if words_of is not None:
        words = words_of(table.templated)
    else:
        assert isinstance(model, ModelSpec)
        texts = (text for p in train for text in (p.prompt, p.chosen, p.rejected))
        tokenizer = train_tokenizer(texts, model.vocab_size)
        words = vocabulary(tokenizer)
    kept, notes = encode_pairs(
        words,
        [*train, *heldout, *test],
        data.max_length,
        data.max_prompt_length,
        data.on_bad_row,
        data.max_response_length,
        source(data),
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
        tuple(pair for pair in test if pair.id in tokens),
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
        text = f"of {len(other.pairs)} pairs of {data.heldout_split} dropped: their prompt is in the training split"
        notes.append(make_note("shared_prompt", shared, text))
    near = overlap(table.pairs, heldout)
    return list(table.pairs), heldout, [*notes, near] if near.count else notes


# How a model from a path reads texts: its vocabulary, for texts of a chat template or plain ones, and that template.
Reading = tuple[Callable[[bool], Vocabulary], Render | None]


def data_notes(runs: Sequence[RunSpec], reading: Callable[[PathModelSpec], Reading] | None = None) -> list[str]:
    """What a sweep on real pairs reads, drops and cuts, a sentence each; empty for the embedded world.

    `reading` opens the tokenizer of a model from a path, which imports torch; without it what that tokenizer would cut
    is left unsaid.
    """
    seen: dict[tuple[DataSpec, ModelSpec | PathModelSpec, int], None] = {}
    for run in runs:
        if run.data is not None and run.model is not None:
            seen.setdefault((run.data, run.model, run.seed))
    lines: dict[str, None] = {}
    for data, model, seed in seen:
        if isinstance(model, PathModelSpec):
            for said in model_folder(model.path, model.sha256).notes:
                lines.setdefault(said)
        if isinstance(model, PathModelSpec) and reading is None:
            table = read_pairs(data)
            rows, usable, notes, own = table.rows, len(table.pairs), table.notes, []
        else:
            opened = reading(model) if isinstance(model, PathModelSpec) and reading is not None else ()
            text = read_text(data, model, seed, *opened)
            rows, usable, notes = text.rows, text.usable, text.file_notes
            also = f", {len(text.test)} kept for the test split" if text.test else ""
            own = [f"{len(text.train)} pairs to train on, {len(text.heldout)} held out by prompt{also}"]
            own += [note.text for note in text.notes]
        lines.setdefault(f"{rows} rows read, {rows - usable} dropped, {usable} usable pairs")
        for note in notes:
            lines.setdefault(note.text)
        for line in own:
            lines.setdefault(f"seed {seed}: {line}")
    return list(lines)
