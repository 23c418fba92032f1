"""Log-probs of pair rows: one forward scores both responses of every pair of every lane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from harness.data.rows import CHOSEN, PAD, PROMPT, REJECTED, PairRows
from harness.models import loss_inputs as extras
from harness.models.lane_model import LaneModel
from harness.models.shapes import rung
from harness.models.unpadded import Room, fits, hidden_tokens
from harness.types import PairLogps

# Logits of a lane that are held at once (fp32 numbers). Both bounds count one lane, so no bit depends on neighbours.
WHOLE = 2**26  # up to here all of a forward's; beyond, parts of PART, computed again in the backward pass
PART = 2**24


def picked_logps(model: LaneModel, hidden: Tensor, target: Tensor) -> Tensor:
    """Log-probs `(K * B, R)` of the tokens `target` `(K * B, R)` after hidden states `(K * B, R, d)`, fp32."""
    rows = hidden.shape[0] // model.lanes * int(model.model.config.vocab_size)
    if rows * hidden.shape[1] <= WHOLE:
        return _picked(model, hidden, target)
    width = max(PART // rows, 1)
    parts = zip(torch.split(hidden, width, 1), torch.split(target, width, 1), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([_picked(model, *part) for part in parts], 1)
    return torch.cat([checkpoint(_picked, model, *part, use_reentrant=False) for part in parts], 1)


def _picked(model: LaneModel, hidden: Tensor, target: Tensor) -> Tensor:
    # log_softmax works row by row, so a row's bits do not depend on the rows around it (logsumexp's do).
    return model.head(hidden).log_softmax(-1).gather(-1, target[..., None]).squeeze(-1)


@dataclass(frozen=True, slots=True)
class Corpus:
    """The pair rows that a pack reads, on its device; lanes refer to rows by index, so lanes can share or differ.

    `ids segment position` `(N, T)`, `source target side` `(N, R)` as in `data/rows.py`; `chosen_len rejected_len`
    `(N,)` float; `reference_chosen reference_rejected` `(N,)` stored reference log-probs in nats (zeros where the
    training has no reference, i.e. pretraining and SFT). `mismatched` `(N,)` names, for row n, the row that holds its
    prompt with another prompt's response (empty where no objective needs it).
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
    mismatched: Tensor


def build_corpus(
    rows: Sequence[PairRows],
    references: Sequence[tuple[np.ndarray, np.ndarray]] | None,
    device: torch.device,
    mismatched: np.ndarray | None = None,
) -> Corpus:
    """Stack sets of rows in the width of the widest; `references[i]` are the `(N_i,)` chosen and rejected log-probs of
    set i."""

    def join(name: str, dtype: torch.dtype, fill: int = 0) -> Tensor:
        parts = [getattr(part, name) for part in rows]
        width = max(part.shape[1] for part in parts)
        wide = [np.pad(part, ((0, 0), (0, width - part.shape[1])), constant_values=fill) for part in parts]
        return torch.from_numpy(np.concatenate(wide)).to(device, dtype)

    def lengths(name: str) -> Tensor:
        return torch.from_numpy(np.concatenate([getattr(part, name) for part in rows])).to(device, torch.float32)

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
        segment=join("segment", torch.int8, PAD),
        position=join("position", torch.int64),
        source=join("source", torch.int64),
        target=join("target", torch.int64),
        side=join("side", torch.int8),
        chosen_len=lengths("chosen_len"),
        rejected_len=lengths("rejected_len"),
        reference_chosen=chosen,
        reference_rejected=rejected,
        mismatched=torch.from_numpy(mismatched if mismatched is not None else np.zeros(0, np.int64)).to(device),
    )


@dataclass(frozen=True, slots=True)
class Widths:
    """Tokens of a row, and response tokens of it that are predicted."""

    tokens: int
    responses: int


def widths_of(corpus: Corpus, index: Tensor, mismatched: bool) -> list[Widths]:
    """The widths of the ladder that hold each of the batches `index` `(n, ...)`; `mismatched`: their foreign rows, too.

    No more than the corpus has. Waits for the device, once.
    """
    sizes = torch.stack([(corpus.segment != PAD).sum(1), (corpus.chosen_len + corpus.rejected_len).long()])
    if mismatched:
        sizes = torch.maximum(sizes, sizes[:, corpus.mismatched])
    most = sizes[:, index.flatten(1)].amax(-1).t().tolist()
    whole = corpus.ids.shape[1], corpus.target.shape[1]
    return [Widths(*(min(rung(size), limit) for size, limit in zip(one, whole, strict=True))) for one in most]


def narrowed(corpus: Corpus, widths: Widths) -> Corpus:
    """The corpus cut to rows of these widths, for those that are not longer."""
    tokens, responses = ("ids", "segment", "position"), ("source", "target", "side")
    parts = {name: getattr(corpus, name)[:, : widths.tokens] for name in tokens}
    return replace(corpus, **parts, **{name: getattr(corpus, name)[:, : widths.responses] for name in responses})


def attention_mask(segment: Tensor) -> Tensor:
    """Additive mask `(n, 1, T, T)` for segments `(n, T)`: a token sees the prompt and its own response up to itself."""
    width = segment.shape[1]
    own = segment[:, :, None] == segment[:, None, :]
    causal = torch.ones(width, width, dtype=torch.bool, device=segment.device).tril()
    visible = causal & (own | (segment[:, None, :] == PROMPT))
    return torch.zeros(visible.shape, device=segment.device).masked_fill_(~visible, float("-inf"))[:, None]


def response_hidden(model: LaneModel, corpus: Corpus, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Last hidden states `(n, R, d)` at the positions that predict a response token, with `target`, `side` `(n, R)`.

    `index` `(K, B)` names corpus rows; n = K * B. Only these positions go further: prompts and padding cost nothing.
    """
    flat = index.reshape(-1)
    source, target, side = corpus.source[flat], corpus.target[flat], corpus.side[flat]
    mask = attention_mask(corpus.segment[flat])
    return model.hidden_at(corpus.ids[flat], mask, corpus.position[flat], source), target, side


def next_token_logps(model: LaneModel, hidden: Tensor) -> Tensor:
    """Next-token log-probs `(n, R, V)` of hidden states `(n, R, d)`."""
    # log_softmax works row by row, so a row's bits do not depend on the rows around it (logsumexp's do).
    return model.head(hidden).log_softmax(-1)


def response_distributions(model: LaneModel, corpus: Corpus, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Next-token log-probs `(n, R, V)` at the positions that predict a response token, with `target`, `side` `(n, R)`.

    `index` `(K, B)` names corpus rows; n = K * B.
    """
    hidden, target, side = response_hidden(model, corpus, index)
    return next_token_logps(model, hidden), target, side


def response_logps(model: LaneModel, corpus: Corpus, index: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probs and sides `(K, B, R)` of every response token of the rows `index` `(K, B)`, fp32."""
    hidden, target, side = response_hidden(model, corpus, index)
    logps = picked_logps(model, hidden, target)
    return logps.view(*index.shape, -1), side.view(*index.shape, -1)


def pair_logps(model: LaneModel, corpus: Corpus, index: Tensor) -> PairLogps:
    """Summed log-probs of the pairs `index` `(K, B)` under each lane, every field `(K, B)`."""
    return _summed(corpus, index, *response_logps(model, corpus, index), {})


def _unpadded_logps(model: LaneModel, corpus: Corpus, index: Tensor, room: Room) -> tuple[Tensor, Tensor]:
    """What `response_logps` gives, computed from the real tokens alone."""
    flat, lanes = index.reshape(-1), index.shape[0]
    source, target, side = (part[flat] for part in (corpus.source, corpus.target, corpus.side))
    segment = corpus.segment[flat]
    width = segment.shape[1]
    missing = (side == PROMPT).view(lanes, -1)
    answers = torch.argsort(missing.to(torch.int8), dim=1, stable=True)[:, : room.responses]
    offset = torch.arange(index.shape[1], device=flat.device).repeat_interleave(side.shape[1]) * width
    places = (source.view(lanes, -1) + offset).gather(1, answers)
    hidden = hidden_tokens(
        model, corpus.ids[flat], attention_mask(segment), corpus.position[flat], places, segment, room.tokens
    )
    wanted = target.view(lanes, -1).gather(1, answers)
    logps = picked_logps(model, hidden, wanted)
    grid = torch.zeros(missing.shape, device=flat.device).scatter(1, answers, logps)
    return grid.view(*index.shape, -1), side.view(*index.shape, -1)


def pair_logps_with(
    model: LaneModel,
    reference: LaneModel | None,
    corpus: Corpus,
    index: Tensor,
    needs: frozenset[str],
    room: Room | None = None,
) -> tuple[PairLogps, PairLogps]:
    """Policy and reference log-probs `(K, B)` with the extras that objectives name in `needs`.

    `reference` is the live frozen model, required where a need is in `extras.LIVE`; summed reference log-probs come
    from the store all the same. With `room` the real tokens of the rows alone are computed, where nothing else is
    needed and the decoder allows it.
    """
    if room is not None and not needs and fits(model):
        read = _summed(corpus, index, *_unpadded_logps(model, corpus, index, room), {})
        return read, reference_logps(corpus, index)
    if not needs:
        return pair_logps(model, corpus, index), reference_logps(corpus, index)
    policy, target, side = response_distributions(model, corpus, index)
    live = None
    if reference is not None:
        with torch.no_grad():
            live, _, _ = response_distributions(reference, corpus, index)
    scored = extras.Scored(policy, live, target, side)
    own, others = extras.compute(needs, scored)
    if extras.MISMATCHED in needs:
        assert reference is not None
        elsewhere = corpus.mismatched[index]
        with torch.no_grad():  # the KL estimate of kto carries no gradient
            own[extras.MISMATCHED] = pair_logps(model, corpus, elsewhere).chosen.reshape(-1)
            others[extras.MISMATCHED] = pair_logps(reference, corpus, elsewhere).chosen.reshape(-1)
    picked = policy.gather(-1, target[..., None]).squeeze(-1)
    shape = index.shape
    summed = _summed(corpus, index, picked.view(*shape, -1), side.view(*shape, -1), _shaped(own, index))
    stored = reference_logps(corpus, index)
    return summed, replace(stored, extra=_shaped(others, index))


def _shaped(values: dict[str, Tensor], index: Tensor) -> dict[str, Tensor]:
    return {name: value.view(index.shape) for name, value in values.items()}


def _summed(corpus: Corpus, index: Tensor, logps: Tensor, side: Tensor, extra: dict[str, Tensor]) -> PairLogps:
    return PairLogps(
        chosen=torch.where(side == CHOSEN, logps, 0.0).sum(-1),
        rejected=torch.where(side == REJECTED, logps, 0.0).sum(-1),
        chosen_len=corpus.chosen_len[index],
        rejected_len=corpus.rejected_len[index],
        extra=extra,
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

    def swapped(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        return torch.where(flipped, second, first), torch.where(flipped, first, second)

    chosen, rejected = swapped(pairs.chosen, pairs.rejected)
    chosen_len, rejected_len = swapped(pairs.chosen_len, pairs.rejected_len)
    extra = dict(pairs.extra)
    for name in [name for name in extra if name.startswith("chosen_")]:
        other = "rejected_" + name.removeprefix("chosen_")
        extra[name], extra[other] = swapped(extra[name], extra[other])
    return PairLogps(chosen, rejected, chosen_len, rejected_len, extra)


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


def pair_rewards(model: LaneModel, corpus: Corpus, index: Tensor, per_nat: Tensor | None) -> PairLogps:
    """Rewards of both responses of the pairs `index` `(K, B)` by each lane's reward model, as `chosen` and `rejected`.

    They are the scores of scalar heads, or `per_nat` `(K, 1)` x log(model / reference).
    """
    if per_nat is None:
        return pair_scores(model, corpus, index)
    own, reference = pair_logps_with(model, None, corpus, index, frozenset())
    chosen, rejected = own.chosen - reference.chosen, own.rejected - reference.rejected
    return PairLogps(per_nat * chosen, per_nat * rejected, own.chosen_len, own.rejected_len)


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
