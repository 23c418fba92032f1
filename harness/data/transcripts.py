"""Dialogues: Anthropic HH transcripts, lists of messages in several spellings, and text pairs without a prompt.

Where no chat template writes them, all dialogues end up in one form, that of HH-RLHF (arXiv 2204.05862): each turn is
a blank line, `Human:` or `Assistant:` (or `System:`), a space and the text. A prompt ends in `Assistant:`, a response
begins with the space.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from harness.data.raw_rows import RowError

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
_SPEAKERS = {"system": "System", "user": "Human", "assistant": "Assistant"}
# What roles are called in other tools: OpenAI, ShareGPT, LLaMA-Factory.
_ROLES = {
    **{role: role for role in (*_SPEAKERS, "tool")},
    "developer": "system",
    "human": "user",
    "gpt": "assistant",
    "function": "tool",
    "observation": "tool",
    "function_call": "assistant",
}
_PART = {"type", "text", "value"}
_KEPT = ("name", "tool_calls", "tool_call_id")  # of a message beside role and content, where they say something
# Writing without spaces: any place between two of its characters is one between words.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3000-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff00-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff9f\U00020000-\U0003ffff]"
)
# One message: role, content, and for tools what `_KEPT` names. A chat template gets it as it stands.
Turn = Mapping[str, Any]


def is_transcript(text: str) -> bool:
    """Whether `text` is a whole HH dialogue: it opens with a human turn and has an assistant turn."""
    return ("\n\n" + text.lstrip()).startswith(HUMAN) and ASSISTANT in text


def split_transcripts(chosen: str, rejected: str) -> tuple[str, str, str]:
    """(prompt, chosen response, rejected response) of two whole HH dialogues.

    The prompt is their common prefix up to and including the last `Assistant:`. Raises RowError where a dialogue has
    no assistant turn or ends in a human one, and where the two differ before their last assistant turn: what follows
    the common prefix would then hold human turns, and no model should be trained to write those.
    """
    for field, text in (("chosen", chosen), ("rejected", rejected)):
        if not is_transcript(text):
            raise RowError("transcript", field, f"no dialogue of {HUMAN.strip()} and {ASSISTANT.strip()} turns")
        if text.rfind(HUMAN) > text.rfind(ASSISTANT):
            raise RowError("transcript", field, "the dialogue does not end in an assistant turn")
    end = chosen.rfind(ASSISTANT) + len(ASSISTANT)
    if rejected.rfind(ASSISTANT) + len(ASSISTANT) != end or chosen[:end] != rejected[:end]:
        raise RowError("diverged", "rejected", "differs from chosen before the last assistant turn")
    return chosen[:end], chosen[end:], rejected[end:]


def split_texts(chosen: str, rejected: str) -> tuple[str, str, str]:
    """(prompt, chosen, rejected) of two texts that begin with the same prompt.

    The prompt is the common prefix, cut back so that no word is torn: to before its last white space, with which the
    responses then begin, or to a later place where one of the letters is of a script that writes no spaces.
    Raises RowError where nothing is left of the prompt.
    """
    if chosen == rejected:  # the prompt cannot be told from the response, and the row would be dropped anyway
        raise RowError("identical", "rejected", "equal to chosen")
    end = _common(chosen, rejected)
    cut = next((i for i in range(end, 0, -1) if _between_words(chosen, rejected, i, end)), 0)
    prompt = chosen[:cut].rstrip() if chosen[cut : cut + 1].isspace() and cut < end else chosen[:cut]
    if not prompt.strip():
        raise RowError("no_prompt", "prompt", "there is no prompt, and chosen and rejected share no first words")
    return prompt, chosen[len(prompt) :], rejected[len(prompt) :]


def _common(one: str, other: str) -> int:
    """The length of the common prefix, by halving: comparing slices costs far less than comparing characters."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _between_words(chosen: str, rejected: str, at: int, end: int) -> bool:
    """Whether the common prefix, `end` long, may be cut at `at` without tearing a word."""
    if at < end and chosen[at].isspace():
        return True
    if chosen[at - 1].isspace() or at == min(len(chosen), len(rejected)):  # answers keep their space, and some text
        return False
    following = chosen[at], rejected[at]
    if any(unicodedata.category(letter).startswith("M") for letter in following):  # a vowel or tone mark
        return False
    return bool(_UNSPACED.match(chosen[at - 1])) or all(map(_UNSPACED.match, following))


def message(field: str, at: int, value: Any) -> Turn:
    """Message `at` of a list as {role, content}, whichever of the known spellings it has. Raises RowError.

    Kinds: `image` for content that is no text, `conversation` for what is no message.
    """
    if not isinstance(value, dict):
        raise RowError("conversation", field, f"message {at} needs role and content")
    role = value["role"] if "role" in value else value.get("from")
    content = value["content"] if "content" in value else value.get("value")
    if role is None or ("content" not in value and "value" not in value):
        raise RowError("conversation", field, f"message {at} needs role and content")
    if not isinstance(role, str) or role not in _ROLES:
        known = "system, user, assistant and tool"
        raise RowError("conversation", field, f"message {at} has role {repr(role)[:40]}; only {known} are known")
    more = {name: value[name] for name in _KEPT if value.get(name)} if len(value) > 2 else {}
    if role == "function_call":
        content, more = _called(content, more)
    if content is None and more.get("tool_calls"):
        content = ""
    if isinstance(content, list):
        content = _joined(field, at, content)
    if not isinstance(content, str):
        raise RowError("conversation", field, f"message {at}: content is {type(content).__name__}, not text")
    return {"role": _ROLES[role], "content": content, **more}


def _called(content: Any, more: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A ShareGPT turn of `function_call`, whose text is {"name", "arguments"}, as OpenAI writes tool calls."""
    try:
        calls = json.loads(content)
    except (TypeError, ValueError):
        return content, more
    calls = calls if isinstance(calls, list) else [calls]
    return "", {**more, "tool_calls": [{"type": "function", "function": call} for call in calls]}


def _joined(field: str, at: int, parts: Sequence[Any]) -> str:
    """The text of content in parts, [{type: text, text | value}]. A part that is no text is a RowError `image`."""
    if len(parts) == 1 and isinstance(parts[0], dict) and set(parts[0]) <= _PART and parts[0].get("type") == "text":
        only = parts[0].get("text", parts[0].get("value"))
        if isinstance(only, str):  # most messages: one part of text
            return only
    texts = []
    for part in parts:
        if not isinstance(part, dict) or "type" not in part:
            raise RowError("conversation", field, f"message {at}: content is list, not text")
        if part["type"] != "text" or part.get("image"):
            raise RowError("image", field, f"message {at} has content of type {repr(part['type'])[:40]}; only text")
        text = part["text"] if part.get("text") is not None else part.get("value")
        if not isinstance(text, str):
            raise RowError("conversation", field, f"message {at}: content is list, not text")
        texts.append(text)
    return "".join(texts)


def messages(field: str, value: Any) -> list[Turn]:
    """`value` as checked messages. Raises RowError, of kind `conversation` where it is no list of messages."""
    if not isinstance(value, list) or not value:
        kind = "an empty list" if value == [] else type(value).__name__
        raise RowError("conversation", field, f"expected a list of {{role, content}}, got {kind}")
    return [message(field, at, one) for at, one in enumerate(value)]


def _whole(prompt: list[Turn], prompt_is_text: bool, own: list[Turn]) -> list[Turn]:
    """The dialogue from its first turn: `own` repeats the prompt in some sets and follows it in others."""
    repeats = own[0]["role"] not in ("assistant", "tool")
    if not repeats:
        return prompt + own
    # UltraFeedback names the question as text and repeats it in the turns, where a system turn may come first.
    known = prompt[0] in own if prompt and prompt_is_text else own[: len(prompt)] == prompt
    if not known:
        raise RowError("prompt_differs", "prompt", "the turns of chosen and rejected do not begin with the prompt")
    return own


def with_system(context: list[Turn], system: Any) -> list[Turn]:
    """The turns behind a system turn of this text, unless there is none to write or they have one already."""
    if not isinstance(system, str) or not system.strip() or (context and context[0]["role"] == "system"):
        return context
    return [{"role": "system", "content": system}, *context]


def turns(prompt: Any, chosen: Any, rejected: Any) -> tuple[list[Turn], str, str]:
    """(turns before the answers, chosen answer, rejected answer), checked, from lists of messages.

    `chosen` and `rejected` are lists that hold the response alone or the whole dialogue; `prompt` is a list, the
    user's text, or None where they hold the whole dialogue. Roles are an optional system turn, then user and
    assistant in turn, with calls of tools and their answers between; the two dialogues may differ in the last turn
    alone, which is the assistant's text. Raises RowError of kind `conversation` for what is no list of messages, and
    of the kinds `turn_order`, `diverged`, `prompt_differs`, `tool_call` and `image` for a dialogue of no use.
    """
    prompt_is_text = isinstance(prompt, str)
    if prompt is None:
        context: list[Turn] = []
    else:
        context = [{"role": "user", "content": prompt}] if prompt_is_text else messages("prompt", prompt)
    sides = {
        field: _whole(context, prompt_is_text, messages(field, value))
        for field, value in (("chosen", chosen), ("rejected", rejected))
    }
    for field, own in sides.items():
        check_answer(field, own[-1])
        check_order(field, own)
    if sides["chosen"][:-1] != sides["rejected"][:-1]:
        raise RowError("diverged", "rejected", "its turns before the answer differ from chosen's")
    return sides["chosen"][:-1], sides["chosen"][-1]["content"], sides["rejected"][-1]["content"]


def check_answer(field: str, turn: Turn) -> None:
    """Raise RowError of kind `tool_call` where a dialogue ends in a tool's turn or in a call of one."""
    if turn["role"] == "tool" or turn.get("tool_calls"):
        what = "a tool's turn" if turn["role"] == "tool" else "a tool call"
        raise RowError("tool_call", field, f"the answer is {what}; only text can be scored")


def check_order(field: str, own: Sequence[Turn]) -> None:
    """Raise RowError of kind `turn_order` unless the roles of a whole dialogue alternate from user to assistant."""
    spoken = [t["role"] for t in own if t["role"] != "tool" and not t.get("tool_calls")]
    spoken = spoken[1:] if spoken[:1] == ["system"] else spoken
    if not spoken or len(spoken) % 2 or spoken != ["user", "assistant"] * (len(spoken) // 2):
        order = ", ".join(turn["role"] for turn in own)
        raise RowError("turn_order", field, f"roles must alternate from user to a last assistant, got {order}")


def from_transcript(text: str) -> list[Turn]:
    """The turns of an HH transcript that ends in the cue `Assistant:`; a text of no such form is one user turn."""
    if not is_transcript(text):
        return [{"role": "user", "content": text}]
    parts = re.split(r"\n\n(Human|Assistant):", "\n\n" + text.lstrip())[1:]
    found: list[Turn] = [
        {"role": "user" if who == "Human" else "assistant", "content": said.removeprefix(" ").rstrip()}
        for who, said in zip(parts[::2], parts[1::2], strict=True)
    ]
    return found[:-1] if not found[-1]["content"] else found


def as_transcript(context: Sequence[Turn], *answers: str) -> tuple[str, ...]:
    """The prompt and each answer as text in the form of HH. Raises RowError of kind `tool_turn` for turns of tools."""
    if any(turn["role"] == "tool" or turn.get("tool_calls") for turn in context):
        raise RowError("tool_turn", "prompt", "a turn of a tool, which only a model's chat template can write")
    shared = "".join(f"\n\n{_SPEAKERS[turn['role']]}: {turn['content']}" for turn in context)
    # A response of white space alone must stay recognisable as empty, so the joining space is not added to it.
    return shared + ASSISTANT, *(f" {text}" if text.strip() else "" for text in answers)
