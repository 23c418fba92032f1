"""Pairs as TRL's trainers turn them into token ids, so that a policy trained there is scored on what it was trained on.

TRL tokenises prompt and prompt + answer as whole texts and takes what both answers' texts share with the prompt's as
the prompt (`DPOTrainer` of TRL 1.16; KTO alike). A sweep tokenises prompt and answers each on its own and ends an
answer with its end-of-sequence token, whatever the template writes behind it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.data.chat import Render
from harness.data.raw_rows import RowError
from harness.data.rows import TokenisedPair
from harness.data.transcripts import Turn
from harness.types import PreferencePair


def trl_renderer(tokenizer: Any) -> Render:
    """Prompt and answers as the chat template of a transformers tokenizer writes them, to the last character."""

    def written(turns: Sequence[Turn], cue: bool) -> str:
        from jinja2 import TemplateError

        try:
            messages = [dict(turn) for turn in turns]
            return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=cue))
        except TemplateError as error:  # templates refuse by raising, e.g. system turns
            raise RowError("template", "prompt", f"the chat template refuses these turns ({error})") from error

    def render(context: Sequence[Turn], chosen: str, rejected: str) -> tuple[str, str, str]:
        if not getattr(tokenizer, "chat_template", None):
            raise RowError("template", "chosen", "the tokenizer has no chat template, and the rows are conversations")
        prompt = written(context, cue=True)
        whole = [written([*context, {"role": "assistant", "content": answer}], cue=False) for answer in (chosen, rejected)]
        if not all(text.startswith(prompt) for text in whole):
            why = "the chat template formats the prompt differently once an answer follows"
            raise RowError("template", "chosen", why)
        return prompt, *(text[len(prompt) :] for text in whole)  # type: ignore[return-value]

    return render


def trl_tokens(tokenizer: Any, pair: PreferencePair, templated: bool, max_length: int) -> TokenisedPair | None:
    """The token ids of a pair, cut behind `max_length` tokens; None where the prompt leaves an answer no room.

    `templated`: the texts are a chat template's, special tokens and all; otherwise answers get the end-of-sequence
    token and the tokenizer adds what it adds to a text.
    """
    answers = [pair.chosen, pair.rejected]
    if not templated:
        end = tokenizer.eos_token
        answers = [text if text.endswith(end) else text + end for text in answers]
    texts = [pair.prompt, *(pair.prompt + answer for answer in answers)]
    prompt, *whole = tokenizer(texts, add_special_tokens=not templated)["input_ids"]
    shared = min(len(os.path.commonprefix([prompt, one])) for one in whole)
    sides = [np.array(one[shared:max_length], dtype=np.int32) for one in whole]
    if not shared or not all(len(side) for side in sides):
        return None
    return TokenisedPair(pair.id, np.array(prompt[:shared], dtype=np.int32), *sides)
