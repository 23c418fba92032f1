"""Which form the rows of a source have. A form that is not certain is never guessed: the message names what fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.data.formats.columns import listed
from harness.data.formats.row import Format, Row, kind_of, value_fits
from harness.data.formats.trl import PROMPTS
from harness.data.raw_rows import RawRow
from harness.types import InputError

HEAD = 1000  # rows that are looked at
ALL = "data.columns names other columns, harness formats lists all forms"
_WORDS = {
    "messages": "a list of messages",
    "message": "one message",
    "texts": "a list of texts",
    "flag": "true or false",
}


@dataclass(frozen=True, slots=True)
class Seen:
    """What the first rows of a source say together: whether any has a prompt, and whether answers are messages."""

    has_prompt: bool
    conversational: bool


def look(rows: Sequence[Row], conversational_by: Sequence[str]) -> Seen:
    """What the first rows say; the first that has all of `conversational_by` decides whether answers are messages."""
    whole = next((row for row in rows if all(row.get(name) is not None for name in conversational_by)), {})
    return Seen(any("prompt" in row for row in rows), any(isinstance(whole.get(n), list) for n in conversational_by))


@dataclass(frozen=True, slots=True)
class Fit:
    """How well a form fits: needed columns that are absent, and those that hold something else, with a row of each."""

    missing: tuple[str, ...]
    wrong: tuple[tuple[str, RawRow], ...]
    share: float

    @property
    def whole(self) -> bool:
        """Whether every needed column is there and holds what it should."""
        return not self.missing and not self.wrong


def fit(form: Format, raws: Sequence[RawRow]) -> Fit:
    """How well the columns of the first rows fit a form."""
    rows = [(raw, raw.value) for raw in raws if isinstance(raw.value, Mapping)]
    missing, wrong, good = [], [], 0.0
    for names, kinds in form.needs.items():
        name = next((name for name in names.split("|") if any(name in row for _, row in rows)), "")
        if not name:
            missing.append(names.replace("|", " or "))
            continue
        held = [(raw, row[name]) for raw, row in rows if row.get(name) is not None]
        others = [raw for raw, value in held if not value_fits(value, kinds)]
        if held and 2 * len(others) <= len(held):
            good += 1
        else:
            good += 0.25
            wrong.append((name, others[0] if others else rows[0][0]))
    return Fit(tuple(missing), tuple(wrong), good / len(form.needs))


def recognise(raws: Sequence[RawRow], forms: Mapping[str, Format], where: str) -> Format:
    """The form of a source by its first rows. Raises InputError where none fits, or where it is not certain which."""
    rows = [raw.value for raw in raws if isinstance(raw.value, Mapping)]
    names = {name for row in rows for name in row}
    sided = {"chosen", "rejected"} <= names  # a pair that is written out counts, not what it was made from
    filled = {name for row in rows for name, value in row.items() if value is not None}
    able = [form for form in forms.values() if not filled.intersection(form.without)]
    able = [form for form in able if "chosen" in form.needs or not sided]
    fits = {form.name: fit(form, raws) for form in able}
    fitting = [form for form in able if fits[form.name].whole]
    certain = [form for form in fitting if form.check is None or form.check(_whole_rows(form, rows))]
    beaten = {name for form in certain for name in form.beats}
    beaten |= {a.name for a in certain for b in certain if set(a.needs) < set(b.needs)}
    left = [form for form in certain if form.name not in beaten]
    if len(left) == 1:
        return left[0]
    if left:
        told = "; ".join(f"{form.name}: {form.doc}" for form in left)
        raise InputError(f"{where}: not certain which form this is; set data.format to one of {told}")
    if "pairs" in {form.name for form in fitting}:
        raise InputError(_no_prompt(names, where))
    raise InputError(_near_miss(fits, forms, raws, where))


def _whole_rows(form: Format, rows: Sequence[Row]) -> list[Row]:
    needs = [(names.split("|"), kinds) for names, kinds in form.needs.items()]
    return [row for row in rows if all(any(value_fits(row.get(n), kinds) for n in names) for names, kinds in needs)]


def _no_prompt(names: set[str], where: str) -> str:
    """That chosen and rejected are there, and the prompt may stand in several places."""
    likely = [name for name in PROMPTS if name in names]
    columns = f" ({', '.join(likely)}?)" if likely else ""
    mapping = f"data.columns: {{prompt: {likely[0] if likely else 'COLUMN'}}} where a column holds it"
    return (
        f"{where}: not certain where the prompt stands{columns}; {mapping}, data.format: pairs where chosen and "
        "rejected begin with it; harness formats lists all forms"
    )


def _near_miss(fits: Mapping[str, Fit], forms: Mapping[str, Format], raws: Sequence[RawRow], where: str) -> str:
    best = max(fits, key=lambda name: fits[name].share, default="pairs")
    name = best if best in fits and fits[best].share > 0.5 else "pairs"
    return misfit(forms[name], fits[name] if name in fits else fit(forms[name], raws), raws, where)


def misfit(form: Format, fit: Fit, raws: Sequence[RawRow], where: str) -> str:
    """What rows lack that look like a form: columns that are missing, or what one holds instead, with the row."""
    rows = [raw.value for raw in raws if isinstance(raw.value, Mapping)]
    found = listed({name for row in rows for name in row})
    if fit.missing:
        lost = ", ".join(fit.missing)
        plural = "s" * (len(fit.missing) > 1)
        return f"{where}: column{plural} {lost} missing; found {found}; needed for {form.name}: {form.doc}; {ALL}"
    name, raw = fit.wrong[0]
    assert isinstance(raw.value, Mapping)
    value = raw.value[name]
    kinds = next(kinds for names, kinds in form.needs.items() if name in names.split("|"))
    holds = "null in every row" if value is None else f"{kind_of(value)} {repr(value)[:40]}"
    return f"{raw.place}: {name}: expected {in_words(kinds)}, found {holds}; needed for {form.name}: {form.doc}; {ALL}"


def in_words(kinds: str) -> str:
    """Kinds of value for a message, e.g. `a list of objects with answer, rank`."""
    told = []
    for wanted in kinds.split("|"):
        kind, _, keys = wanted.partition(":")
        if keys:
            told.append(
                f"{'a list of objects' if kind == 'objects' else 'an object'} with {', '.join(keys.split(','))}"
            )
        else:
            told.append(_WORDS.get(kind, kind))
    return " or ".join(told)
