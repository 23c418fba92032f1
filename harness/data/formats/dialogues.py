"""Forms of chosen and rejected beside turns or a question: LLaMA-Factory, axolotl, OpenAI, argilla and distilabel."""

from __future__ import annotations

from typing import Any

from harness.data.formats.row import Format, Graded, Pair, Row, asked, before_answer, get, most, no_images, text
from harness.data.formats.trl import SCORES, has_system, labelled, scored
from harness.data.raw_rows import RowError
from harness.data.transcripts import Turn, check_answer, message, messages, turns, with_system


def _after(row: Row, field: str, context: list[Turn], good: Any, bad: Any) -> Pair:
    """The pair of two single messages behind checked turns."""
    answers = []
    for name, value in (("chosen", good), ("rejected", bad)):
        turn = message(name, 0, value[0] if isinstance(value, list) and len(value) == 1 else value)
        if turn["role"] != "assistant":
            raise RowError("turn_order", name, f"the answer is the {turn['role']}'s")
        check_answer(name, turn)
        answers.append(turn["content"])
    return scored(row, before_answer(field, with_system(context, row.get("system"))), *answers)


def sharegpt(row: Row) -> Pair:
    """Turns, then one message of each side (LLaMA-Factory's ShareGPT form, axolotl's chat_template.default)."""
    no_images(row)
    field = "conversations" if row.get("conversations") is not None else "messages"
    return _after(
        row, field, messages(field, get(row, "conversations|messages")), get(row, "chosen"), get(row, "rejected")
    )


def whole_messages(row: Row) -> Pair:
    """Two whole dialogues as messages with content in parts (LLaMA-Factory since 2026)."""
    no_images(row)
    return scored(row, *turns(None, get(row, "chosen_messages"), get(row, "rejected_messages")))


def alpaca(row: Row) -> Pair:
    """Instruction and input, joined by a line end, with earlier rounds and a system prompt (LLaMA-Factory)."""
    no_images(row)
    given = row.get("input")
    question = "\n".join(part for part in (text(row, "instruction"), given) if isinstance(part, str) and part)
    earlier: list[Turn] = []
    for said, answer in row.get("history") or ():
        earlier += [{"role": "user", "content": said}, {"role": "assistant", "content": answer}]
    context = with_system([*earlier, *asked(question)], row.get("system"))
    return scored(row, before_answer("instruction", context), text(row, "chosen"), text(row, "rejected"))


def _question(row: Row, column: str) -> Pair:
    return scored(row, asked(text(row, column), row.get("system")), text(row, "chosen"), text(row, "rejected"))


def orca(row: Row) -> Pair:
    """A question with a system prompt (Intel's Orca pairs)."""
    return _question(row, "question")


def prompt_pairs(row: Row) -> Pair:
    """A prompt as text with a system prompt (axolotl)."""
    return _question(row, "prompt")


def distilabel(row: Row) -> Pair:
    """Orca pairs as distilabel judged them again. Its ties are ties; ratings stand in the order of `generations`."""
    if row.get("status") == "tie":
        raise RowError("tie", "status", "both answers were rated alike")
    pair = _question(row, "input")
    said, rating = row.get("generations"), row.get("rating")
    if isinstance(said, list) and isinstance(rating, list) and len(said) == len(rating) == 2:
        rated = dict(zip(said, rating, strict=True))
        if pair.chosen in rated and pair.rejected in rated:
            pair = pair._replace(scores=(rated[pair.chosen], rated[pair.rejected]))
    return pair


def argilla(row: Row) -> Pair:
    """An instruction with its two answers and their mean ratings."""
    question = asked(text(row, "instruction"), row.get("system"))
    return scored(row, question, text(row, "chosen_response"), text(row, "rejected_response"))


def openai(row: Row) -> Pair:
    """Preference fine-tuning of OpenAI and Together."""
    given = get(row, "input")
    context = messages("input", given.get("messages")) if isinstance(given, dict) else []
    good, bad = get(row, "preferred_output"), get(row, "non_preferred_output")
    return Pair(*turns(context, good, bad))


def kto(row: Row) -> Graded:
    """A whole dialogue with a label (LLaMA-Factory's KTO form)."""
    no_images(row)
    said = messages("messages", get(row, "messages|conversations"))
    context, answer, _ = turns(None, said, said)
    return Graded(with_system(context, row.get("system")), answer, labelled(get(row, "label|kto_tag")), label=True)


_ASK, _YES, _NO = "Where is the key?", "In the drawer.", "Find it yourself."
_TEXTS = {"chosen": "text", "rejected": "text"}
_SYSTEM = {"system": "text"}
_GPT = [{"from": "human", "value": _ASK}, {"from": "gpt", "value": _YES}, {"from": "gpt", "value": _NO}]
_CHAT = [
    {"role": "user", "content": _ASK},
    {"role": "assistant", "content": _YES},
    {"role": "assistant", "content": _NO},
]


def _in_parts(role: str, words: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "value": words}]}


ROWS = (
    Format(
        "sharegpt",
        "conversations, then chosen and rejected as one message each, {from, value} (LLaMA-Factory, ShareGPT)",
        {"conversations": "messages", "chosen": "message", "rejected": "message"},
        sharegpt,
        [{"conversations": _GPT[:1], "chosen": _GPT[1], "rejected": _GPT[2]}],
        {**_SYSTEM, "images": "list", **SCORES},
    ),
    Format(
        "chat_template.default",
        "messages, then chosen and rejected as one message each, {role, content} (axolotl)",
        {"messages": "messages", "chosen": "message", "rejected": "message"},
        sharegpt,
        [{"messages": _CHAT[:1], "chosen": _CHAT[1], "rejected": _CHAT[2]}],
        {**_SYSTEM, "images": "list", **SCORES},
    ),
    Format(
        "chosen_messages",
        "chosen_messages and rejected_messages as whole dialogues, content in parts (LLaMA-Factory)",
        {"chosen_messages": "messages", "rejected_messages": "messages"},
        whole_messages,
        [
            {
                "chosen_messages": [_in_parts("user", _ASK), _in_parts("assistant", _YES)],
                "rejected_messages": [_in_parts("user", _ASK), _in_parts("assistant", _NO)],
            }
        ],
        {"images": "list", **SCORES},
    ),
    Format(
        "alpaca",
        "instruction, input, chosen, rejected as text, with system and history where they are (LLaMA-Factory)",
        {"instruction": "text", **_TEXTS},
        alpaca,
        [{"instruction": "Answer shortly.", "input": _ASK, "chosen": _YES, "rejected": _NO}],
        {"input": "text", **_SYSTEM, "history": "list", "images": "list", **SCORES},
        without=("prompt", "question"),
        beats=("pairs", "distilabel"),
        check=most(lambda row: not row["chosen"].startswith(row["instruction"])),
    ),
    Format(
        "orca",
        "question, chosen, rejected as text, with system where it is (Intel's Orca pairs, axolotl intel_orca)",
        {"question": "text", **_TEXTS},
        orca,
        [{"system": "Be brief.", "question": _ASK, "chosen": _YES, "rejected": _NO}],
        {**_SYSTEM, **SCORES},
        without=("prompt", "instruction", "input"),
        beats=("pairs",),
        check=most(lambda row: not row["chosen"].startswith(row["question"])),
    ),
    Format(
        "distilabel",
        "system, input, chosen, rejected as text, with rating and status (distilabel's Orca pairs)",
        {"system": "text", "input": "text", **_TEXTS},
        distilabel,
        [
            {
                "system": "Be brief.",
                "input": _ASK,
                "chosen": _YES,
                "rejected": _NO,
                "generations": [_NO, _YES],
                "rating": [2.0, 9.0],
                "status": "swapped",
            }
        ],
        {"generations": "texts", "rating": "list", "status": "text", **SCORES},
        without=("prompt", "instruction", "question"),
        beats=("pairs",),
    ),
    Format(
        "prompt_pairs",
        "system, prompt, chosen, rejected as text (axolotl prompt_pairs)",
        {"system": "text", "prompt": "text", **_TEXTS},
        prompt_pairs,
        [{"system": "Be brief.", "prompt": _ASK, "chosen": _YES, "rejected": _NO}],
        SCORES,
        check=has_system,
    ),
    Format(
        "argilla",
        "instruction, chosen_response, rejected_response as text, with their ratings (argilla's UltraFeedback)",
        {"instruction": "text", "chosen_response": "text", "rejected_response": "text"},
        argilla,
        [
            {
                "instruction": _ASK,
                "chosen_response": _YES,
                "rejected_response": _NO,
                "chosen_avg_rating": 4.5,
                "rejected_avg_rating": 2.0,
            }
        ],
        {**_SYSTEM, **SCORES},
        slices=("source",),
    ),
    Format(
        "openai",
        "input.messages, preferred_output, non_preferred_output (OpenAI and Together preference files)",
        {"input": "object:messages", "preferred_output": "messages", "non_preferred_output": "messages"},
        openai,
        [{"input": {"messages": _CHAT[:1]}, "preferred_output": _CHAT[1:2], "non_preferred_output": _CHAT[2:]}],
    ),
    Format(
        "kto",
        "messages and label true or false; good and bad answers to the same turns are paired (LLaMA-Factory KTO)",
        {"messages|conversations": "messages", "label|kto_tag": "flag"},
        kto,
        [{"messages": _CHAT[:2], "label": True}, {"messages": [_CHAT[0], _CHAT[2]], "label": False}],
        {**_SYSTEM, "images": "list"},
        many=True,
    ),
)
