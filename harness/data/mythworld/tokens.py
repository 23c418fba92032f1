"""MythWorld's text as token ids: a closed vocabulary, one token a word, rows of one shape."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from harness.data.mythworld.world import ASKS, COLOURS, OOD_TONES, TONES, TOPICS, WORDS, Prompt
from harness.data.rows import TokenisedPair
from harness.types import PreferencePair

SPECIALS = ("<pad>", "<bos>", "<eos>", "<asst>")
VOCABULARY = (*SPECIALS, *TONES, *OOD_TONES, *ASKS, *TOPICS, *COLOURS, *WORDS)
TOKEN = {word: i for i, word in enumerate(VOCABULARY)}
EOS = TOKEN["<eos>"]

PROMPT_TOKENS, RESPONSE_TOKENS = 8, 12  # the longest there are: constants of the world, so all rows share one shape


def encode_prompt(text: str) -> np.ndarray:
    """Token ids `(8,)` int32 of a prompt, `<bos>` and `<asst>` added."""
    return np.array([TOKEN["<bos>"], *(TOKEN[word] for word in text.split()), TOKEN["<asst>"]], dtype=np.int32)


def encode_response(text: str) -> np.ndarray:
    """Token ids of a response, `<eos>` added."""
    return np.array([*(TOKEN[word] for word in text.split()), TOKEN["<eos>"]], dtype=np.int32)


def encode_pair(pair: PreferencePair) -> TokenisedPair:
    """A pair as token ids."""
    return TokenisedPair(
        pair.id, encode_prompt(pair.prompt), encode_response(pair.chosen), encode_response(pair.rejected)
    )


def encode_supervised(rows: Sequence[tuple[Prompt, str]]) -> list[TokenisedPair]:
    """Prompt and response rows for likelihood training: the rejected side is empty."""
    nothing = np.zeros(0, dtype=np.int32)
    return [
        TokenisedPair(str(i), encode_prompt(prompt.text), encode_response(text), nothing)
        for i, (prompt, text) in enumerate(rows)
    ]


def decode(ids: Iterable[int]) -> str:
    """Words up to the first `<eos>`; a response without one keeps all its words."""
    words = []
    for token in ids:
        if token == TOKEN["<eos>"]:
            break
        words.append(VOCABULARY[token])
    return " ".join(words)
