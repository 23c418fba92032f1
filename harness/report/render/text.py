"""Numbers and foreign text as a reader sees them: never localised, never able to act as markup or control codes."""

from __future__ import annotations

import math
import re
import unicodedata

from harness.metrics.statistics import Estimate

# Cc, Cf: control and format characters (bidi overrides among them); Cs, Co, Cn: no agreed glyph; Zl, Zp: line breaks.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_PLAIN = re.compile(r"[A-Za-z0-9_. =,%()+-]*")
# An underscore inside a word and a colon that opens no address mean nothing to Markdown.
_MARKDOWN = re.compile(r"([\\`*\[\]<>|~&@#!$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|:(?=/))")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

MINUS = "\u2212"
DASH = "\u2013"


def visible(text: object) -> str:
    """`text` on one line, with every control, bidi or unassigned character written as `\\u{202e}`."""
    flat = re.sub(r"[ \t\r\n]+", " ", str(text)).strip(" ")
    return "".join(f"\\u{{{ord(c):x}}}" if unicodedata.category(c) in _HIDDEN else c for c in flat)


def ascii_visible(text: object) -> str:
    """`visible`, and everything outside ASCII written the same way: what a figure's one font can surely draw."""
    return "".join(c if c.isascii() else f"\\u{{{ord(c):x}}}" for c in visible(text).replace("\u00a0", " "))


def shorten(text: object, limit: int = 160) -> str:
    """`visible` text of at most `limit` characters, cut with an ellipsis."""
    shown = visible(text)
    return shown if len(shown) <= limit else shown[: limit - 1] + "\u2026"


def markdown(text: object) -> str:
    """`visible` text that no Markdown dialect reads as markup, link, table border or HTML."""
    shown = visible(text)
    if _PLAIN.fullmatch(shown):
        return shown
    return re.sub(r"(?i)\bwww\.", lambda match: match[0][:-1] + "\\.", _MARKDOWN.sub(r"\\\1", shown))


def csv_text(text: object) -> str:
    """`visible` text that a spreadsheet does not run as a formula (a leading `=`, `+`, `-`, `@` gets an apostrophe)."""
    shown = visible(text)
    return "'" + shown if shown.startswith(_FORMULA) else shown


def number(value: float | None, digits: int = 3) -> str:
    """`value` with `digits` decimals (4 significant digits from 1000 on), a true minus sign, a dash for no value."""
    if value is None or not math.isfinite(value):
        return DASH
    if abs(value) >= 1000:
        return f"{value:.4g}".replace("-", MINUS)
    shown = f"{value:.{digits}f}"
    if float(shown) == 0:
        shown = shown.lstrip("-")
    return shown.replace("-", MINUS)


def plain(value: float | None) -> str:
    """An axis value (beta, rate) in its shortest form: 0.5, 2, 5; a dash where there is none."""
    return DASH if value is None else f"{value:g}".replace("-", MINUS)


def interval(low: float, high: float, digits: int = 3) -> str:
    """`[low, high]`, never broken over two lines, or the empty string where there is no interval."""
    return f"[{number(low, digits)},\u00a0{number(high, digits)}]" if math.isfinite(low) and math.isfinite(high) else ""


def shown(value: Estimate) -> str:
    """`mean [low, high]`, or the mean alone where there is no interval; with a fourth decimal for what is near 0."""
    digits = 4 if 0 < abs(value.mean) < 0.01 else 3
    return " ".join(filter(None, [number(value.mean, digits), interval(value.low, value.high, digits)]))


def points(value: float | None) -> str:
    """A share in percent with at most one decimal, without its unit: 0.9974 -> 99.7, 0.56 -> 56."""
    text = number(None if value is None else 100 * value, 1)
    return text.removesuffix(".0")


def percent(value: float | None) -> str:
    """`99.7 %`, never broken over two lines; a dash where there is none."""
    text = points(value)
    return text if text == DASH else f"{text}\u00a0%"


def percents(value: Estimate, unit: str = "\u00a0%") -> str:
    """A share with its interval: `56 % [44, 68]`."""
    bounds = f" [{points(value.low)},\u00a0{points(value.high)}]" if math.isfinite(value.low) else ""
    return f"{points(value.mean)}{unit}{bounds}"


def quantity(count: int, one: str, many: str | None = None) -> str:
    """`1 run`, `2 runs`."""
    return f"{count} {one if count == 1 else many or one + 's'}"
