"""What a page is made of: sections of tables, pictures and lines, as plain texts without markup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.report.render.figures import Picture


@dataclass(frozen=True, slots=True)
class Field:
    """One table field: main text, a smaller second line, a background colour and a mark colour (`#rrggbb` or empty).

    `quote`: the main text is a prompt, a response or a generated answer; `report/texts.py` alone makes such fields.
    """

    main: str
    sub: str = ""
    shade: str = ""
    mark: str = ""
    quote: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table; the first column heads its rows. `note` stands below. `look`: `stack` (a card per row on a phone),
    `heat` (narrow shaded fields), `text` (wide fields), empty (numbers on one line)."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Field, ...], ...]
    note: str = ""
    look: str = ""


@dataclass(frozen=True, slots=True)
class Lines:
    """A list of sentences."""

    lines: tuple[str, ...]
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Terms:
    """Words with their meaning."""

    terms: tuple[tuple[str, str], ...]
    caption: str = ""


Block = Table | Picture | Lines | Terms


@dataclass(frozen=True)
class Section:
    """A heading that asks or says something, how to read what follows, blocks, and more blocks behind `more_title`."""

    title: str
    lead: str
    blocks: tuple[Block, ...]
    more: tuple[Block, ...] = ()
    more_title: str = "Details"
    pictures: tuple[Picture, ...] = field(init=False)

    @property
    def quotes(self) -> bool:
        """Whether any field holds a text."""
        tables = (block for block in (*self.blocks, *self.more) if isinstance(block, Table))
        return any(one.quote for table in tables for row in table.rows for one in row)

    def __post_init__(self) -> None:
        found = tuple(block for block in (*self.blocks, *self.more) if isinstance(block, Picture))
        object.__setattr__(self, "pictures", found)


def fields(*texts: str) -> tuple[Field, ...]:
    """A row of one-line fields."""
    return tuple(Field(text) for text in texts)


def given(*blocks: Block | Sequence[Block] | None) -> tuple[Block, ...]:
    """The blocks that are there, lists of them unfolded."""
    found: list[Block] = []
    for block in blocks:
        if isinstance(block, Table | Picture | Lines | Terms):
            found.append(block)
        elif block is not None:
            found.extend(block)
    return tuple(found)
