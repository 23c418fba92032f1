"""The layout of a pair for training: one row `prompt | chosen | rejected`. NumPy only.

Both responses share one prompt, so a prompt is computed once. Token j is visible to token i where j <= i in row order
and `segment[j]` is 0 or `segment[i]`: each response sees the prompt and itself, never the other response. The
positions of the rejected response start again at the prompt's length, so every response token has the position and
the context that it would have in a plain row `prompt | response`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

PROMPT, CHOSEN, REJECTED, PAD = 0, 1, 2, -1


@dataclass(frozen=True, slots=True, eq=False)
class TokenisedPair:
    """Token ids of one pair, each `(n,)` int32: prompt with its first token `<bos>`, responses with `<eos>` unless cut.

    `rejected` is empty for rows that only have one response (supervised fine-tuning).
    """

    id: str
    prompt: NDArray[np.int32]
    chosen: NDArray[np.int32]
    rejected: NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class PairRows:
    """N packed rows of T tokens with R response tokens to predict (both responses together).

    Row layout: `ids` `(N, T)` int64, `pad_id` beyond the row; `segment` `(N, T)` int8, 0 prompt, 1 chosen,
    2 rejected, -1 padding; `position` `(N, T)` int64, 0 at padding.
    Predictions: response token `target` `(N, R)` int64 is predicted from the hidden state at row index `source`
    `(N, R)` int64, for the response `side` `(N, R)` int8 (1 chosen, 2 rejected, 0 padding; source and target are 0 and
    `pad_id` there). The first token of both responses is predicted from the last token of the prompt.
    `chosen_len`, `rejected_len` `(N,)` int64 count predicted tokens. Row n belongs to pair `pair_ids[n]`.
    """

    pair_ids: tuple[str, ...]
    ids: NDArray[np.int64]
    segment: NDArray[np.int8]
    position: NDArray[np.int64]
    source: NDArray[np.int64]
    target: NDArray[np.int64]
    side: NDArray[np.int8]
    chosen_len: NDArray[np.int64]
    rejected_len: NDArray[np.int64]


def response_key(prompt: ArrayLike, response: ArrayLike) -> str:
    """The identity of a response to a prompt: BLAKE2b-128 (32 hex digits) over both token sequences, each as its length
    (8 bytes) and its ids (4 bytes each), all little-endian."""
    digest = hashlib.blake2b(digest_size=16)
    for ids in (np.asarray(prompt, dtype="<i4"), np.asarray(response, dtype="<i4")):
        digest.update(len(ids).to_bytes(8, "little"))
        digest.update(ids.tobytes())
    return digest.hexdigest()


def token_key(prompt: ArrayLike, chosen: ArrayLike, rejected: ArrayLike) -> str:
    """The identity of a pair's token ids, 64 hex digits: `response_key` of the chosen side, then of the rejected.

    Two log-prob files with equal keys were scored on the same tokens: same texts, chat template, tokenizer and limit.
    """
    return response_key(prompt, chosen) + response_key(prompt, rejected)


def _lengths(parts: Sequence[NDArray[np.int32]]) -> NDArray[np.int64]:
    return np.fromiter((len(part) for part in parts), dtype=np.int64, count=len(parts))


def _width(needed: int, given: int | None, name: str) -> int:
    if given is not None and given < needed:
        raise ValueError(f"{name}={given} is too small: the longest row needs {needed}")
    return needed if given is None else given


def pack_rows(
    tokenised: Sequence[TokenisedPair], *, tokens: int | None = None, responses: int | None = None, pad_id: int = 0
) -> PairRows:
    """The rows of `tokenised`, in its order. T and R are the maxima over the set, or `tokens` and `responses`.

    Raises ValueError where a prompt or a chosen response is empty (nothing to predict from, or nothing to predict)
    and where `tokens` or `responses` is smaller than the set needs.
    """
    prompt_len = _lengths([pair.prompt for pair in tokenised])
    chosen_len = _lengths([pair.chosen for pair in tokenised])
    rejected_len = _lengths([pair.rejected for pair in tokenised])
    for name, lengths in (("prompt", prompt_len), ("chosen", chosen_len)):
        if (empty := np.flatnonzero(lengths == 0)).size:
            raise ValueError(f"pair {tokenised[empty[0]].id}: {name} has no tokens")

    response_len = chosen_len + rejected_len
    width = _width(int((prompt_len + response_len).max(initial=0)), tokens, "tokens")
    depth = _width(int(response_len.max(initial=0)), responses, "responses")
    p, c, r = prompt_len[:, None], chosen_len[:, None], response_len[:, None]

    # Every row is filled from the left without gaps, so one flat copy in row order fills the masked table.
    column = np.arange(width)[None, :]
    real = column < p + r
    ids = np.full((len(tokenised), width), pad_id, dtype=np.int64)
    if len(tokenised):
        ids[real] = np.concatenate([part for q in tokenised for part in (q.prompt, q.chosen, q.rejected)])
    segment = np.full(ids.shape, PAD, dtype=np.int8)
    segment[real] = REJECTED
    segment[column < p + c] = CHOSEN
    segment[column < p] = PROMPT
    position = np.where(real, np.where(segment == REJECTED, column - c, column), 0)

    # Response token k stands at row index p + k; its predictor is the token before it, or the prompt's last token.
    k = np.arange(depth)[None, :]
    response = k < r
    side = np.zeros((len(tokenised), depth), dtype=np.int8)
    side[response] = REJECTED
    side[k < c] = CHOSEN
    source = np.where(response, np.where((k == 0) | (k == c), p - 1, p + k - 1), 0)
    target = np.full(side.shape, pad_id, dtype=np.int64)
    target[response] = ids[segment > PROMPT]
    return PairRows(
        pair_ids=tuple(pair.id for pair in tokenised),
        ids=ids,
        segment=segment,
        position=position,
        source=source,
        target=target,
        side=side,
        chosen_len=chosen_len,
        rejected_len=rejected_len,
    )
