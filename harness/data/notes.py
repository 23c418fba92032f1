"""What a user should know of a data set: counted, with the first row numbers, for the plan and the report."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from harness.data.formats.columns import listed
from harness.data.formats.row import Format
from harness.types import DataSpec, PreferencePair

_SHOWN_ROWS = 10
_UNNAMED = 12  # of so many unused columns the names are given
_CHANGES_MEANING = ("tools", "images", "system")  # columns that change what a pair means

# Why a row is dropped, by fault kind. Kinds in REFUSED say that the file as a whole is not what was meant, so they are
# errors under either policy; those in JUDGED are no faults of a row, and dropped under either.
DROPPED = {
    "bad_json": "not a JSON object",
    "bad_table": "another number of cells than the header has",
    "not_utf8": "not UTF-8",
    "bad_text": "NUL or a lone surrogate in the text",
    "missing_field": "a field is missing",
    "wrong_type": "a field is not text",
    "bad_number": "a score is not a finite number",
    "bad_label": "a label is not one of those that are known",
    "bad_slice": "a slice column holds no text or number",
    "empty": "an empty prompt or response",
    "identical": "chosen equals rejected",
    "template_alike": "the chat template leaves out what tells chosen from rejected, such as their reasoning",
    "no_prompt": "no prompt, and chosen and rejected share no first words",
    "transcript": "no dialogue that ends in an assistant turn",
    "diverged": "the two dialogues differ before their last assistant turn",
    "prompt_differs": "the turns of chosen and rejected do not begin with the prompt",
    "turn_order": "roles do not alternate from user to a last assistant",
    "tie": "a tie, no answer was preferred",
    "both_bad": "both answers were judged bad",
    "image": "images, sound or other content that is not text",
    "tool_call": "the answer is a tool's turn or a call of one, not text",
    "tool_turn": "the prompt has turns of tools that nothing writes",
}
ALONE = "no other answer to the same prompt, better or worse, is left to set them against"
REFUSED = ("row_too_long", "conversation", "mixed", "template")
JUDGED = ("tie", "both_bad")

# C0 and C1 controls but tab and line ends, zero-width marks, and what changes the direction of text.
_CONTROL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2064\u2066-\u2069\ufeff]"
)


# What chat templates and tokenizers put around turns, written out.
_SPECIAL = re.compile(
    r"<\|[A-Za-z_0-9▁｜]{1,40}\|>|<｜[^<>]{1,40}｜>|</?s>|<(?:bos|eos|pad)>|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>|<extra_id_\d+>"
)
_ENDS = re.compile(rf"(?:{_SPECIAL.pattern})\s*$")


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


def reading_notes(
    form: Format, spec: DataSpec, columns: set[str], conversations: int, pairs: int, rows: int, templated: bool
) -> list[Note]:
    """How the rows were read as a whole: choices made, their conversations, and the columns that nobody reads."""
    notes = [Note("choice", pairs, text=form.note)] if form.note else []
    if form.ranked:
        notes.append(Note("rule", pairs, text=f"{pairs} pairs of {rows} rows by data.pairs: {spec.pairs}"))
    if conversations:
        how = "by the model's chat template" if templated else "as Human: and Assistant: turns"
        notes.append(Note("rendered", conversations, text=f"{conversations} conversations written {how}"))
    unused = columns - form.columns.keys() - set(spec.slices.split(", "))
    if unused:
        told = [name for name in _CHANGES_MEANING if name in unused]
        meaning = f"; {' and '.join(told)} change{'s' * (len(told) == 1)} what a pair means" if told else ""
        told = told + [name for name in sorted(unused) if name not in told]
        shown = listed(told, _UNNAMED, ordered=True)
        notes.append(Note("ignored_columns", len(unused), text=f"columns {shown} are not used{meaning}"))
    return notes


def special_tokens(*texts: str) -> set[str]:
    """The special tokens of usual templates and tokenizers that stand written out in texts."""
    return {mark for text in texts if "<" in text or "[" in text for mark in _SPECIAL.findall(text)}


def counted(marks: Counter[str]) -> str:
    """The most frequent special tokens, each with the number of pairs that hold it."""
    return ", ".join(f"{mark} in {count}" for mark, count in marks.most_common(5))


def written_out(pairs: Sequence[PreferencePair]) -> list[Note]:
    """Notes on special tokens written out in texts that no template has written here, and on ends on one side alone."""
    marked = {at: m for at, pair in enumerate(pairs) if (m := special_tokens(pair.prompt, pair.chosen, pair.rejected))}
    if not marked:
        return []
    named = counted(Counter(mark for marks in marked.values() for mark in marks))
    text = f"pairs have special tokens written out ({named}), read as plain characters; write such rows as messages"
    notes = [make_note("special_tokens", [pairs[at].meta["row"] for at in marked], text)]
    return notes + one_sided_ends(
        [(ended_side(pairs[at].chosen, pairs[at].rejected), pairs[at].meta["row"]) for at in marked]
    )


def ended_side(chosen: str, rejected: str) -> str:
    """The side that alone ends in a special token written out; empty where both do or none does."""
    ends = bool(_ENDS.search(chosen)), bool(_ENDS.search(rejected))
    return {(True, False): "chosen", (False, True): "rejected"}.get(ends, "")


def one_sided_ends(rows: Sequence[tuple[str, int]]) -> list[Note]:
    """Notes on rows by the side of theirs that alone ends in a special token."""
    notes = []
    for side in ("chosen", "rejected"):
        if one := [row for ended, row in rows if ended == side]:
            why = f"pairs end in a special token in {side} alone, which tells the two apart without reading them"
            notes.append(make_note(f"end_in_{side}", one, f"{why}; take it off"))
    return notes


def oddities(pairs: Sequence[PreferencePair], templated: bool = False) -> list[Note]:
    """Notes on pairs that are kept as they are, but that bear on the results. `meta` must hold prompt_id and row.

    `templated`: a chat template wrote the texts, so that special tokens in them are meant.
    """
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
    notes = [make_note(kind, [p.meta["row"] for p in rows], text) for kind, rows, text in found if rows]
    return notes if templated else [*notes, *written_out(pairs)]


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
