"""Writes the README's registry tables from the registries: `python -m tests.readme`."""

from __future__ import annotations

import re
from pathlib import Path

from harness.listing import markdown

README = Path(__file__).resolve().parents[1] / "README.md"


def rendered(text: str) -> str:
    """The README with its tables made anew."""
    for what in ("objectives", "corruptions"):
        pattern = rf"(<!-- {what}:[^\n]*-->\n).*?(<!-- /{what} -->)"
        text = re.sub(pattern, lambda m, what=what: f"{m[1]}{markdown(what)}\n{m[2]}", text, flags=re.DOTALL)
    return text


if __name__ == "__main__":
    README.write_text(rendered(README.read_text(encoding="utf-8")), encoding="utf-8")
