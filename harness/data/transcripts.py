"""Dialogues as text: Anthropic HH transcripts, lists of {role, content}, and text pairs without a prompt.

All dialogues end up in one form, that of HH-RLHF (arXiv 2204.05862): each turn is a blank line, `Human:` or
`Assistant:` (or `System:`), a space and the text. A prompt ends in `Assistant:`, a response begins with the space.
"""

from __future__ import annotations

from typing import Any

from harness.data.files import RowError

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
_SPEAKERS = {"system": "System", "user": "Human", "assistant": "Assistant"}
Message = tuple[str, str]  # role, content


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

    The prompt is the common prefix, cut back to before its last white space so that no word is torn; the responses
    begin with that white space. Raises RowError where nothing is left of the prompt.
    """
    if chosen == rejected:  # the prompt cannot be told from the response, and the row would be dropped anyway
        raise RowError("identical", "rejected", "equal to chosen")
    shorter = min(len(chosen), len(rejected))
    end = next((i for i in range(shorter) if chosen[i] != rejected[i]), shorter)
    prompt = chosen[: max((i for i in range(end) if chosen[i].isspace()), default=0)].rstrip()
    if not prompt:
        raise RowError("no_prompt", "prompt", "there is no prompt, and chosen and rejected share no first words")
    return prompt, chosen[len(prompt) :], rejected[len(prompt) :]


def _messages(field: str, value: Any) -> list[Message]:
    """`value` as checked messages, or RowError."""
    if not isinstance(value, list) or not value:
        kind = "an empty list" if value == [] else type(value).__name__
        raise RowError("conversation", field, f"expected a list of {{role, content}}, got {kind}")
    messages: list[Message] = []
    for at, message in enumerate(value):
        if not isinstance(message, dict) or "role" not in message or "content" not in message:
            raise RowError("conversation", field, f"message {at} needs role and content")
        role, content = message["role"], message["content"]
        known = isinstance(role, str) and role in _SPEAKERS
        if not known or message.get("tool_calls"):
            what = "a tool call" if known else f"role {repr(role)[:40]}"
            raise RowError("conversation", field, f"message {at} has {what}; only system, user and assistant text")
        if not isinstance(content, str):
            raise RowError("conversation", field, f"message {at}: content is {type(content).__name__}, not text")
        messages.append((role, content))
    return messages


def _whole(prompt: list[Message], prompt_is_text: bool, own: list[Message]) -> list[Message]:
    """The dialogue from its first turn: `own` repeats the prompt in some sets and follows it in others."""
    repeats = own[0][0] != "assistant"
    if not repeats:
        return prompt + own
    # UltraFeedback names the question as text and repeats it in the turns, where a system turn may come first.
    known = prompt[0] in own if prompt and prompt_is_text else own[: len(prompt)] == prompt
    if not known:
        raise RowError("conversation", "prompt", "the turns of chosen and rejected do not begin with the prompt")
    return own


def turns(prompt: Any, chosen: Any, rejected: Any) -> tuple[list[Message], str, str]:
    """(turns before the answers, chosen answer, rejected answer), checked, from lists of {role, content}.

    `chosen` and `rejected` are lists that hold the response alone or the whole dialogue; `prompt` is a list, the
    user's text, or None where they hold the whole dialogue. Roles are an optional system turn, then user and
    assistant in turn; the two dialogues may differ in the last turn alone, which is the assistant's.
    Raises RowError of kind `conversation` for anything else.
    """
    prompt_is_text = isinstance(prompt, str)
    context = [] if prompt is None else [("user", prompt)] if prompt_is_text else _messages("prompt", prompt)
    sides = {
        field: _whole(context, prompt_is_text, _messages(field, value))
        for field, value in (("chosen", chosen), ("rejected", rejected))
    }
    for field, own in sides.items():
        roles = [role for role, _ in own]
        spoken = roles[1:] if roles[0] == "system" else roles
        if len(spoken) % 2 or spoken != ["user", "assistant"] * (len(spoken) // 2) or not spoken:
            order = ", ".join(roles)
            raise RowError("conversation", field, f"roles must alternate from user to a last assistant, got {order}")
    if sides["chosen"][:-1] != sides["rejected"][:-1]:
        raise RowError("conversation", "rejected", "its prompt differs from chosen's")
    return sides["chosen"][:-1], sides["chosen"][-1][1], sides["rejected"][-1][1]


def render_conversation(prompt: Any, chosen: Any, rejected: Any) -> tuple[str, str, str]:
    """(prompt, chosen, rejected) as text in the form of HH, from what `turns` takes. Raises RowError as it does."""
    context, *answers = turns(prompt, chosen, rejected)
    shared = "".join(f"\n\n{_SPEAKERS[role]}: {content}" for role, content in context)
    # A response of white space alone must stay recognisable as empty, so the joining space is not added to it.
    good, bad = (f" {text}" if text.strip() else "" for text in answers)
    return shared + ASSISTANT, good, bad
