"""Files of real preference pairs: reading, stated policies for rows that cannot be used, and the split by prompt.

No row is left out in silence: what was dropped, kept twice or looks odd comes back as notes for plan and report.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from harness.data.chat import Render
from harness.data.files import MAX_ROW_BYTES, RawRow, RowError, content_sha256, read_rows
from harness.data.formats import FIELDS, FORMATS, Form, detect, paired, parse_columns, renamed, row_texts
from harness.data.notes import Note, make_note, oddities, overlap
from harness.identity import content_hash, uniform
from harness.text import suggestion
from harness.types import DataSpec, InputError, PreferencePair

__all__ = ["FORMATS", "Note", "PairTable", "content_sha256", "overlap", "read_pairs", "split"]

_CHANGES_MEANING = ("tools", "images")  # columns that change what a pair means elsewhere
_UNNAMED = 12  # of so many unused columns the names are given
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
    "bad_label": "a label is not true or false",
    "empty": "an empty prompt or response",
    "identical": "chosen equals rejected",
    "no_prompt": "no prompt, and chosen and rejected share no first words",
    "transcript": "no dialogue that ends in an assistant turn",
    "diverged": "the two dialogues differ before their last assistant turn",
}
_REFUSED = ("row_too_long", "conversation", "mixed", "template")


@dataclass(frozen=True, slots=True)
class PairTable:
    """The usable pairs of a file in file order, and notes on the rest. `rows` counts all rows that were read.

    `templated`: the texts were written by a chat template, special tokens and all.
    """

    pairs: tuple[PreferencePair, ...]
    notes: tuple[Note, ...]
    rows: int
    templated: bool = False


def _number(row: Mapping[str, Any], name: str) -> float | None:
    value = row.get(name)
    if value is None:
        return None
    # The bound keeps float() and the difference of two scores finite (JSON integers have no limit of their own).
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e300:
        raise RowError("bad_number", name, f"expected a finite number, got {repr(value)[:40]}")
    return float(value)


def _pair(number: int, row: Mapping[str, Any], form: Form, render: Render | None) -> PreferencePair:
    """The pair of one row, with its content hash as id. Raises RowError."""
    texts = row_texts(row, form, render)
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


def source(spec: DataSpec) -> str:
    """Where the pairs come from, as messages name it: the path, or the hub id."""
    return spec.path or spec.hub


def _listed(names: Iterable[str], limit: int = 20) -> str:
    """Column names for a message: they are data, so `ascii` keeps marks that a terminal would obey out of it."""
    names = sorted(names)
    told = [(name if name.isprintable() else ascii(name))[:40] for name in names[:limit]]
    return ", ".join(told) + (", ..." if len(names) > limit else "")


def _refuse(
    spec: DataSpec, form: Form, faults: Sequence[tuple[RawRow, RowError]], columns: set[str], total: int
) -> None:
    """Raise InputError for a source that cannot be used as a whole, or for its bad rows where the policy says so."""
    where, mapping = source(spec), parse_columns(spec.columns)
    if lost := [theirs for ours, theirs in mapping.items() if ours not in columns and columns]:
        found = _listed({mapping.get(name, name) for name in columns})
        raise InputError(f"data.columns: {where} has no column {', '.join(lost)}; found {found}")
    needed = ("prompt", "completion", "label") if form.format == "unpaired" else ("chosen", "rejected")
    if lost := [name for name in needed if name not in columns and columns]:
        raise InputError(
            f"{where}: column{'s' * (len(lost) > 1)} {', '.join(lost)} missing; found {_listed(columns)}; "
            + (
                "needed: prompt, completion and label"
                if form.format == "unpaired"
                else "needed: chosen and rejected, and prompt unless both contain it"
            )
            + "; map other names with data.columns"
        )
    bad = [(raw, fault) for raw, fault in faults if spec.on_bad_row == "error" or fault.kind in _REFUSED]
    if bad:
        more = [f"{where}: and {len(bad) - _SHOWN_PROBLEMS} more"] if len(bad) > _SHOWN_PROBLEMS else []
        raise InputError(*(f"{raw.place}: {fault}" for raw, fault in bad[:_SHOWN_PROBLEMS]), *more)
    if len(faults) == total:
        kinds = Counter(_DROPPED[fault.kind] for _, fault in faults)
        why = "; ".join(f"{count}: {text}" for text, count in kinds.items())
        raise InputError(f"{where}: no usable pair in {total} rows{f' ({why})' if why else ''}")


def _raw_rows(spec: DataSpec, split: str) -> Iterable[RawRow]:
    mapping = parse_columns(spec.columns)
    wanted = tuple(dict.fromkeys([*FIELDS, *mapping.values()]))
    if spec.path:
        return renamed(read_rows(spec.path, wanted, split), mapping)
    from harness.data.hub import hub_rows

    return renamed(hub_rows(spec, wanted, split), mapping)


def read_pairs(spec: DataSpec, render: Render | None = None, split: str | None = None) -> PairTable:
    """The pairs of a file, a folder of files or a hub data set, and notes on what was dropped or looks odd.

    `spec.format`: `pairs` has prompt, chosen and rejected as text or as lists of {role, content}, written by `render`
    (a chat template) or as `harness.data.transcripts` says; without a prompt, chosen and rejected begin with it. `hh`
    has whole transcripts. `unpaired` has prompt, completion and label (`harness.data.formats.paired`). Empty: detected.
    `spec.limit` takes the first rows. `split` stands for `spec.split`.

    Rows that are broken, empty or identical are dropped and counted under `on_bad_row: drop`; under `error` they
    raise InputError with a line each. Malformed lists of messages, text mixed with lists, rows that a chat template
    cannot write and rows beyond 1 MB are errors under either policy, and so is a source without a usable pair.
    """
    for name, value, allowed in (
        ("format", spec.format or FORMATS[0], FORMATS),
        ("on_bad_row", spec.on_bad_row, ("drop", "error")),
    ):
        if value not in allowed:
            raise InputError(f"data.{name}: '{value}' is not {' or '.join(allowed)}{suggestion(value, allowed)}")
    raws = list(islice(_raw_rows(spec, spec.split if split is None else split), spec.limit or None))
    rows = [raw.value for raw in raws if not isinstance(raw.value, RowError)]
    columns = {name for row in rows for name in row}
    form, total, notes = detect(rows, spec.format), len(raws), list[Note]()
    if form.format == "unpaired" and {"prompt", "completion", "label"} <= columns:
        raws, notes = paired(raws)
    pairs: list[PreferencePair] = []
    faults: list[tuple[RawRow, RowError]] = []
    for raw in raws:
        try:
            if isinstance(raw.value, RowError):
                raise raw.value
            pairs.append(_pair(raw.number, raw.value, form, render))
        except RowError as error:
            faults.append((raw, error))
    _refuse(spec, form, faults, columns, len(raws))
    notes += _file_notes(form, columns, len(pairs), render is not None)
    by_kind: defaultdict[str, list[int]] = defaultdict(list)
    for raw, fault in faults:
        by_kind[fault.kind].append(raw.number)
    for kind, numbers in by_kind.items():
        much = ", more than 1 %" if kind == "identical" and len(numbers) > 0.01 * total else ""
        notes.append(make_note(kind, numbers, f"of {total} rows dropped{much}: {_DROPPED[kind]}"))
    named, repeated = _named(pairs)
    if repeated:
        notes.append(make_note("duplicate", repeated, "pairs repeat an earlier one and are kept"))
    return PairTable(named, (*notes, *oddities(named)), total, form.conversational and render is not None)


def _file_notes(form: Form, columns: set[str], count: int, templated: bool) -> list[Note]:
    """How the rows were read as a whole: their conversations, and the columns that nobody reads."""
    notes: list[Note] = []
    if form.conversational:
        how = "by the model's chat template" if templated else "as Human: and Assistant: turns"
        notes.append(Note("rendered", count, text=f"{count} conversations written {how}"))
    read = {"prompt", "completion", "label"} if form.format == "unpaired" else {*FIELDS} - {"completion", "label"}
    if form.format == "hh":
        read = read - {"prompt"}
    unused = columns - read
    if unused:
        told = [name for name in _CHANGES_MEANING if name in unused]
        told = told + [name for name in sorted(unused) if name not in told]
        meaning = "; tools and images change what a pair means" if unused.intersection(_CHANGES_MEANING) else ""
        shown = _listed(told, _UNNAMED)
        notes.append(Note("ignored_columns", len(unused), text=f"columns {shown} are not used{meaning}"))
    return notes


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
