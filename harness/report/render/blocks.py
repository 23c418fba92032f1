"""What a page is made of: sections of tables, pictures and lines, as plain texts without markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from harness.metrics.statistics import Estimate
from harness.report.render.figures import Picture
from harness.report.render.text import DASH, shown


@dataclass(frozen=True, slots=True)
class Field:
    """One table field: main text, a smaller second line, a background colour and a mark colour (`#rrggbb` or empty);
    `tip` is shown where a pointer rests on it, and in brackets in Markdown.

    `quote`: the main text is a prompt, a response or a generated answer; `report/texts.py` alone makes such fields.
    """

    main: str
    sub: str = ""
    shade: str = ""
    mark: str = ""
    quote: bool = False
    tip: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table; the first column heads its rows. `note` stands below. `look`: `stack` (a card per row on a phone),
    `tall` (scrolls within its place), `heat` (narrow shaded fields), `text` (wide fields), empty (numbers on one line).

    A page's filter knows the whole table by `tags`, a row by that of `row_tags`, a column by that of `column_tags`;
    what has none always stays.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Field, ...], ...]
    note: str = ""
    look: str = ""
    tags: str = ""
    row_tags: tuple[str, ...] = ()
    column_tags: tuple[str, ...] = ()


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


CARD = 400  # characters of a card's lines that a page shows at once; the others unfold


@dataclass(frozen=True, slots=True)
class Card:
    """One of the answers that head a page: `name` (use, breaks, sure, next), its `label`, a `title` of a few words,
    sentences, and a command to copy."""

    name: str
    label: str
    title: str
    lines: tuple[str, ...]
    command: str = ""

    @property
    def shown(self) -> int:
        """How many of the lines a page shows at once, at least one: so many that the card stays short."""
        ends = accumulate(map(len, self.lines))
        return max(1, sum(end <= CARD for end in ends))

    @property
    def text(self) -> str:
        """All of it but the command, as a terminal says it."""
        return " ".join([f"{self.title.rstrip('.')}.", *self.lines])


def stated(cards: Iterable[Card]) -> dict[str, str]:
    """What the cards say, by name, as JSON holds it: with the command, and with plain spaces."""
    return {card.name: " ".join(filter(None, (card.text, card.command))).replace("\u00a0", " ") for card in cards}


@dataclass(frozen=True, slots=True)
class Filter:
    """Groups of radio buttons that leave one condition of a page on the screen: a label, and (tag, text) by option."""

    groups: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]


Block = Filter | Table | Picture | Lines | Terms


@dataclass(frozen=True)
class Content:
    """What a section shows: a heading that asks or says something, how to read what follows, blocks, and more blocks
    behind `more_title`."""

    title: str
    lead: str
    blocks: tuple[Block, ...]
    more: tuple[Block, ...] = ()
    more_title: str = "Details"

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """Its figures, in their order."""
        return tuple(block for block in (*self.blocks, *self.more) if isinstance(block, Picture))

    @property
    def quotes(self) -> bool:
        """Whether any field holds a text."""
        tables = (block for block in (*self.blocks, *self.more) if isinstance(block, Table))
        return any(field.quote for table in tables for row in table.rows for field in row)


def fields(*texts: str) -> tuple[Field, ...]:
    """A row of one-line fields."""
    return tuple(Field(text) for text in texts)


def estimated(value: Estimate, sub: str = "") -> Field:
    """Mean and interval, or a dash where nothing was measured."""
    return Field(shown(value) if value.n else DASH, sub)


def present(*blocks: Block | Sequence[Block] | None) -> tuple[Block, ...]:
    """The blocks that are there, lists of them unfolded."""
    lists = ([block] if isinstance(block, Block) else block or () for block in blocks)
    return tuple(block for several in lists for block in several)
