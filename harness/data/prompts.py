"""The file of `evaluation.prompts`: prompts without answers, each with the kind of behaviour that it asks for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.data.files import read_rows
from harness.data.raw_rows import RowError
from harness.types import InputError, PromptKind

WANTED = f"expected rows with `prompt` (text) and `kind` ({', '.join(PromptKind)})"


@dataclass(frozen=True, slots=True)
class AskedPrompt:
    """A prompt: one user turn. `row` counts from 1."""

    row: int
    text: str
    kind: PromptKind


def read_prompts(path: Path) -> tuple[AskedPrompt, ...]:
    """The prompts of a JSONL, JSON, CSV or Parquet file. Raises InputError, a line for each of the first bad rows."""
    found, problems = [], []
    for row in read_rows(path, {"prompt": "text", "kind": "text"}):
        if isinstance(row.value, RowError):
            problems.append(f"{row.place}: {row.value}")
            continue
        text, kind = row.value.get("prompt"), row.value.get("kind")
        if not isinstance(text, str) or not text.strip():
            problems.append(f"{row.place}: prompt: no text; {WANTED}")
        elif not isinstance(kind, str) or kind not in list(PromptKind):
            problems.append(f"{row.place}: kind: {kind!r}; {WANTED}")
        else:
            found.append(AskedPrompt(row.number, text.strip(), PromptKind(kind)))
    if not found and not problems:
        problems.append(f"{path}: no rows; {WANTED}")
    if problems:
        raise InputError(*problems[:10])
    return tuple(found)
