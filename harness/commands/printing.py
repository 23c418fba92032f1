"""How verbs print: text with nothing hidden in it, JSON that is JSON."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import typer


def say(text: str) -> None:
    """Print to standard output; control and bidi characters are shown escaped. Quiet where the reader has left."""
    try:
        print(escaped(text, keep="\n"), flush=True)
    except BrokenPipeError:  # as in `| head`: nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None


def escaped(text: str, keep: str = "") -> str:
    """`text` with what cannot be seen, line breaks as well, written out; characters of `keep` stay."""
    kept = keep + "\u00a0"  # the space of "75 %", which must not break
    return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in text)


def as_text(value: Any) -> str:
    """`value` as readable JSON. Raises ValueError for NaN or infinity."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)


def flat(value: Any) -> str:
    """A mapping or list in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {flat(child)}" for key, child in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
