"""What a user should know of a data set: counted, with the first row numbers, for the plan and the report."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from harness.types import PreferencePair

_SHOWN_ROWS = 10

# C0 and C1 controls but tab and line ends, zero-width marks, and what changes the direction of text.
_CONTROL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2064\u2066-\u2069\ufeff]"
)


@dataclass(frozen=True, slots=True)
class Note:
    """`count` rows of one `kind`; `rows` are the numbers of the first few; `text` is the whole sentence."""

    kind: str
    count: int
    rows: tuple[int, ...] = ()
    text: str = ""


def make_note(kind: str, rows: Sequence[int], text: str) -> Note:
    """A note on `rows` (all their numbers). Its text is the count, `text`, and the first row numbers."""
    shown = tuple(rows[:_SHOWN_ROWS])
    named = ", ".join(map(str, shown)) + (", ..." if len(rows) > len(shown) else "")
    return Note(kind, len(rows), shown, f"{len(rows)} {text} (row{'s' * (len(rows) > 1)} {named})")


def oddities(pairs: Sequence[PreferencePair]) -> list[Note]:
    """Notes on pairs that are kept as they are, but that bear on the results. `meta` must hold prompt_id and row."""
    orders = {(p.meta["prompt_id"], p.chosen, p.rejected) for p in pairs}
    conflicts = [p for p in pairs if (p.meta["prompt_id"], p.rejected, p.chosen) in orders]
    scored = [p for p in pairs if "score_chosen" in p.meta and "score_rejected" in p.meta]
    share = len(conflicts) / max(len(pairs), 1)
    found = (
        ("conflict", conflicts, f"pairs ({share:.2%}) appear in both orders and are kept"),
        (
            "repeats_prompt",
            [p for p in pairs if p.chosen.startswith(p.prompt) and p.rejected.startswith(p.prompt)],
            "pairs have responses that begin with the prompt, so it appears twice",
        ),
        (
            "control_characters",
            [p for p in pairs if any(map(_CONTROL.search, (p.prompt, p.chosen, p.rejected)))],
            "pairs contain control, zero-width or direction characters and are kept",
        ),
        ("scores", scored, "pairs have scores; where gold_margin is missing, their difference is used"),
        (
            "negative_margin",
            [p for p in pairs if p.gold_margin is not None and p.gold_margin < 0],
            "pairs have a gold margin below zero and are kept",
        ),
    )
    return [make_note(kind, [p.meta["row"] for p in rows], text) for kind, rows, text in found if rows]


def _normal(prompt: str) -> str:
    return " ".join(prompt.casefold().split())


def overlap(train: Sequence[PreferencePair], heldout: Sequence[PreferencePair]) -> Note:
    """How many held-out pairs have a prompt that the training side has too, but for case and white space.

    Exactly equal prompts never stand on both sides (`harness.data.pairs.split`). The count may be 0.
    """
    known = {_normal(pair.prompt) for pair in train}
    shared = [pair.meta["row"] for pair in heldout if _normal(pair.prompt) in known]
    text = f"of {len(heldout)} held-out pairs have a training prompt except for case and white space"
    return make_note("overlap", shared, text) if shared else Note("overlap", 0, text=f"0 {text}")
