"""The forms of preference rows by name. A new form: a function and its row in one of the files imported here."""

from __future__ import annotations

from harness.data.formats import dialogues, ranked, trl, two_answers
from harness.data.formats.row import Format
from harness.plugins import Registry

FORMATS: Registry[Format] = Registry(
    "formats", Format, (form for module in (trl, dialogues, two_answers, ranked) for form in module.ROWS)
)


def _columns() -> dict[str, str]:
    kinds: dict[str, list[str]] = {name: ["text", "messages"] for name in trl.PROMPTS}
    for form in FORMATS.built_in.values():
        for name, wanted in form.columns.items():
            kinds.setdefault(name, []).extend(wanted.split("|"))
    return {name: "|".join(dict.fromkeys(found)) for name, found in kinds.items()}


COLUMNS = _columns()  # every column that some built-in form reads, with all kinds of value that it may hold
