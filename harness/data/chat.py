"""Conversations written by the chat template of a model's tokenizer: prompt with the cue to answer, then answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from harness.data.files import RowError
from harness.data.transcripts import Turn

# (turns before the answers, chosen answer, rejected answer) -> (prompt, chosen, rejected) texts.
Render = Callable[[Sequence[Turn], str, str], tuple[str, str, str]]


def chat_texts(tokenizer: Any, context: Sequence[Turn], *answers: str) -> tuple[str, ...]:
    """The prompt and each answer as the template of a transformers `tokenizer` writes them, special tokens included.

    prompt + answer is the whole conversation up to and including the end-of-sequence token of the answer, where the
    template writes one: what it puts behind that (a line end) is no part of the answer. White space alone stays "".
    Raises RowError of kind `template` where the tokenizer has no template, refuses the turns, or writes the prompt
    otherwise once an answer follows (then no part of the text is the answer alone).
    """
    if not getattr(tokenizer, "chat_template", None):
        raise RowError("template", "chosen", "the model's tokenizer has no chat template; set model.template: none")
    messages = [dict(turn) for turn in context]
    prompt = _written(tokenizer, messages, add_generation_prompt=True)
    texts = [prompt]
    for field, answer in zip(("chosen", "rejected"), answers, strict=False):
        whole = _written(tokenizer, [*messages, {"role": "assistant", "content": answer}])
        if not whole.startswith(prompt):
            why = "the chat template formats the prompt differently once an answer follows; set model.template: none"
            raise RowError("template", field, why)
        text = whole[len(prompt) :]
        eos = tokenizer.eos_token
        if eos and (at := text.rfind(eos)) >= 0 and not text[at + len(eos) :].strip():
            text = text[: at + len(eos)]
        texts.append(text if answer.strip() else "")
    return tuple(texts)


def _written(tokenizer: Any, messages: Sequence[dict[str, Any]], **options: Any) -> str:
    from jinja2 import TemplateError

    try:
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, **options))
    except TemplateError as error:  # templates refuse by raising, e.g. system turns
        raise RowError("template", "prompt", f"the chat template refuses these turns ({error})") from error


def chat_renderer(tokenizer: Any) -> Render:
    """`chat_texts` of one tokenizer for pairs of answers."""

    def render(context: Sequence[Turn], chosen: str, rejected: str) -> tuple[str, str, str]:
        prompt, good, bad = chat_texts(tokenizer, context, chosen, rejected)
        return prompt, good, bad

    return render
