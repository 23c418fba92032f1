"""What a page shows of texts: the one place where a prompt, response or generated answer becomes a table field."""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.identity import content_hash
from harness.report.render.blocks import Field
from harness.report.render.text import quantity, shorten

LIMITS = {"short": 80, "full": 4000}  # characters of a quote, by the policies that quote
BANNER = "Private: this page quotes rows of a data set, and answers to them; read its licence before you pass it on"
_HASH = re.compile(r"[0-9a-f]{16,64}\b")
_MEANING = {
    "none": "not shown, and no table of single pairs",
    "ids": "named by row number and hash, not quoted",
    "short": "the first 80 characters",
    "full": "as they are",
}


@dataclass(frozen=True, slots=True)
class Texts:
    """The policy of one page: what is `asked` for, and whether this page may be passed on (`public`) although the
    texts are of `data`; quotes then stand on the private page."""

    asked: str
    public: bool

    @property
    def shown(self) -> str:
        """The policy that this page keeps, one of `TEXTS`."""
        return "ids" if self.public and self.asked in LIMITS else self.asked

    @property
    def private(self) -> Texts | None:
        """The policy of the page that quotes in this one's stead; None where no page does."""
        return Texts(self.asked, False) if self.public and self.asked in LIMITS else None

    @property
    def pairs(self) -> bool:
        """Whether tables of single pairs and answers are shown at all."""
        return self.shown != "none"

    @property
    def quoted(self) -> bool:
        """Whether fields hold texts."""
        return self.shown in LIMITS

    @property
    def sentence(self) -> str:
        """The policy in a sentence."""
        beside = "; quoted in private.html beside this page" if self.private else ""
        return f"Texts of pairs and answers: {self.shown} ({_MEANING[self.shown]}{beside})."

    def field(self, text: object, sub: str = "") -> Field:
        """A text as the page shows it: the beginning of it, or its length."""
        if self.quoted:
            return Field(shorten(text, LIMITS[self.shown]), sub, quote=True)
        return Field(quantity(len(str(text)), "character"), sub)

    def heads(self, hashed: str) -> tuple[str, ...]:
        """Heads of the columns that `pair` fills; `hashed` is what its hash is of."""
        return ("Prompt",) if self.quoted else (f"Row, {hashed} hash", "Prompt")

    def pair(self, prompt: object, identity: str, row: int | None, group: str) -> tuple[Field, ...]:
        """Which pair it is: its prompt, or the row of the data file, a hash, the category, and the prompt's length."""
        category = shorten(group, 40)
        if self.quoted:
            return (self.field(prompt, category),)
        name = short_hash(identity)
        main, more = (name, "") if row is None else (f"row {row}", name)
        return Field(main, ", ".join(filter(None, (more, category)))), self.field(prompt)


def short_hash(identity: str) -> str:
    """The first 12 digits of an id that is a hash already, else of its hash: an id from a file may be a text."""
    return (identity if _HASH.match(identity) else content_hash(identity))[:12]
