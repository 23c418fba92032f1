"""What a judge is asked and how its reply is read: the prompt template, the content key, the verdict."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.identity import content_hash
from harness.metrics.judge import FIRST, SECOND, TIE, UNREADABLE
from harness.types import InputError

TEMPLATE = Path(__file__).with_name("judge_template.txt")
FIELDS = ("prompt", "first", "second")
VERDICTS = {"a": FIRST, "b": SECOND, "tie": TIE}
_FIELD = re.compile(r"\{(prompt|first|second|fence)\}")


@dataclass(frozen=True, slots=True)
class Judge:
    """Who judges and how: everything that a verdict depends on beside the texts."""

    endpoint: str
    model: str
    template: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two answers to a prompt in the order in which the judge sees them."""

    prompt: str
    first: str
    second: str


def read_template(path: Path | None) -> str:
    """The template of a file, or the packaged one. Raises InputError where a field is missing."""
    try:
        text = (path or TEMPLATE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--template {path}: cannot be read ({error})") from None
    missing = [f"{{{name}}}" for name in FIELDS if f"{{{name}}}" not in text]
    if missing:
        raise InputError(
            f"--template {path}: has no {', '.join(missing)}; it needs {{prompt}}, {{first}} and {{second}}"
        )
    return text


def comparison_key(judge: Judge, asked: Comparison) -> str:
    """The identity of a comparison: judge, template and texts, in this order."""
    return content_hash([judge, asked])


def message(judge: Judge, asked: Comparison) -> str:
    """The filled template. `{fence}` holds digits of the comparison's own hash, which no answer can contain."""
    key = comparison_key(judge, asked)
    values = {"prompt": asked.prompt, "first": asked.first, "second": asked.second, "fence": f"====={key[:16]}"}
    return _FIELD.sub(
        lambda field: values[field[1]], judge.template
    )  # one pass: fields inside answers stay as they are


def read_verdict(reply: str) -> str:
    """The verdict at the end of the judge's reply: a JSON object with `verdict`, or the last line `A`, `B` or `tie`.

    UNREADABLE for anything else: a verdict elsewhere in the reply may be a quotation from an answer.
    """
    text = reply.strip()
    fenced = re.search(r"```(?:json)?\s*\n(.*?)\n?```\Z", text, re.DOTALL)
    if fenced:
        text = fenced[1].strip()
    last = text.rpartition("\n")[2].strip()
    if last.lower() in VERDICTS:
        return VERDICTS[last.lower()]
    for brace in [found.start() for found in re.finditer(r"\{", text)][-20:][::-1]:
        try:
            value = json.loads(text[brace:], object_pairs_hook=_one_verdict)
        except (ValueError, RecursionError):
            continue
        verdict = value.get("verdict") if isinstance(value, dict) else None
        return VERDICTS.get(verdict.lower(), UNREADABLE) if isinstance(verdict, str) else UNREADABLE
    return UNREADABLE


def _one_verdict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object; ValueError where a key is there twice, which could mean either."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found
