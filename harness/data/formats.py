"""The forms that preference rows come in, and one row of any of them as (prompt, chosen, rejected) texts.

`pairs`: prompt, chosen, rejected, each text or a list of {role, content}; without a prompt the responses begin with
it. `hh`: whole transcripts. `unpaired`: prompt, completion and a true-or-false label (the rows of KTO,
arXiv 2402.01306), paired up per prompt before they are read as `pairs`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.data.chat import Render
from harness.data.files import RawRow, RowError
from harness.data.notes import Note, make_note
from harness.data.transcripts import is_transcript, render_conversation, split_texts, split_transcripts, turns
from harness.identity import canonical_json

FORMATS = ("pairs", "hh", "unpaired")
FIELDS = ("prompt", "chosen", "rejected", "score_chosen", "score_rejected", "gold_margin", "completion", "label")


@dataclass(frozen=True, slots=True)
class Form:
    """How the rows of one source are to be read."""

    format: str
    has_prompt: bool
    conversational: bool


def parse_columns(text: str) -> dict[str, str]:
    """`data.columns`, e.g. `chosen=response_j, rejected=response_k`, as our field -> the source's column."""
    return {ours: theirs for part in text.split(", ") if part for ours, _, theirs in [part.partition("=")]}


def renamed(raws: Iterable[RawRow], columns: Mapping[str, str]) -> Iterator[RawRow]:
    """The rows under our field names. A column that is mapped elsewhere does not stand under its own name, too."""
    if not columns:
        yield from raws
        return
    taken = set(columns.values())
    for raw in raws:
        if isinstance(raw.value, RowError):
            yield raw
            continue
        row = {name: value for name, value in raw.value.items() if name not in taken and name not in columns}
        own = {ours: raw.value[theirs] for ours, theirs in columns.items() if theirs in raw.value}
        yield RawRow(raw.number, {**row, **own}, raw.place)


def detect(rows: Sequence[Mapping[str, Any]], given: str) -> Form:
    """The form of a source under the format that the user gave. Where it is empty, the first whole row decides.

    A prompt that one row has, all rows must have: those without it are bad rows.
    """
    has_prompt = any("prompt" in row for row in rows)
    names = {name for row in rows for name in row}
    if given == "unpaired" or (not given and {"completion", "label"} <= names and not {"chosen", "rejected"} & names):
        return Form("unpaired", True, any(isinstance(row.get("completion"), list) for row in rows))
    both = ([row.get("chosen"), row.get("rejected")] for row in rows)
    sides = next((pair for pair in both if None not in pair), ["", ""])
    texts = all(isinstance(side, str) for side in sides)
    detected = "hh" if texts and not has_prompt and all(is_transcript(str(side)) for side in sides) else "pairs"
    return Form(given or detected, has_prompt, any(isinstance(side, list) for side in sides))


def paired(raws: Sequence[RawRow]) -> tuple[list[RawRow], list[Note]]:
    """Rows of prompt, completion and label as rows of prompt, chosen and rejected, and notes on those left over.

    Of each prompt the first wanted completion stands against the first unwanted one, the second against the second,
    and so on; a pair has the number of its wanted row. Rows that cannot be read come back as faults.
    """
    sides: dict[str, tuple[list[RawRow], list[RawRow]]] = {}
    out: list[RawRow] = []
    for raw in raws:
        try:
            if isinstance(raw.value, RowError):
                raise raw.value
            for name in ("prompt", "completion", "label"):
                if raw.value.get(name) is None:
                    raise RowError("missing_field" if name not in raw.value else "empty", name, "missing or null")
            label = raw.value["label"]
            if not isinstance(label, bool):
                raise RowError("bad_label", "label", f"expected true or false, got {repr(label)[:40]}")
            sides.setdefault(canonical_json(raw.value["prompt"]), ([], []))[not label].append(raw)
        except RowError as fault:
            out.append(RawRow(raw.number, fault, raw.place))
    alone: list[int] = []
    for wanted, unwanted in sides.values():
        for one, other in zip(wanted, unwanted, strict=False):
            assert isinstance(one.value, Mapping) and isinstance(other.value, Mapping)
            completions = {"chosen": one.value["completion"], "rejected": other.value["completion"]}
            out.append(RawRow(one.number, {"prompt": one.value["prompt"], **completions}, one.place))
        count = min(len(wanted), len(unwanted))
        alone += [raw.number for raw in (*wanted[count:], *unwanted[count:])]
    text = f"of {len(raws)} completions dropped: no completion of the other label to the same prompt"
    notes = [make_note("unpaired", sorted(alone), text)] if alone else []
    return sorted(out, key=lambda raw: raw.number), notes


def row_texts(row: Mapping[str, Any], form: Form, render: Render | None) -> tuple[str, str, str]:
    """(prompt, chosen, rejected) of one row as text, unchecked. Raises RowError.

    Conversations are written by `render` (a chat template), else as `harness.data.transcripts` says.
    """
    for name in ("prompt", "chosen", "rejected") if form.format != "hh" and form.has_prompt else ("chosen", "rejected"):
        if name not in row:
            raise RowError("missing_field", name, "missing")
        if row[name] is None:
            raise RowError("empty", name, "null")
    prompt, chosen, rejected = row.get("prompt"), row["chosen"], row["rejected"]
    if form.format != "hh":
        if isinstance(chosen, list) != form.conversational or isinstance(rejected, list) != form.conversational:
            first = "lists of messages" if form.conversational else "text"
            raise RowError("mixed", "chosen", f"text and lists of messages are mixed (the first rows hold {first})")
        if form.conversational:
            if render is None:
                return render_conversation(prompt, chosen, rejected)
            context, good, bad = turns(prompt, chosen, rejected)
            return render(context, good, bad)
    for name in ("prompt", "chosen", "rejected"):
        if not isinstance(row.get(name, ""), str | None):
            raise RowError("wrong_type", name, f"expected text, got {type(row[name]).__name__}")
    for name in ("chosen", "rejected"):
        if not row[name].strip():
            raise RowError("empty", name, "empty")
    if form.format == "hh":
        return split_transcripts(chosen, rejected)
    return split_texts(chosen, rejected) if prompt is None else (prompt, chosen, rejected)
