"""Files of real preference pairs: reading, stated policies for rows that cannot be used, and the split by prompt.

No row is left out in silence: what was dropped, kept twice or looks odd comes back as notes for plan and report.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from harness.data.notes import Note, make_note, oddities, overlap
from harness.data.source import MAX_ROW_BYTES, RowError, content_sha256, read_rows
from harness.data.transcripts import is_transcript, render_conversation, split_texts, split_transcripts
from harness.names import content_hash, suggestion, uniform
from harness.types import DataSpec, InputError, PreferencePair

__all__ = ["FORMATS", "Note", "PairTable", "content_sha256", "overlap", "read_pairs", "split"]

FORMATS = ("pairs", "hh")
_COLUMNS = ("prompt", "chosen", "rejected", "score_chosen", "score_rejected", "gold_margin")
_UNUSED = ("tools", "images")  # columns that change what a pair means elsewhere, so leaving them out is said
_SHOWN_PROBLEMS = 20

# Why a row is dropped, by fault kind. Kinds in _REFUSED say that the file as a whole is not what was meant, so they
# are errors under either policy.
_DROPPED = {
    "bad_json": "not a JSON object",
    "not_utf8": "not UTF-8",
    "bad_text": "NUL or a lone surrogate in the text",
    "missing_field": "a field is missing",
    "wrong_type": "a field is not text",
    "bad_number": "a score is not a finite number",
    "empty": "an empty prompt or response",
    "identical": "chosen equals rejected",
    "no_prompt": "no prompt, and chosen and rejected share no first words",
    "transcript": "no dialogue that ends in an assistant turn",
    "diverged": "the two dialogues differ before their last assistant turn",
}
_REFUSED = ("row_too_long", "conversation", "mixed")


@dataclass(frozen=True, slots=True)
class PairTable:
    """The usable pairs of a file in file order, and notes on the rest. `rows` counts all rows that were read."""

    pairs: tuple[PreferencePair, ...]
    notes: tuple[Note, ...]
    rows: int


@dataclass(frozen=True, slots=True)
class _Form:
    """How the rows of one file are to be read."""

    format: str
    has_prompt: bool
    conversational: bool


def _form(rows: Sequence[Mapping[str, Any]], given: str) -> _Form:
    """The form of a file under the format that the user gave. Where it is empty, the first row with both sides decides.

    A prompt that one row has, all rows must have: those without it are bad rows.
    """
    has_prompt = any("prompt" in row for row in rows)
    both = ([row.get("chosen"), row.get("rejected")] for row in rows)
    sides = next((pair for pair in both if None not in pair), ["", ""])
    texts = all(isinstance(side, str) for side in sides)
    detected = "hh" if texts and not has_prompt and all(is_transcript(str(side)) for side in sides) else "pairs"
    return _Form(given or detected, has_prompt, any(isinstance(side, list) for side in sides))


def _texts(row: Mapping[str, Any], form: _Form) -> tuple[str, str, str]:
    """(prompt, chosen, rejected) of one row as text, unchecked. Raises RowError."""
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
            return render_conversation(prompt, chosen, rejected)
    for name in ("prompt", "chosen", "rejected"):
        if not isinstance(row.get(name, ""), str | None):
            raise RowError("wrong_type", name, f"expected text, got {type(row[name]).__name__}")
    for name in ("chosen", "rejected"):
        if not row[name].strip():
            raise RowError("empty", name, "empty")
    if form.format == "hh":
        return split_transcripts(chosen, rejected)
    return split_texts(chosen, rejected) if prompt is None else (prompt, chosen, rejected)


def _number(row: Mapping[str, Any], name: str) -> float | None:
    value = row.get(name)
    if value is None:
        return None
    # The bound keeps float() and the difference of two scores finite (JSON integers have no limit of their own).
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e300:
        raise RowError("bad_number", name, f"expected a finite number, got {repr(value)[:40]}")
    return float(value)


def _pair(number: int, row: Mapping[str, Any], form: _Form) -> PreferencePair:
    """The pair of one row, with its content hash as id. Raises RowError."""
    texts = _texts(row, form)
    size = 0
    for name, text in zip(("prompt", "chosen", "rejected"), texts, strict=True):
        if not text.strip():
            raise RowError("empty", name, "empty")
        try:
            size += len(text.encode("utf-8"))
        except UnicodeEncodeError as error:
            at = len(text[: error.start].encode("utf-8"))
            raise RowError("bad_text", name, f"lone surrogate at byte {at} of the text") from error
        if (at := text.find("\0")) >= 0:
            raise RowError("bad_text", name, f"NUL at byte {len(text[:at].encode('utf-8'))} of the text")
    if size > MAX_ROW_BYTES:
        raise RowError("row_too_long", "", f"longer than {MAX_ROW_BYTES:,} bytes")
    prompt, chosen, rejected = texts
    if chosen == rejected:
        raise RowError("identical", "rejected", "equal to chosen")
    scores = {name: _number(row, name) for name in ("score_chosen", "score_rejected")}
    gold, high, low = _number(row, "gold_margin"), *scores.values()
    if gold is None and high is not None and low is not None:
        gold = high - low
    known = {name: score for name, score in scores.items() if score is not None}
    return PreferencePair(
        id=content_hash(texts),
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        source=form.format,
        gold_margin=gold,
        meta={"prompt_id": content_hash(prompt), "row": number, **known},
    )


def _refuse(spec: DataSpec, faults: Sequence[tuple[int, RowError]], columns: set[str], total: int) -> None:
    """Raise InputError for a file that cannot be used as a whole, or for its bad rows where the policy says so."""
    if lost := [name for name in ("chosen", "rejected") if name not in columns and columns]:
        # Column names are data: `ascii` keeps marks that a terminal would obey out of the message.
        names = [name if name.isprintable() else ascii(name) for name in sorted(columns)]
        found = ", ".join(name[:40] for name in names[:20]) + (", ..." if len(names) > 20 else "")
        raise InputError(
            f"{spec.path}: column{'s' * (len(lost) > 1)} {', '.join(lost)} missing; found {found}; "
            "needed: chosen and rejected, with prompt unless both hold it"
        )
    bad = [(row, fault) for row, fault in faults if spec.on_bad_row == "error" or fault.kind in _REFUSED]
    if bad:
        more = [f"{spec.path}: and {len(bad) - _SHOWN_PROBLEMS} more"] if len(bad) > _SHOWN_PROBLEMS else []
        raise InputError(*(f"{spec.path}:{row}: {fault}" for row, fault in bad[:_SHOWN_PROBLEMS]), *more)
    if len(faults) == total:
        kinds = Counter(_DROPPED[fault.kind] for _, fault in faults)
        why = "; ".join(f"{count}: {text}" for text, count in kinds.items())
        raise InputError(f"{spec.path}: no usable pair in {total} rows{f' ({why})' if why else ''}")


def read_pairs(spec: DataSpec) -> PairTable:
    """The pairs of `spec.path` (JSONL, JSONL.gz or Parquet) and notes on what was dropped or looks odd.

    `spec.format`: `pairs` has prompt, chosen and rejected as text or as lists of {role, content} (rendered as
    `harness.data.transcripts` says); without a prompt, chosen and rejected begin with it. `hh` has whole transcripts.
    Empty: detected. `spec.limit` takes the first rows of the file.

    Rows that are broken, empty or identical are dropped and counted under `on_bad_row: drop`; under `error` they
    raise InputError with a line each. Malformed lists of messages, text mixed with lists, and rows beyond 1 MB are
    errors under either policy, and so is a file without a usable pair.
    """
    for name, value, allowed in (
        ("format", spec.format or FORMATS[0], FORMATS),
        ("on_bad_row", spec.on_bad_row, ("drop", "error")),
    ):
        if value not in allowed:
            raise InputError(f"data.{name}: '{value}' is not {' or '.join(allowed)}{suggestion(value, allowed)}")
    raws = list(islice(read_rows(spec.path, _COLUMNS), spec.limit or None))
    rows = [raw.value for raw in raws if not isinstance(raw.value, RowError)]
    columns = {name for row in rows for name in row}
    form = _form(rows, spec.format)
    pairs: list[PreferencePair] = []
    faults: list[tuple[int, RowError]] = []
    for raw in raws:
        try:
            if isinstance(raw.value, RowError):
                raise raw.value
            pairs.append(_pair(raw.number, raw.value, form))
        except RowError as error:
            faults.append((raw.number, error))
    _refuse(spec, faults, columns, len(raws))

    notes: list[Note] = []
    if form.conversational:
        text = f"{len(pairs)} conversations written as Human: and Assistant: turns"
        notes.append(Note("rendered", len(pairs), text=text))
    if unused := sorted(columns.intersection(_UNUSED)):
        notes.append(Note("ignored_columns", len(unused), text=f"columns {', '.join(unused)} are not used"))
    by_kind: defaultdict[str, list[int]] = defaultdict(list)
    for number, fault in faults:
        by_kind[fault.kind].append(number)
    for kind, numbers in by_kind.items():
        much = ", more than 1 %" if kind == "identical" and len(numbers) > 0.01 * len(raws) else ""
        notes.append(make_note(kind, numbers, f"of {len(raws)} rows dropped{much}: {_DROPPED[kind]}"))
    named, repeated = _named(pairs)
    if repeated:
        notes.append(make_note("duplicate", repeated, "pairs repeat an earlier one and are kept"))
    return PairTable(named, (*notes, *oddities(named)), len(raws))


def _named(pairs: Iterable[PreferencePair]) -> tuple[tuple[PreferencePair, ...], list[int]]:
    """The pairs with unique ids (a repeated pair gets `-2`, `-3`, ...), and the rows of the repeated ones."""
    seen: Counter[str] = Counter()
    named: list[PreferencePair] = []
    repeated: list[int] = []
    for pair in pairs:
        seen[pair.id] += 1
        if seen[pair.id] == 1:
            named.append(pair)
        else:
            repeated.append(pair.meta["row"])
            named.append(replace(pair, id=f"{pair.id}-{seen[pair.id]}"))
    return tuple(named), repeated


def split(
    pairs: Sequence[PreferencePair], heldout_share: float, seed: int
) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """(train, heldout), each in the order of `pairs`. All pairs of one prompt go to the same side.

    A prompt is held out where its uniform number under `seed` is below `heldout_share`, so that a row more or less
    moves no other row. With a share above 0 both sides get a prompt: the one with the smallest number is always held
    out, the one with the largest never. Raises InputError where a share above 0 meets fewer than two prompts.
    """
    draws = {p.meta["prompt_id"]: uniform(seed, "heldout", p.meta["prompt_id"]) for p in pairs}
    if heldout_share <= 0:
        return list(pairs), []
    if len(draws) < 2:
        raise InputError(
            f"data.heldout: {heldout_share:g} needs at least two different prompts, the data has {len(draws)}"
        )
    first, last = min(draws.values()), max(draws.values())
    held = {prompt for prompt, u in draws.items() if u != last and (u < heldout_share or u == first)}
    return [p for p in pairs if p.meta["prompt_id"] not in held], [p for p in pairs if p.meta["prompt_id"] in held]
