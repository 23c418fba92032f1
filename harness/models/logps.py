"""Log-probs of pair rows: one forward scores both responses of every pair of every lane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from harness.data.rows import CHOSEN, PROMPT, REJECTED, PairRows
from harness.models.pack import LaneModel
from harness.types import PairLogps


@dataclass(frozen=True, slots=True)
class Corpus:
    """The pair rows that a pack reads, on its device; lanes refer to rows by index, so lanes can share or differ.

    `ids segment position` `(N, T)`, `source target side` `(N, R)` as in `data/rows.py`; `chosen_len rejected_len`
    `(N,)` float; `reference_chosen reference_rejected` `(N,)` stored reference log-probs in nats (zeros where the
    training has no reference, i.e. pretraining and SFT).
    """

    ids: Tensor
    segment: Tensor
    position: Tensor
    source: Tensor
    target: Tensor
    side: Tensor
    chosen_len: Tensor
    rejected_len: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor


def build_corpus(
    rows: Sequence[PairRows],
    references: Sequence[tuple[np.ndarray, np.ndarray]] | None,
    device: torch.device,
) -> Corpus:
    """Stack sets of rows of equal width; `references[i]` are the `(N_i,)` chosen and rejected log-probs of set i."""

    def join(name: str, dtype: torch.dtype) -> Tensor:
        return torch.from_numpy(np.concatenate([getattr(part, name) for part in rows])).to(device, dtype)

    count = sum(len(part.pair_ids) for part in rows)
    if references is None:
        chosen = rejected = torch.zeros(count, device=device)
    else:
        chosen, rejected = (
            torch.from_numpy(np.concatenate([pair[side] for pair in references])).to(device, torch.float32)
            for side in (0, 1)
        )
    return Corpus(
        ids=join("ids", torch.int64),
        segment=join("segment", torch.int8),
        position=join("position", torch.int64),
        source=join("source", torch.int64),
        target=join("target", torch.int64),
        side=join("side", torch.int8),
        chosen_len=join("chosen_len", torch.float32),
        rejected_len=join("rejected_len", torch.float32),
        reference_chosen=chosen,
        reference_rejected=rejected,
    )


def attention_mask(segment: Tensor) -> Tensor:
    """Additive mask `(n, 1, T, T)` for segments `(n, T)`: a token sees the prompt and its own response up to itself."""
    width = segment.shape[1]
    own = segment[:, :, None] == segment[:, None, :]
    causal = torch.ones(width, width, dtype=torch.bool, device=segment.device).tril()
    visible = causal & (own | (segment[:, None, :] == PROMPT))
    return torch.zeros(visible.shape, device=segment.device).masked_fill_(~visible, float("-inf"))[:, None]


def response_logps(model: LaneModel, corpus: Corpus, index: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probs and sides `(K, B, R)` of every response token of the rows `index` `(K, B)`, fp32."""
    lanes, batch = index.shape
    flat = index.reshape(-1)
    segment = corpus.segment[flat]
    source, target, side = corpus.source[flat], corpus.target[flat], corpus.side[flat]
    # Only positions that predict a response token reach the head: prompts and padding cost nothing there.
    logits = model.head(model.hidden_at(corpus.ids[flat], attention_mask(segment), corpus.position[flat], source))
    # log_softmax works row by row, so a row's bits do not depend on the rows around it (logsumexp's do).
    logps = logits.log_softmax(-1).gather(-1, target[..., None]).squeeze(-1)
    return logps.view(lanes, batch, -1), side.view(lanes, batch, -1)


def pair_logps(model: LaneModel, corpus: Corpus, index: Tensor) -> PairLogps:
    """Summed log-probs of the pairs `index` `(K, B)` under each lane, every field `(K, B)`."""
    logps, side = response_logps(model, corpus, index)
    return PairLogps(
        chosen=torch.where(side == CHOSEN, logps, 0.0).sum(-1),
        rejected=torch.where(side == REJECTED, logps, 0.0).sum(-1),
        chosen_len=corpus.chosen_len[index],
        rejected_len=corpus.rejected_len[index],
    )


def reference_logps(corpus: Corpus, index: Tensor) -> PairLogps:
    """The stored reference log-probs of the pairs `index` `(K, B)`."""
    return PairLogps(
        chosen=corpus.reference_chosen[index],
        rejected=corpus.reference_rejected[index],
        chosen_len=corpus.chosen_len[index],
        rejected_len=corpus.rejected_len[index],
    )


def oriented(pairs: PairLogps, flipped: Tensor) -> PairLogps:
    """The pairs as labelled: where `flipped` `(K, B)` the two responses change places. A flip costs no forward pass."""
    return PairLogps(
        chosen=torch.where(flipped, pairs.rejected, pairs.chosen),
        rejected=torch.where(flipped, pairs.chosen, pairs.rejected),
        chosen_len=torch.where(flipped, pairs.rejected_len, pairs.chosen_len),
        rejected_len=torch.where(flipped, pairs.chosen_len, pairs.rejected_len),
        extra=pairs.extra,
    )


def corpus_bytes(corpus: Corpus) -> int:
    """Memory of a corpus in bytes."""
    return sum(getattr(corpus, f.name).nbytes for f in fields(corpus))
