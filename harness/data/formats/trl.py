"""TRL's own forms: prompt, chosen, rejected as text or messages; whole HH transcripts; one labelled answer a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.data.formats.row import Format, Graded, Pair, Row, as_number, get, most, text
from harness.data.raw_rows import RowError
from harness.data.transcripts import is_transcript, split_texts, split_transcripts, turns, with_system

# What argilla, distilabel and others call the scores of chosen and rejected.
RATINGS = (
    ("chosen-rating", "rejected-rating"),
    ("chosen_rating", "rejected_rating"),
    ("rating_chosen", "rating_rejected"),
    ("chosen_avg_rating", "rejected_avg_rating"),
    ("chosen_score", "rejected_score"),
)
SCORES = dict.fromkeys(
    ("score_chosen", "score_rejected", "gold_margin", *(n for two in RATINGS for n in two)), "number"
)
# Columns that hold the prompt in other forms: beside chosen and rejected alone they leave open where the prompt is.
PROMPTS = (
    *("question", "instruction", "input", "query", "context", "history", "messages", "conversation", "conversations"),
    *("problem", "user", "user_prompt", "text", "post"),
)


def scored(row: Row, prompt: Any, chosen: str, rejected: str) -> Pair:
    """A pair with the scores and the gold margin that its row has. Raises RowError for scores that are no numbers."""
    scores = [None if (v := row.get(n)) is None else as_number(v, n) for n in ("score_chosen", "score_rejected")]
    margin = None if (value := row.get("gold_margin")) is None else as_number(value, "gold_margin")
    for names in RATINGS:
        rated = [row.get(name) for name in names]
        if scores == [None, None] and all(isinstance(r, int | float) and not isinstance(r, bool) for r in rated):
            scores = [as_number(r, name) for r, name in zip(rated, names, strict=True)]
    return Pair(prompt, chosen, rejected, margin, (scores[0], scores[1]))


def pairs(row: Row) -> Pair:
    """Prompt, chosen and rejected; without a prompt both answers begin with it."""
    prompt = get(row, "prompt") if "prompt" in row else None
    chosen, rejected = get(row, "chosen"), get(row, "rejected")
    if isinstance(chosen, list) and isinstance(rejected, list):
        return scored(row, *turns(prompt, chosen, rejected))
    texts = [text(row, name) for name in ("prompt", "chosen", "rejected") if name in row]
    _no_blank(row)
    return scored(row, *(split_texts(*texts) if prompt is None else texts))


def _no_blank(row: Row) -> None:
    for name in ("chosen", "rejected"):
        if not row[name].strip():
            raise RowError("empty", name, "empty")


def hh(row: Row) -> Pair:
    """Two whole dialogues with the same turns before the last answer."""
    chosen, rejected = text(row, "chosen"), text(row, "rejected")
    _no_blank(row)
    return scored(row, *split_transcripts(chosen, rejected))


def ultra(row: Row) -> Pair:
    """Dialogues as messages, behind the system prompt in a column of its own."""
    pair = pairs(row)
    if isinstance(pair.prompt, str):
        raise RowError("mixed", "chosen", "text and lists of messages are mixed")
    return pair._replace(prompt=with_system(pair.prompt, row.get("system")))


def unpaired(row: Row) -> Graded:
    """One wanted or unwanted answer to a prompt."""
    prompt, completion, label = (get(row, name) for name in ("prompt", "completion", "label"))
    wanted = labelled(label)
    if isinstance(completion, list):
        context, answer, _ = turns(prompt, completion, completion)
        return Graded(context, answer, wanted, label=True)
    return Graded(text(row, "prompt"), text(row, "completion"), wanted, label=True)


def labelled(label: Any) -> float:
    """The grade of an answer with this label. Raises RowError for anything but true or false."""
    if not isinstance(label, bool):
        raise RowError("bad_label", "label", f"expected true or false, got {repr(label)[:40]}")
    return float(label)


def _dialogues(rows: Sequence[Row]) -> bool:
    return all(is_transcript(rows[0][side]) for side in ("chosen", "rejected"))


def has_system(rows: Sequence[Row]) -> bool:
    """Whether the system column says anything."""
    return any(row["system"].strip() for row in rows)


def prompt_is_certain(row: Row) -> bool:
    """Whether it is certain where the prompt stands: in its column, or at the start of both answers.

    Not where another column may hold it, unless both answers begin with that column's text.
    """
    chosen, rejected = row["chosen"], row["rejected"]
    others = [row[name] for name in PROMPTS if row.get(name)]
    if "prompt" in row or not others:
        return not isinstance(chosen, list) or "prompt" in row or _asks(chosen)
    if isinstance(chosen, list):
        return _asks(chosen)
    texts = [other.strip() for other in others if isinstance(other, str)]
    return all(side.lstrip().startswith(tuple(texts)) for side in (chosen, rejected)) if texts else False


def _asks(messages: list[Any]) -> bool:
    first = messages[0] if messages and isinstance(messages[0], dict) else {}
    return first.get("role", first.get("from")) not in ("assistant", "gpt")


_SIDES = {"chosen": "text|messages", "rejected": "text|messages"}
_TEXTS = {"chosen": "text", "rejected": "text"}
_HH = "\n\nHuman: Where is the key?\n\nAssistant:"
ROWS = (
    Format(
        "pairs",
        "prompt, chosen, rejected as text or as messages; without a prompt both answers begin with it (TRL)",
        _SIDES,
        pairs,
        [{"prompt": "Where is the key?", "chosen": " In the drawer.", "rejected": " Find it yourself."}],
        {"prompt": "text|messages", **SCORES},
        check=most(prompt_is_certain),
    ),
    Format(
        "hh",
        "chosen and rejected as whole Human: and Assistant: dialogues (Anthropic HH-RLHF)",
        _TEXTS,
        hh,
        [{"chosen": _HH + " In the drawer.", "rejected": _HH + " Find it yourself."}],
        SCORES,
        without=("prompt",),
        check=_dialogues,
        beats=("pairs", "orca", "alpaca", "distilabel"),
    ),
    Format(
        "unpaired",
        "one answer a row with label true or false; good and bad answers to a prompt are paired in order (TRL, KTO)",
        {"completion": "any", "label": "any"},
        unpaired,
        [
            {"prompt": "Where is the key?", "completion": " In the drawer.", "label": True},
            {"prompt": "Where is the key?", "completion": " Find it yourself.", "label": False},
        ],
        {"prompt": "text|messages"},
        many=True,
    ),
    Format(
        "reward_bench",
        "pairs with the part of the benchmark that they belong to (RewardBench)",
        {"prompt": "text", **_TEXTS, "subset": "text"},
        pairs,
        [{"prompt": "Where is the key?", "chosen": "In the drawer.", "rejected": "No.", "subset": "chat-easy"}],
        SCORES,
        slices=("subset",),
    ),
    Format(
        "ultra",
        "chosen and rejected as messages, the system prompt in a column (axolotl chatml.ultra)",
        {"system": "text", "chosen": "messages", "rejected": "messages"},
        ultra,
        [
            {
                "system": "Be brief.",
                "prompt": "Where is the key?",
                "chosen": [
                    {"role": "user", "content": "Where is the key?"},
                    {"role": "assistant", "content": "In the drawer."},
                ],
                "rejected": [
                    {"role": "user", "content": "Where is the key?"},
                    {"role": "assistant", "content": "Find it yourself."},
                ],
            }
        ],
        {"prompt": "text|messages", **SCORES},
        check=has_system,
    ),
)
