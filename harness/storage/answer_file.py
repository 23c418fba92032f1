"""`report/answer.json`: what a report answers, one text per card, for `status`, the end of a sweep and MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.storage.atomic import read_json, write_json

ANSWER = "answer.json"
WORDS = {"use": "Use", "breaks": "Breaks"}  # the texts that a terminal prints, and what it calls them


def write_answer(report: Path, texts: Mapping[str, str]) -> None:
    """Writes the texts by the name of their card."""
    write_json(report / ANSWER, dict(texts))


def read_answer(report: Path) -> dict[str, str]:
    """The texts of a report's folder; empty before its first report."""
    path = report / ANSWER
    return dict(read_json(path)) if path.exists() else {}


def answer_lines(report: Path) -> list[str]:
    """`Use: ...` and `Breaks: ...`, as far as there is an answer."""
    texts = read_answer(report)
    return [f"{word}: {texts[name]}".replace("\u00a0", " ") for name, word in WORDS.items() if name in texts]
