"""Held-out pairs sorted into rows of fixed widths for scoring, so that no pair changes the bits of another."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import torch
from torch import Tensor

from harness.data.rows import CHOSEN, PROMPT, REJECTED
from harness.models.lane_model import LaneModel
from harness.models.logps import Corpus, narrowed, read_pairs, reference_logps, widths_of
from harness.models.loss_inputs import MISMATCHED
from harness.models.pack import joined
from harness.models.responses import score, summed
from harness.models.shapes import rows_at_once
from harness.types import PairLogps


def read_responses(model: LaneModel, corpus: Corpus, index: Tensor) -> PairLogps:
    """Summed log-probs of the pairs `index` `(K, n)`, in the shapes and with the bits of the stored reference."""
    lanes = index.tolist()
    rows = sorted({row for own in lanes for row in own})
    at = torch.tensor(rows, device=index.device)
    ids, segment = (part[at].cpu().numpy() for part in (corpus.ids, corpus.segment))
    texts = {
        row: {part: words[kinds == part].astype(np.int32) for part in (PROMPT, CHOSEN, REJECTED)}
        for row, words, kinds in zip(rows, ids, segment, strict=True)
    }
    wanted = [[(texts[row][PROMPT], texts[row][side]) for side in (CHOSEN, REJECTED) for row in own] for own in lanes]
    found = np.stack([summed([one.logps for one in own]) for own in score(model, wanted)])
    chosen, rejected = torch.from_numpy(found).to(index.device).chunk(2, 1)
    stored = reference_logps(corpus, index)
    return PairLogps(chosen, rejected, stored.chosen_len, stored.rejected_len)


def read_rows(
    model: LaneModel,
    live: LaneModel | None,
    corpus: Corpus,
    index: Tensor,
    needs: frozenset[str],
    scores: bool,
) -> tuple[PairLogps, PairLogps]:
    """What `read_pairs` says of the pairs `index` `(K, n)`, whole rows of one width at a time, each row once."""
    lanes = index.tolist()
    every = torch.arange(len(corpus.ids), device=index.device)[:, None]
    widths = widths_of(corpus, every, MISMATCHED in needs)
    places: list[dict[int, int]] = [{} for _ in lanes]
    found: list[tuple[PairLogps, PairLogps]] = []
    total = 0
    for width in sorted({widths[row] for own in lanes for row in own}, key=astuple):
        alike = [sorted({row for row in own if widths[row] == width}) for own in lanes]
        [filler, *_] = (row for own in alike for row in own)
        size, part = rows_at_once(model, width.tokens), narrowed(corpus, width)
        for start in range(0, max(map(len, alike)), size):
            chunk = [own[start : start + size] for own in alike]
            rows = torch.tensor([own + [filler] * (size - len(own)) for own in chunk], device=index.device)
            found.append(read_pairs(model, live, part, rows, needs, scores))
            for place, own in zip(places, chunk, strict=True):
                place |= {row: total + at for at, row in enumerate(own)}
            total += size
    order = [[place[row] for row in own] for place, own in zip(places, lanes, strict=True)]
    at = torch.tensor(order, device=index.device)
    policy, reference = (joined(parts) for parts in zip(*found, strict=True))
    return _gathered(policy, at), _gathered(reference, at)


def _gathered(pairs: PairLogps, at: Tensor) -> PairLogps:
    """The columns `at` `(K, n)` of log-probs `(K, m)`."""
    return PairLogps(
        pairs.chosen.gather(1, at),
        pairs.rejected.gather(1, at),
        pairs.chosen_len.gather(1, at),
        pairs.rejected_len.gather(1, at),
        {name: value.gather(1, at) for name, value in pairs.extra.items()},
    )
