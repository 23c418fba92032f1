"""MythWorld's text as token ids: a closed vocabulary, one token a word, rows of one shape."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from harness.data.mythworld.language import SPECIALS, Language
from harness.data.mythworld.world import Prompt
from harness.data.rows import TokenisedPair
from harness.types import PreferencePair

EOS = SPECIALS.index("<eos>")  # in every version


def encode_prompt(text: str, language: Language) -> np.ndarray:
    """Token ids `(8,)` int32 of a prompt, `<bos>` and `<asst>` added."""
    token = language.token
    return np.array([token["<bos>"], *(token[word] for word in text.split()), token["<asst>"]], dtype=np.int32)


def encode_response(text: str, language: Language) -> np.ndarray:
    """Token ids of a response, `<eos>` added."""
    return np.array([*(language.token[word] for word in text.split()), EOS], dtype=np.int32)


def encode_pair(pair: PreferencePair, language: Language) -> TokenisedPair:
    """A pair as token ids."""
    prompt = encode_prompt(pair.prompt, language)
    return TokenisedPair(
        pair.id, prompt, encode_response(pair.chosen, language), encode_response(pair.rejected, language)
    )


def encode_supervised(rows: Sequence[tuple[Prompt, str]], language: Language) -> list[TokenisedPair]:
    """Prompt and response rows for likelihood training: the rejected side is empty."""
    nothing = np.zeros(0, dtype=np.int32)
    return [
        TokenisedPair(str(i), encode_prompt(prompt.text, language), encode_response(text, language), nothing)
        for i, (prompt, text) in enumerate(rows)
    ]


def decode(ids: Iterable[int], language: Language) -> str:
    """Words up to the first `<eos>`; a response without one keeps all its words."""
    words = []
    for token in ids:
        if token == EOS:
            break
        words.append(language.vocabulary[token])
    return " ".join(words)
