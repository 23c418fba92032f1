"""Pairs as TRL's trainers turn them into token ids, so that a policy trained there is scored on what it was trained on.

TRL 1.16 tokenises prompt and prompt + answer as whole texts and takes what these share as the prompt. A sweep
tokenises prompt and answers each on its own and ends an answer with its end-of-sequence token, whatever the template
writes behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.data.chat import Fault, Render, Rendered, shared_length, template_of, write_turns
from harness.data.raw_rows import RowError
from harness.data.rows import TokenisedPair
from harness.data.transcripts import Turn
from harness.types import PreferencePair


def trl_renderer(tokenizer: Any, date: str, arguments: str = "") -> Render:
    """Prompt and answers as a tokenizer's chat template writes them, to the last character, on a fixed date.

    Where the template writes the prompt otherwise once an answer follows, the prompt is what all have in common.
    """
    template = template_of(tokenizer, date, arguments)

    def render(context: Sequence[Turn], chosen: str, rejected: str) -> Rendered:
        if not template.text:
            raise RowError("template", "chosen", "the tokenizer has no chat template, and the rows are conversations")
        prompt = write_turns(template, context, cue=True)
        answers = [{"role": "assistant", "content": answer} for answer in (chosen, rejected)]
        whole = [write_turns(template, [*context, answer]) for answer in answers]
        shared = prompt[: min(shared_length(prompt, text) for text in whole)]
        if not shared:
            why = "the chat template formats the prompt differently once an answer follows"
            raise RowError("template", "chosen", why)
        one, other = (text[len(shared) :] for text in whole)
        faults = (Fault("template_prefix", prompt[len(shared) :]),) if shared != prompt else ()
        return Rendered(shared, one, other, faults)

    return render


def dpo_tokens(tokenizer: Any, pair: PreferencePair, templated: bool, max_length: int) -> TokenisedPair | None:
    """The token ids of a pair in TRL's DPO and KTO trainers, cut behind `max_length` tokens.

    `templated`: the texts are a chat template's, special tokens and all; otherwise answers get the end-of-sequence
    token and the tokenizer adds what it adds to a text. None where the prompt leaves an answer no room.
    """
    answers = [pair.chosen, pair.rejected]
    if not templated:
        end = tokenizer.eos_token
        answers = [text if text.endswith(end) else text + end for text in answers]
    texts = [pair.prompt, *(pair.prompt + answer for answer in answers)]
    prompt, *whole = tokenizer(texts, add_special_tokens=not templated)["input_ids"]
    shared = min(shared_length(prompt, one) for one in whole)
    return _pair(pair.id, prompt[:shared], [one[shared:max_length] for one in whole])


def cpo_tokens(tokenizer: Any, pair: PreferencePair, templated: bool, max_length: int) -> TokenisedPair | None:  # noqa: ARG001 - one interface
    """The same in TRL's CPO and ORPO trainers: `<bos>` before every prompt and `<eos>` behind every answer, unless they
    stand there already. Where a token of the prompt merges with an answer, both answers begin with it."""
    texts = [pair.prompt, *(pair.prompt + answer for answer in (pair.chosen, pair.rejected))]
    prompt, *whole = tokenizer(texts, add_special_tokens=False)["input_ids"]
    shared = len(prompt) - any(one[: len(prompt)] != prompt for one in whole)
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    head = [] if bos is None or prompt[:1] == [bos] else [bos]
    sides = [one[shared:] if one[-1:] == [eos] else [*one[shared:], eos] for one in whole]
    room = max(max_length - len(head) - shared, 0)
    return _pair(pair.id, [*head, *prompt[:shared]], [side[:room] for side in sides])


def _pair(name: str, prompt: Sequence[int], sides: Sequence[Sequence[int]]) -> TokenisedPair | None:
    if not (len(prompt) and all(len(side) for side in sides)):
        return None
    return TokenisedPair(name, *(np.array(ids, dtype=np.int32) for ids in (prompt, *sides)))


# What a trainer's pairs are tokenised by.
TOKENS = {"dpo": dpo_tokens, "cpo": cpo_tokens}
