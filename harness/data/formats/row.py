"""What a form makes of one raw row, and the row of the registry that holds a form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from harness.data.raw_rows import RowError
from harness.data.transcripts import Turn, check_order

Row = Mapping[str, Any]
Prompt = str | list[Turn]  # text that is trained on as it stands, or the turns before the answers


class Pair(NamedTuple):
    """A comparison as a form gives it. `scores` are those of chosen and rejected, where the source has them."""

    prompt: Prompt
    chosen: str
    rejected: str
    margin: float | None = None
    scores: tuple[float | None, float | None] = (None, None)


class Ranked(NamedTuple):
    """Several graded answers to one prompt, a higher grade for a better answer.

    `margins`: differences of grades are gold margins; `scores`: the grades themselves are scores of the answers.
    """

    prompt: Prompt
    answers: Sequence[tuple[str, float]]
    margins: bool = True
    scores: bool = False


class Graded(NamedTuple):
    """One graded answer, to be set against other rows' answers to the same prompt. `label`: wanted or unwanted."""

    prompt: Prompt
    answer: str
    grade: float
    label: bool = False


Reading = Pair | Ranked | Graded


@dataclass(frozen=True, slots=True)
class Format:
    """A form of preference rows: by which columns it is recognised, and the pure function that reads one row.

    `needs` maps each needed column to the kinds of value that it holds, as `value_fits` reads them; `a|b` names two
    spellings of one column. `beats` names forms that this one is preferred to where both fit.
    """

    name: str
    doc: str
    needs: Mapping[str, str]
    read: Callable[[Row], Reading]
    example: Sequence[Row]
    optional: Mapping[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()  # columns whose presence speaks against this form
    check: Callable[[Sequence[Row]], bool] | None = None  # what must hold of the first whole rows beyond their columns
    beats: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()  # columns that usually break results down well
    ranked: bool = False  # rows hold, or make together, several graded answers to a prompt
    many: bool = False  # a pair takes several rows, or a row makes several pairs
    note: str = ""  # a choice that was made for the user, for the plan

    @property
    def columns(self) -> dict[str, str]:
        """Every column that the form reads, with its kinds."""
        return {name: kinds for names, kinds in self.needs.items() for name in names.split("|")} | dict(self.optional)


def kind_of(value: Any) -> str:
    """What a value is, in one word: text, number, flag, message, messages, object, objects, texts, list or nothing."""
    if isinstance(value, str):
        return "text"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "flag"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, dict):
        return "message" if _is_message(value) else "object"
    if not isinstance(value, list) or not value:
        return "list"
    if isinstance(value[0], dict):
        return "messages" if _is_message(value[0]) else "objects"
    return "texts" if isinstance(value[0], str) else "list"


def _is_message(value: Mapping[str, Any]) -> bool:
    return ("role" in value or "from" in value) and ("content" in value or "value" in value)


def value_fits(value: Any, kinds: str) -> bool:
    """Whether a value is of one of `kinds`, e.g. `text|messages`; `objects:answer,rank` asks for keys of objects."""
    found = kind_of(value)
    for wanted in kinds.split("|"):
        kind, _, keys = wanted.partition(":")
        if kind in ("any", found) and not keys:
            return True
        first = value[0] if kind == "objects" and isinstance(value, list) and value else value
        nested = kind in ("object", "objects") and (first is not value) == (kind == "objects")
        if nested and isinstance(first, dict) and all(key in first for key in keys.split(",")):
            return True
    return False


# --- what the functions of the forms share ---


def get(row: Row, names: str) -> Any:
    """The value of the first of these columns (`a|b`) that the row has. Raises RowError where it has none or null."""
    for name in names.split("|"):
        if row.get(name) is not None:
            return row[name]
    name = next((name for name in names.split("|") if name in row), names.split("|")[0])
    raise RowError("empty" if name in row else "missing_field", name, "null" if name in row else "missing")


def text(row: Row, name: str) -> str:
    """The text in a column. Raises RowError where there is none."""
    value = get(row, name)
    if not isinstance(value, str):
        raise RowError("wrong_type", name, f"expected text, got {type(value).__name__}")
    return value


def as_number(value: Any, name: str) -> float:
    """A finite number. Raises RowError `bad_number` for anything else."""
    # The bound keeps float() and the difference of two scores finite (JSON integers have no limit of their own).
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e300:
        raise RowError("bad_number", name, f"expected a finite number, got {repr(value)[:40]}")
    return float(value)


def number(row: Row, name: str) -> float:
    """The number in a column. Raises RowError where there is none."""
    return as_number(get(row, name), name)


def no_images(row: Row) -> None:
    """Raise RowError `image` for a row with images beside its texts: the texts alone do not say what was judged."""
    for name in ("images", "image", "videos", "audios"):
        if row.get(name):
            raise RowError("image", name, "the row has images or sound beside its texts")


def asked(question: str, system: Any = None) -> list[Turn]:
    """A question as the turns before an answer, with its system prompt where there is one."""
    turns: list[Turn] = [{"role": "user", "content": question}]
    return [{"role": "system", "content": system}, *turns] if isinstance(system, str) and system.strip() else turns


def before_answer(field: str, context: list[Turn]) -> list[Turn]:
    """The turns, checked to be such as an assistant answers."""
    check_order(field, [*context, {"role": "assistant", "content": ""}])
    return context


def better(first: str, second: str, prefers_first: float, prompt: Prompt, margin: float | None = None) -> Pair:
    """The pair of two answers under a verdict: above 0 the first is better, below 0 the second, 0 is a tie."""
    if prefers_first == 0:
        raise RowError("tie", "", "no answer was preferred")
    return Pair(prompt, *((first, second) if prefers_first > 0 else (second, first)), margin=margin)


def most(holds: Callable[[Row], bool]) -> Callable[[Sequence[Row]], bool]:
    """A check that nine of ten rows must pass."""
    return lambda rows: sum(map(holds, rows)) >= 0.9 * len(rows)
