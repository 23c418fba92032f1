"""The pairs of one seed: a data set split into training and held-out by prompt, and tokenised.

Imports no torch, so `harness plan` can say what a sweep would drop and cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.data.chat import Render, folder_renderer
from harness.data.chat_template import CLOCK
from harness.data.formats.registry import FORMATS
from harness.data.notes import Note, make_note, overlap
from harness.data.pairs import PairTable, read_pairs, source, split
from harness.data.rows import TokenisedPair
from harness.data.tokenize import Tokenizer, Vocabulary, encode_pairs, train_tokenizer, vocabulary
from harness.data.transcripts import ASSISTANT, as_transcript
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
    form: str = "pairs"  # that the rows had, a name of `FORMATS`
    write: Callable[[str], str] = str  # one user turn as a prompt, written as the data's own prompts are


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
        table.form,
        _writer(table, render),
    )
    if not text.train or not text.heldout:
        raise InputError(
            f"{source(data)}: {len(text.train)} pairs are left to train on and {len(text.heldout)} to hold out; "
            "harness plan names what was dropped"
        )
    return text


def _writer(table: PairTable, render: Render | None) -> Callable[[str], str]:
    """How one user turn becomes a prompt: by the chat template, as a dialogue, or as it stands; as the pairs' own."""
    if table.templated and render is not None:
        return lambda text: render([{"role": "user", "content": text}], "yes", "no").prompt
    if table.pairs and table.pairs[0].prompt.endswith(ASSISTANT):
        return lambda text: as_transcript([{"role": "user", "content": text}])[0]
    return str


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


@dataclass(frozen=True, slots=True)
class ShownPair:
    """The first pair of a data set as it is trained on, special tokens written out; `how` says what wrote it so."""

    row: int
    prompt: str
    chosen: str
    rejected: str
    how: str


def data_notes(runs: Sequence[RunSpec], reading: Callable[[PathModelSpec], Reading] | None = None) -> list[str]:
    """The notes of `data_facts`."""
    return data_facts(runs, reading)[0]


def data_facts(
    runs: Sequence[RunSpec], reading: Callable[[PathModelSpec], Reading] | None = None
) -> tuple[list[str], ShownPair | None]:
    """What a sweep on real pairs reads, drops and cuts, a sentence each, and its first pair; neither for the world.

    `reading` opens the tokenizer of a model from a path, which imports torch; without it the chat template of its
    folder writes the conversations, what the tokenizer would cut is left unsaid, and the pair is shown before it.
    """
    seen: dict[tuple[DataSpec, ModelSpec | PathModelSpec, int], None] = {}
    for run in runs:
        if run.data is not None and run.model is not None:
            seen.setdefault((run.data, run.model, run.seed))
    tables: dict[tuple[DataSpec, PathModelSpec], PairTable] = {}
    lines: dict[str, None] = {}
    shown: ShownPair | None = None
    for data, model, seed in seen:
        if isinstance(model, PathModelSpec):
            for said in (*model_folder(model.path, model.sha256).notes, *_reference_notes(model)):
                lines.setdefault(said)
        if isinstance(model, PathModelSpec) and reading is None:
            table = tables.get((data, model)) or read_pairs(data, folder_render(model))
            tables[data, model] = table
            rows, usable, notes, own, form = table.rows, len(table.pairs), table.notes, [], table.form
            shown = shown or _untokenised(table)
        else:
            opened = reading(model) if isinstance(model, PathModelSpec) and reading is not None else ()
            text = read_text(data, model, seed, *opened)
            rows, usable, notes, form = text.rows, text.usable, text.file_notes, text.form
            shown = shown or _tokenised(text)
            also = f", {len(text.test)} kept for the test split" if text.test else ""
            own = [f"{len(text.train)} pairs to train on, {len(text.heldout)} held out by prompt{also}"]
            own += [note.text for note in text.notes]
        lines.setdefault(f"read as {form}: {FORMATS[form].doc}")
        dropped = "" if FORMATS[form].many else f"{rows - usable} dropped, "
        lines.setdefault(f"{rows} rows read, {dropped}{usable} usable pairs")
        for note in notes:
            lines.setdefault(note.text)
        if isinstance(model, PathModelSpec) and any(note.kind == "rendered" for note in notes):
            for said in _date_notes(model):
                lines.setdefault(said)
        for line in own:
            lines.setdefault(f"seed {seed}: {line}")
    return list(lines), shown


def _tokenised(text: TextData) -> ShownPair:
    pair = text.train[0]
    tokens = text.tokens[pair.id]
    prompt, chosen, rejected = (
        text.words.decode(side.tolist()) for side in (tokens.prompt, tokens.chosen, tokens.rejected)
    )
    return ShownPair(int(pair.meta["row"]), prompt, chosen, rejected, "as it is trained on")


def folder_render(model: PathModelSpec) -> Render | None:
    """The chat template of a model's folder, without its tokenizer; None where it has none or that is off."""
    return (
        folder_renderer(model_folder(model.path, model.sha256), model.template_date, model.template_arguments)
        if model.template == "auto"
        else None
    )


def _reference_notes(model: PathModelSpec) -> list[str]:
    """Where the reference of a model is not what its policies start from, and where its log-probs come from a file."""
    lines = []
    if model.reference:
        lines.append(f"policies start from {model.path} and are compared with the reference {model.reference}")
    if model.reference_logps:
        lines.append(f"the reference's log-probs are read from {model.reference_logps}")
    return lines


def _date_notes(model: PathModelSpec) -> list[str]:
    """That the template of a model writes the date, and which one."""
    found = model_folder(model.path, model.sha256).template
    if model.template == "none" or CLOCK not in str(found):
        return []
    return [f"the chat template writes the date; on any day it is {model.template_date} (model.template_date)"]


def _untokenised(table: PairTable) -> ShownPair:
    pair, by = table.pairs[0], "as the chat template writes it, " if table.templated else ""
    how = f"{by}before the model's tokenizer, which --preflight opens"
    return ShownPair(int(pair.meta["row"]), pair.prompt, pair.chosen, pair.rejected, how)
