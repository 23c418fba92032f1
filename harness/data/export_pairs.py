"""Preference sets read in any form, corrupted or cleaned, and written in TRL's form with ledger and card.

Conversations stay conversations: a corruption sees the answers alone, and the turns before them are written as read.
"""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from harness.corruptions.apply import Corrupted, apply
from harness.corruptions.ledger import ledger_bytes
from harness.corruptions.registry import CORRUPTIONS, SEQUENCE, needs, resolve
from harness.data.conversations import KeptTurns
from harness.data.formats.registry import FORMATS
from harness.data.notes import Note
from harness.data.pairs import PairTable, read_pairs
from harness.data.transcripts import Turn
from harness.storage.atomic import write_together
from harness.types import CorruptionSpec, DataSpec, InputError, PreferencePair

ENDINGS = (".jsonl", ".parquet")
# Facts that a pair brings itself; others are read from columns of the same name.
_OF_PAIRS = {"prompt_id", "gold_margin", "score_chosen", "score_rejected"}
_TEXTS = {"generator_chosen", "generator_rejected"}
_SCORES = ("score_chosen", "score_rejected", "gold_margin")


@dataclass(frozen=True)
class Written:
    """What was written: files, how many pairs, how many the corruption touched, and what was to be said of the rows."""

    out: Path
    ledger: Path
    card: Path
    pairs: int
    touched: int
    form: str
    notes: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"set      {self.out}: {self.pairs} pairs, read as {self.form}, {self.touched} acted on"]
        lines += [f"ledger   {self.ledger}", f"card     {self.card}", *(f"note     {note}" for note in self.notes)]
        return "\n".join(lines)


# Prompts as the data has them, and answers -> a score each; the name says what scored them.
Scorer = Callable[[Sequence[tuple[str | Sequence[Turn], str]]], Sequence[float]]


def export_pairs(
    data: DataSpec,
    cell: Mapping[str, Any],
    seed: int,
    out: Path,
    force: bool = False,
    score: Scorer | None = None,
    scored_by: str = "",
) -> Written:
    """Corrupt the pairs of `data` by `cell` ({kind, rate, parameters}) and write set, ledger and card, the set last.

    `score` gives every answer a score, in place of those that the data has; `scored_by` is what the card calls it.
    Raises InputError before anything is written: for an output that exists (unless `force`) or is the input, for data
    or a cell that cannot be used, and for a fact that rows lack.
    """
    check_output(data.path, out, force)
    kind, params = cell["kind"], {name: value for name, value in cell.items() if name not in ("kind", "rate")}
    spec = resolve({SEQUENCE: params.get("steps")} if kind == SEQUENCE else cell)
    source = _read(data, spec)
    if score is not None:
        source = _scored(source, score, scored_by)
    done = apply(source.table.pairs, spec.kind, spec.rate, seed, source.facts, dict(spec.params))
    if not done.pairs:
        raise InputError(f"corruption '{kind}' leaves no pair of {data.path}; lower its rate or its parameters")
    what = "converted and not corrupted" if kind == "none" else corrupted_by(kind)
    return write_set(source, done, out, what)


def corrupted_by(kind: str) -> str:
    """What a card says of a corrupted set."""
    return f"corrupted on purpose by `{kind}`" + ("" if kind == SEQUENCE else f": {CORRUPTIONS[kind].summary}")


# What is done to the most suspect pairs -> the corruption that does it, and the words for it.
CLEANING = {"drop": ("curate_drop", "dropped"), "relabel": ("curate_relabel", "labelled the other way round")}


def export_cleaned(
    data: DataSpec, action: str, count: int, margins: Mapping[tuple[int, str], float], out: Path, force: bool = False
) -> Written:
    """Drop or relabel the `count` pairs with the smallest margin and write set, ledger and card, the set last.

    `margins` are by row and id of a pair; pairs without one stay as they are. `count` 0: the set is only converted.
    Raises InputError as `export_pairs` does, and where fewer pairs have a margin.
    """
    check_output(data.path, out, force)
    source = read_source(data)
    seen: Counter[str] = Counter()
    pairs, facts = [], []
    for pair in source.table.pairs:
        facts.append(margins.get((pair.meta["row"], pair.id), UNJUDGED))
        seen[pair.id] += 1  # rows that say the same again are pairs of their own
        pairs.append(pair if seen[pair.id] == 1 else replace(pair, id=f"{pair.id}#{seen[pair.id]}"))
    judged = sum(fact != UNJUDGED for fact in facts)
    if count > judged - (action == "drop"):
        raise InputError(f"--{action} {count}: only {judged} pairs were audited; expected fewer")
    source = replace(source, table=replace(source.table, pairs=tuple(pairs)))
    kind, words = CLEANING[action] if count else ("none", "")
    known = {"id": [pair.id for pair in pairs], "delta_ref": facts}
    done = apply(pairs, kind, count / len(pairs) if count else None, 0, known, {})
    what = (
        f"with the {count} most suspect labels {words} after an audit" if count else "as audited: no label was changed"
    )
    return write_set(source, done, out, what)


UNJUDGED = 1e9  # the margin of a pair that was not audited: never among the smallest


def write_set(source: Source, done: Corrupted, out: Path, what: str) -> Written:
    """Write a set, its ledger and its card, which says `what` was done: all three, or on a full disk none."""
    files = _files(out)
    rows = _rows(done, source)
    _check_rows(rows, out)
    assert done.ledger is not None
    out.parent.mkdir(parents=True, exist_ok=True)
    write_together(
        {
            files[1]: ledger_bytes(_with_places(done, source)),
            files[2]: _card(source, done, out.name, what).encode("utf-8"),
            out: _as_parquet(rows) if out.suffix == ".parquet" else _as_jsonl(rows),
        }
    )
    touched = done.ledger.loc[done.ledger["action"] != "relabel_same", "id"].nunique()
    return Written(*files, len(rows), int(touched), source.table.form, tuple(note.text for note in source.notes))


def _files(out: Path) -> tuple[Path, Path, Path]:
    """Set, ledger and card."""
    return out, out.with_suffix(".ledger.parquet"), out.with_suffix(".md")


def check_output(source: str, out: Path, force: bool) -> None:
    """Raise InputError for a set that cannot be written to `out`: by its name, or for what is there already."""
    files = _files(out)
    if out.suffix not in ENDINGS:
        raise InputError(f"--out {out}: expected a name that ends in {' or '.join(ENDINGS)}")
    if out.exists() and Path(source).exists() and out.samefile(source):
        raise InputError(f"--out {out}: is the file that is read; expected another name")
    if there := [str(file) for file in files if file.exists()]:
        if not force:
            raise InputError(f"--out {out}: {', '.join(there)} exists; choose another name, or add --force")
        if folder := next((file for file in files if file.is_dir()), None):
            raise InputError(f"--out {out}: {folder} is a folder; expected the name of a file")


# --- reading ---


@dataclass(frozen=True)
class Source:
    """The pairs as read, the turns of each conversational prompt by the text that stands for it, and further facts.

    `name` is what the card calls it.
    """

    name: str
    table: PairTable
    turns: Mapping[str, Sequence[Turn]] = field(default_factory=dict)
    facts: Mapping[str, Sequence[Any]] | None = None
    slices: tuple[str, ...] = ()

    @property
    def notes(self) -> list[Note]:
        """Notes on the rows; how conversations are written is decided where the set is trained on."""
        return [note for note in self.table.notes if note.kind != "rendered"]


def read_source(data: DataSpec) -> Source:
    """The pairs of `data` as they stand, conversations as turns."""
    return _read(data, CorruptionSpec("none"))


def _read(data: DataSpec, spec: CorruptionSpec) -> Source:
    """The pairs, and the facts that the corruption needs beyond them from columns of their names."""
    wanted = sorted(needs(spec) - _OF_PAIRS)
    given = tuple(name for name in data.slices.split(", ") if name)
    turns = KeptTurns()
    asked = replace(data, slices=", ".join(dict.fromkeys([*given, *wanted])))
    try:
        table = read_pairs(asked, turns)
    except InputError as error:
        if not wanted or not any(line.startswith("data.slices:") for line in error.problems):
            raise
        first = read_pairs(data, turns).pairs[0]
        raise InputError(
            f"corruption '{spec.kind}' needs {', '.join(wanted)}; {data.path} lacks such a column, from row "
            f"{first.meta['row']} on. Add it, or choose another kind or parameter (harness list corruptions)"
        ) from None
    rows = {pair.prompt in turns.by_text: pair.meta["row"] for pair in reversed(table.pairs)}
    if len(rows) > 1:
        raise InputError(
            f"{data.path}: row {rows[True]} is a conversation, row {rows[False]} is text; TRL's form holds one of the "
            "two, so write them as two files"
        )
    facts = {name: [_fact(pair, name, data.path) for pair in table.pairs] for name in wanted}
    known = {"id": [pair.id for pair in table.pairs], **facts} if wanted else None
    name = f"{Path(data.path).name or data.hub}, SHA-256 {data.sha256}"
    return Source(name, table, turns.by_text, known, given)


def _scored(source: Source, score: Scorer, by: str) -> Source:
    """The source with the scores of a reward model, and a note on how often it agrees with the labels."""
    pairs = source.table.pairs
    prompts = [source.turns.get(pair.prompt, pair.prompt) for pair in pairs]
    asked = [(prompt, pair.chosen) for prompt, pair in zip(prompts, pairs, strict=True)]
    asked += [(prompt, pair.rejected) for prompt, pair in zip(prompts, pairs, strict=True)]
    scores = [float(value) for value in score(asked)]
    n = len(pairs)
    made = tuple(
        replace(pair, gold_margin=good - bad, meta={**pair.meta, "score_chosen": good, "score_rejected": bad})
        for pair, good, bad in zip(pairs, scores[:n], scores[n:], strict=True)
    )
    right = sum(pair.gold_margin is not None and pair.gold_margin > 0 for pair in made)
    text = f"of {n} pairs have chosen scored higher by {by}, whose scores stand in place of the data's own"
    notes = (*source.table.notes, Note("gold", right, (), f"{right} {text}"))
    return replace(source, table=replace(source.table, pairs=made, notes=notes))


def _fact(pair: PreferencePair, name: str, path: str) -> Any:
    """A fact of a pair from its column: text, or a number with NaN where there is none."""
    text = pair.meta["slices"][name]
    if name in _TEXTS:
        return text or None
    try:
        return float(text or math.nan)
    except ValueError:
        raise InputError(f"{path}: row {pair.meta['row']}: {name}: expected a number, got {text[:40]!r}") from None


# --- writing ---


def _rows(done: Corrupted, source: Source) -> list[dict[str, Any]]:
    """The corrupted pairs in TRL's form, with scores where they are known and the slices that were asked for.

    Scores go with their answers, so a flipped pair has them exchanged; answers with other texts have none.
    """
    rows: list[dict[str, Any]] = []
    for pair, label, changed in zip(done.pairs, done.label.tolist(), done.changed.tolist(), strict=True):
        prompt: Any = pair.prompt
        sides: list[Any] = [pair.chosen, pair.rejected]
        if pair.prompt in source.turns:
            prompt = [dict(turn) for turn in source.turns[pair.prompt]]
            sides = [[{"role": "assistant", "content": text}] for text in sides]
        scores = [None if changed else pair.meta.get(name) for name in _SCORES[:2]]
        margin = None if changed or pair.gold_margin is None else label * pair.gold_margin
        values = dict(zip(_SCORES, [*scores[::label], margin], strict=True))
        rows.append(
            {"prompt": prompt, "chosen": sides[0], "rejected": sides[1], **values}
            | {name: pair.meta["slices"][name] for name in source.slices}
        )
    unknown = [name for name in _SCORES if all(row[name] is None for row in rows)]
    return [{name: value for name, value in row.items() if name not in unknown} for row in rows]


def _check_rows(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Raise InputError for calls of tools in Parquet: every call would get the arguments of all the others, as null."""
    turns = (turn for row in rows if isinstance(row["prompt"], list) for turn in row["prompt"])
    if out.suffix == ".parquet" and any("tool_calls" in turn for turn in turns):
        raise InputError(f"--out {out}: the prompts have tool calls, which Parquet does not keep; write .jsonl")


def _as_jsonl(rows: Sequence[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8")


def _as_parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), buffer)
    return buffer.getvalue()


def _with_places(done: Corrupted, source: Source) -> Any:
    """The ledger with two more columns, counted from 1: `row` in the source, `out_row` in the set, null for none."""
    import pandas as pd

    clean = source.table.pairs
    row = {pair.id: pair.meta["row"] for pair in (*clean, *done.pairs)}
    place = {pair.id: number for number, pair in enumerate(done.pairs, 1)}
    ledger = done.ledger
    assert ledger is not None
    names = ledger["new_id"].where(ledger["action"] == "append", ledger["id"])
    more = {"row": [row.get(name) for name in ledger["id"]], "out_row": [place.get(name) for name in names]}
    extended = ledger.assign(**{name: pd.array(values, dtype="Int64") for name, values in more.items()})
    extended.attrs = dict(ledger.attrs)
    return extended


def _card(source: Source, done: Corrupted, name: str, what: str) -> str:
    """The data set's card: where it comes from, `what` was done to it, how its files are read."""
    assert done.ledger is not None
    manifest, table = done.ledger.attrs["manifest"], source.table
    kind = manifest["kind"]
    actions = Counter(done.ledger["action"].tolist())
    rate = manifest["rate_requested"]
    facts: list[tuple[str, Any]] = [
        ("source", source.name),
        ("read as", f"`{table.form}`: {FORMATS[table.form].doc}"),
        ("rows read, usable pairs", f"{table.rows}, {len(table.pairs)}"),
        ("pairs written", len(done.pairs)),
        ("kind", kind),
        *([("rate asked", f"{rate:g}")] if rate is not None else []),
        ("share of pairs acted on", f"{manifest['rate_realised']:.4g}"),
        ("seed", manifest["seed"]),
        *((key, json.dumps(value, ensure_ascii=False)) for key, value in sorted((manifest["params"] or {}).items())),
        *((f"rows of the ledger: {action}", count) for action, count in sorted(actions.items())),
        ("written by", f"preference-harness {_own_version()}"),
    ]
    notes = ["## What was seen in the source", "", *(f"- {_printable(note.text)}" for note in source.notes), ""]
    return "\n".join(
        [
            *(
                "---",
                "task_categories:",
                "- text-generation",
                "tags:",
                "- preference",
                "- preference-harness",
                "---",
                "",
            ),
            f"# {_printable(Path(name).stem)}",
            "",
            f"Preference pairs, {what}.",
            "",
            *("| | |", "|---|---|"),
            *(f"| {key} | {_printable(str(value)).replace('|', chr(92) + '|')} |" for key, value in facts),
            "",
            *(notes if source.notes else []),
            "## Files",
            "",
            f"- `{_printable(name)}`: `prompt`, `chosen`, `rejected`, as text or as lists of messages like the source. "
            "Scores are those of the answers beside them; none where an answer's text was replaced.",
            f"- `{_printable(Path(name).with_suffix('.ledger.parquet').name)}`: each pair that was acted on. `row` is "
            "its place in the source, `out_row` in this set (empty: dropped), `action` what was done. All other pairs "
            "are as in the source.",
            "",
        ]
    )


def _own_version() -> str:
    try:
        return version("preference-harness")
    except PackageNotFoundError:
        return "(not installed)"


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text).replace("<", "&lt;")
