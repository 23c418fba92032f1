"""The spec key `data.columns`: columns of a file read under the names that a known form expects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from harness.data.raw_rows import RawRow, RowError


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


def listed(names: Iterable[str], limit: int = 20, ordered: bool = False) -> str:
    """Column names for a message: they are data, so `ascii` keeps marks that a terminal would obey out of it."""
    names = list(names) if ordered else sorted(names)
    told = [(name if name.isprintable() else ascii(name))[:40] for name in names[:limit]]
    return ", ".join(told) + (", ..." if len(names) > limit else "")
