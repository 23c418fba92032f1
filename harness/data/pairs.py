"""A data set as preference pairs: what happens to bad rows, ties and duplicates, and the split by prompt.

No row is left out in silence: what was dropped, kept twice or looks odd comes back as notes for plan and report.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice

from harness.data.chat import Render, fault_text
from harness.data.files import RawRow, RowError, content_sha256, read_rows
from harness.data.formats.columns import listed, parse_columns, renamed
from harness.data.formats.ranked import RULES
from harness.data.formats.recognise import ALL, HEAD, fit, look, misfit, recognise
from harness.data.formats.registry import COLUMNS, FORMATS
from harness.data.formats.row import Format
from harness.data.notes import (
    ALONE,
    DROPPED,
    JUDGED,
    REFUSED,
    Note,
    counted,
    make_note,
    oddities,
    one_sided_ends,
    overlap,
    reading_notes,
)
from harness.data.reading import Reader
from harness.identity import uniform
from harness.plugins import check_same
from harness.text import suggestion
from harness.types import DataSpec, InputError, PreferencePair

__all__ = ["FORMATS", "Note", "PairTable", "content_sha256", "overlap", "read_pairs", "split"]

_SHOWN_PROBLEMS = 20
_SHOWN_ROWS = 10


@dataclass(frozen=True, slots=True)
class PairTable:
    """The usable pairs of a file in file order, and notes on the rest. `rows` counts all rows that were read.

    `templated`: the texts were written by a chat template, special tokens and all. `form` names the form they had.
    """

    pairs: tuple[PreferencePair, ...]
    notes: tuple[Note, ...]
    rows: int
    templated: bool = False
    form: str = "pairs"


def source(spec: DataSpec) -> str:
    """Where the pairs come from, as messages name it: the path, or the hub id."""
    return spec.path or spec.hub


def _check_mapping(spec: DataSpec, columns: set[str]) -> None:
    """Raise InputError for `data.columns` or `data.slices` that name a column which no row has."""
    mapping = parse_columns(spec.columns)
    found = listed({mapping.get(name, name) for name in columns})
    if lost := [theirs for ours, theirs in mapping.items() if ours not in columns and columns]:
        raise InputError(f"data.columns: {source(spec)} has no column {', '.join(lost)}; found {found}")
    wanted = spec.slices.split(", ") if spec.slices else []
    if lost := [name for name in wanted if name not in columns and columns]:
        raise InputError(f"data.slices: {source(spec)} has no column {', '.join(lost)}; found {found}")


def _refuse(reader: Reader) -> None:
    """Raise InputError for a source that cannot be used as a whole, or for its bad rows where the policy says so."""
    spec, where = reader.spec, source(reader.spec)
    faults = [(raw, fault) for raw, fault in reader.faults if fault.kind not in JUDGED]
    bad = [(raw, fault) for raw, fault in faults if spec.on_bad_row == "error" or fault.kind in REFUSED]
    if bad:
        alike: dict[str, list[RawRow]] = {}
        for raw, fault in bad:
            alike.setdefault(str(fault), []).append(raw)
        lines = [f"{rows[0].place}: {text}{_also(rows[1:])}" for text, rows in alike.items()]
        more = [f"{where}: and {len(lines) - _SHOWN_PROBLEMS} more kinds"] if len(lines) > _SHOWN_PROBLEMS else []
        raise InputError(*lines[:_SHOWN_PROBLEMS], *more)
    if not reader.pairs:
        kinds: dict[str, list[tuple[RawRow, RowError]]] = {}
        for raw, fault in reader.faults:
            kinds.setdefault(DROPPED[fault.kind], []).append((raw, fault))
        why = "; ".join(f"{len(rows)}: {text}, first {rows[0][0].place}: {rows[0][1]}" for text, rows in kinds.items())
        why = "; ".join(filter(None, [why, f"{len(reader.alone)}: {ALONE}" if reader.alone else ""]))
        fix = f"{reader.form.doc}; {ALL}"
        if all(fault.kind == "bad_json" for _, fault in reader.faults) and not reader.alone:
            fix = "one JSON object a line, or one array of objects"
        read_as = f", read as {reader.form.name} ({why}); expected {fix}" if reader.rows else ""
        raise InputError(f"{where}: no usable pair in {reader.rows} rows{read_as}")


def _also(rows: Sequence[RawRow]) -> str:
    """That more rows have the same fault, the first of them by number."""
    if not rows:
        return ""
    shown = ", ".join(str(raw.number) for raw in rows[:_SHOWN_ROWS]) + (", ..." if len(rows) > _SHOWN_ROWS else "")
    return f"; the same in {len(rows)} more row{'s' * (len(rows) > 1)} ({shown})"


def _raw_rows(spec: DataSpec, split: str) -> Iterator[RawRow]:
    """The rows of the source under our field names, the first `limit` of them."""
    mapping = parse_columns(spec.columns)
    slices = dict.fromkeys(spec.slices.split(", "), "text") if spec.slices else {}
    columns = COLUMNS | (FORMATS[spec.format].columns if spec.format else {})
    wanted = slices | columns | {theirs: columns.get(ours, "text") for ours, theirs in mapping.items()}
    if spec.path:
        rows: Iterable[RawRow] = read_rows(spec.path, wanted, split)
    else:
        from harness.data.hub import hub_rows

        rows = hub_rows(spec, wanted, split)
    return islice(renamed(rows, mapping), spec.limit or None)


def _form(spec: DataSpec, head: Sequence[RawRow]) -> Format:
    """The form that the spec names, or that the first rows have. Raises InputError for rows without its columns."""
    rows = [raw.value for raw in head if isinstance(raw.value, Mapping)]
    if not rows:
        return FORMATS[spec.format or "pairs"]
    if not spec.format:
        try:
            return recognise(head, FORMATS.built_in, source(spec))  # a plug-in's form is named
        except InputError:
            _check_mapping(spec, {name for row in rows for name in row})  # the likelier mistake
            raise
    form = FORMATS[spec.format]
    found = fit(form, head)
    if found.missing:
        _check_mapping(spec, {name for row in rows for name in row})
        raise InputError(misfit(form, found, head, source(spec)))
    return form


def read_pairs(spec: DataSpec, render: Render | None = None, split: str | None = None) -> PairTable:
    """The pairs of a file, a folder of files or a hub data set, and notes on what was dropped or looks odd.

    `spec.format` names a row of `FORMATS`; empty: recognised by the first rows, or an InputError where that is not
    certain. Turns are written by `render` (a chat template) or as Human: and Assistant: turns. Several answers to a
    prompt become pairs by `spec.pairs`. `spec.limit` takes the first rows. `split` stands for `spec.split`.

    Rows that are broken, empty, identical or of no use as pairs are dropped and counted under `on_bad_row: drop`;
    under `error` they raise InputError with a line for each kind of fault. Ties are dropped and counted under either.
    Malformed lists of messages, text mixed with lists, rows that a chat template cannot write and rows beyond 1 MB are
    errors under either policy, and so is a source without a usable pair.
    """
    for name, value, allowed in (
        ("format", spec.format or "pairs", FORMATS),
        ("on_bad_row", spec.on_bad_row, ("drop", "error")),
        ("pairs", spec.pairs, tuple(RULES)),
    ):
        if value not in allowed:
            known = " or ".join(allowed) if name != "format" else "a form that harness formats lists"
            raise InputError(f"data.{name}: '{value}' is not {known}{suggestion(value, allowed)}")
    if spec.plugin:
        check_same(f"data.format '{spec.format}'", spec.plugin, FORMATS.plugin(spec.format))
    asked = spec.split if split is None else split
    reader = _read(spec, render, asked, has_prompt=False)
    if reader is None:  # a later row has a prompt, so all should
        reader = _read(spec, render, asked, has_prompt=True)
    assert reader is not None
    reader.settle_groups()
    _check_mapping(spec, reader.columns)
    _refuse(reader)
    templated = render is not None
    notes = (
        [make_note("unpaired", reader.alone, f"of {reader.rows} completions dropped: {ALONE}")] if reader.alone else []
    )
    notes += reading_notes(
        reader.form, spec, reader.columns, reader.conversations, len(reader.pairs), reader.rows, templated
    )
    by_kind: defaultdict[str, list[int]] = defaultdict(list)
    for raw, fault in reader.faults:
        by_kind[fault.kind].append(raw.number)
    for kind, numbers in by_kind.items():
        much = ", more than 1 %" if kind == "identical" and len(numbers) > 0.01 * reader.rows else ""
        notes.append(make_note(kind, numbers, f"of {reader.rows} rows dropped{much}: {DROPPED[kind]}"))
    if reader.capped:
        text = f"pairs left out: their prompt has data.pairs_per_prompt ({spec.pairs_per_prompt}) already"
        notes.append(make_note("over_cap", reader.capped, text))
    if reader.marked_rows:
        why = "which the model's tokenizer reads as such; take them out of the messages"
        text = f"pairs have special tokens written out in their messages ({counted(reader.marked)}), {why}"
        notes.append(make_note("special_tokens", reader.marked_rows, text))
    notes += one_sided_ends(reader.one_end)
    for kind, found in reader.template_faults.items():
        text = fault_text(kind, [fault.shown for _, fault in found])
        notes.append(make_note(kind, list(dict.fromkeys(row for row, _ in found)), text))
    named, repeated = _named(reader.pairs)
    if repeated:
        notes.append(make_note("duplicate", repeated, "pairs repeat an earlier one and are kept"))
    templated = templated and reader.conversations > 0
    return PairTable(named, (*notes, *oddities(named, templated)), reader.rows, templated, reader.form.name)


def _read(spec: DataSpec, render: Render | None, split: str, has_prompt: bool) -> Reader | None:
    """All rows of a source as its first rows say they are to be read. None: a later row has the first prompt."""
    raws = _raw_rows(spec, split)
    head = list(islice(raws, HEAD))
    form = _form(spec, head)
    sides = ("completion",) if form.name == "unpaired" else ("chosen", "rejected")
    seen = look([raw.value for raw in head if isinstance(raw.value, Mapping)], sides)
    reader = Reader(spec, form, replace(seen, has_prompt=seen.has_prompt or has_prompt), render)
    late = "prompt" in form.optional and not reader.seen.has_prompt
    for raw in chain(head, raws):
        if late and isinstance(raw.value, Mapping) and "prompt" in raw.value:
            return None
        reader.add(raw)
    return reader


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
