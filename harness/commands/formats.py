"""Which forms of preference data are read."""

from __future__ import annotations

from typing import Any

from harness.commands.listing import BUILT_IN
from harness.commands.options import Json
from harness.commands.printing import as_text, say
from harness.plugins import short


def formats(as_json: Json = False) -> None:
    """List the forms of preference data. `data.format: NAME` forces one; --json adds columns and an example of each."""
    from harness.data.formats.registry import FORMATS

    if not as_json:
        width = max(map(len, FORMATS)) + 2
        origin = {name: f"  ({short(FORMATS.plugin(name))})" if FORMATS.plugin(name) else "" for name in FORMATS}
        say("\n".join(f"{name:<{width}}{form.doc}{origin[name]}" for name, form in FORMATS.items()))
        return
    rows: list[dict[str, Any]] = [
        {
            "name": form.name,
            "doc": form.doc,
            "needs": dict(form.needs),
            "optional": dict(form.optional),
            "slices": list(form.slices),
            "note": form.note,
            "example": list(form.example),
            "origin": short(FORMATS.plugin(form.name)) or BUILT_IN,
        }
        for form in FORMATS.values()
    ]
    say(as_text(rows))
