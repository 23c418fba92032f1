"""What a model says of pairs: summed log-probs of a policy, or scores of a reward model in their place."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.data.rows import PROMPT
from harness.models.logps import Corpus, attention_mask, pair_logps_with
from harness.models.pack import LaneModel
from harness.models.unpadded import Room
from harness.types import PairLogps


def pair_scores(model: LaneModel, corpus: Corpus, index: Tensor) -> PairLogps:
    """Scores of both responses of the pairs `index` `(K, B)` by each lane's scalar head, as `chosen` and `rejected`.

    A response is scored at its last token (end-of-sequence, unless it was cut), having read prompt and response.
    """
    flat = index.reshape(-1)
    segment = corpus.segment[flat]
    chosen_len, rejected_len = corpus.chosen_len[index], corpus.rejected_len[index]
    prompt_len = (segment == PROMPT).sum(-1)
    last = prompt_len + chosen_len.view(-1).long() - 1
    ends = torch.stack([last, last + rejected_len.view(-1).long()], -1)
    scores = model.score(model.hidden_at(corpus.ids[flat], attention_mask(segment), corpus.position[flat], ends))
    chosen, rejected = (side.view(index.shape) for side in scores.unbind(-1))
    return PairLogps(chosen, rejected, chosen_len, rejected_len)


def read_pairs(
    model: LaneModel,
    reference: LaneModel | None,
    corpus: Corpus,
    index: Tensor,
    needs: frozenset[str],
    scores: bool,
    room: Room | None = None,
) -> tuple[PairLogps, PairLogps]:
    """Policy and reference on the pairs `index` `(K, B)`; with `scores` a reward model, whose reference is zero.

    `room`: see `pair_logps_with`.
    """

    def read(part: Tensor) -> tuple[PairLogps, PairLogps]:
        if not scores:
            return pair_logps_with(model, reference, corpus, part, needs, room)
        own = pair_scores(model, corpus, part)
        nothing = torch.zeros_like(own.chosen)
        return own, PairLogps(nothing, nothing, own.chosen_len, own.rejected_len)

    return model.spread(index, read)
