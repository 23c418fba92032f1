"""Texts for people: bytes and durations, names looked up with "did you mean", safe file names. Imports no torch."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import PureWindowsPath  # splits at both kinds of slash
from typing import Any, TypeVar

from harness.types import InputError

T = TypeVar("T")


def bytes_text(count: float) -> str:
    """`512 B`, `1.2 GB`: three significant digits, steps of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def duration(seconds: float) -> str:
    """`45 s`, `3 min`, `2 h 10 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def suggestion(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest known name, or the empty string."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""


def look_up(table: Mapping[str, T], name: str, what: str) -> T:
    """`table[name]`, or an InputError that names the nearest entry or, where none is near, every entry."""
    try:
        return table[name]
    except KeyError:
        raise InputError(f"unknown {what} '{name}'{nearest_or_all(name, table)}") from None


def nearest_or_all(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` where a known name is near, else all known names in parentheses."""
    names = sorted(known)
    return suggestion(name, names) or f" (known: {', '.join(names)})"


def without_credentials(url: str) -> str:
    """An address without user name and password."""
    scheme, mark, rest = url.partition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}" if mark else url


# A path from the root of a disk or of a home; one part alone, such as /think, is no path.
_PART = r"[^\s/\\'\"<>|:;,()\[\]{}]+"
_PLACE = re.compile(rf"(?<![\w./\\-])(?:~|[A-Za-z]:)?(?:/(?!/)|\\+){_PART}(?:[/\\]+{_PART})+")


def without_places(text: str) -> str:
    """A text with the name of a file or folder in place of where it lies on this machine.

    >>> without_places("policies start from /home/me/models/base")
    'policies start from base'
    """
    return _PLACE.sub(lambda found: PureWindowsPath(found[0]).name, text)


def placeless(value: Any) -> Any:
    """A setting without the place of a file on this machine, where it is text."""
    return without_places(value) if isinstance(value, str) else value


def before(text: str, marks: Iterable[str]) -> str:
    """The text up to the first place where one of `marks` stands; all of it where none does."""
    places = [place for mark in marks if (place := text.find(mark)) >= 0]
    return text[: min(places)] if places else text


def slug(text: str, limit: int = 64) -> str:
    """A safe file-name part: `[a-z0-9._-]`, at most `limit` characters, never empty, never leading with a dot."""
    cleaned = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-.")
    return cleaned[:limit] or "x"
