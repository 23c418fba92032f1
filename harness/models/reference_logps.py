"""Scores of the reference model: log-probs per token and per response, looked up by their token ids.

A response is keyed by the token ids of its prompt and of itself (end-of-sequence included), never by its place in a
data set: every objective, beta, corruption level, seed and process that shares the reference shares one table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from harness.data.rows import CHOSEN, TokenisedPair, pack_rows, response_key
from harness.models.architecture import Architecture, skeleton
from harness.models.lane_model import LaneModel, build_lanes
from harness.models.logps import build_corpus, picked_logps, response_hidden
from harness.models.responses import Response, Scored, score

# Rows a forward of one width, in key order: a constant, so a stored value does not depend on what is beside it.
CHUNK = 64


@dataclass(frozen=True, eq=False)
class ReferenceTable:
    """Per-token reference log-probs (nats, fp32) by response key; `offsets[i]:offsets[i + 1]` are key i's tokens.

    `pairs` `(M, 2)` int64 are the scored pairs as positions in `keys`, `products` `(M, 3)` fp32 of their summed hidden
    states H (the last layer's at the positions that predict the response): <H_w, H_l>, |H_w|^2, |H_l|^2.
    """

    keys: tuple[str, ...]
    offsets: np.ndarray
    values: np.ndarray
    pairs: np.ndarray
    products: np.ndarray

    @cached_property
    def scored(self) -> dict[tuple[str, str], int]:
        """The scored pairs by the keys of their responses, and where their products stand."""
        return {(self.keys[one], self.keys[two]): row for row, (one, two) in enumerate(self.pairs.tolist())}

    def sums(self, keys: Sequence[str]) -> np.ndarray:
        """Summed log-probs `(n,)` float32. Raises KeyError for a response that was never scored (never 0.0)."""
        totals = np.add.reduceat(self.values, self.offsets[:-1], dtype=np.float64) if self.keys else np.zeros(0)
        table = dict(zip(self.keys, totals.tolist(), strict=True))
        return np.array([table[key] for key in keys], dtype=np.float32)

    def hidden_products(self, chosen: Sequence[str], rejected: Sequence[str]) -> np.ndarray:
        """The products `(n, 3)` float32 of these pairs. Raises KeyError for a pair that was never scored together."""
        rows = [self.scored[pair] for pair in zip(chosen, rejected, strict=True)]
        return self.products[np.array(rows, dtype=np.int64)]


def merged(one: ReferenceTable, other: ReferenceTable) -> ReferenceTable:
    """Both tables, of one reference, as one."""
    values = {key: values for table in (one, other) for key, values in _by_key(table)}
    keys = tuple(sorted(values))
    place = {key: row for row, key in enumerate(keys)}
    products = {pair: table.products[row] for table in (one, other) for pair, row in table.scored.items()}
    pairs = sorted(products)
    return ReferenceTable(
        keys,
        np.cumsum([0, *(len(values[key]) for key in keys)]).astype(np.int64),
        np.concatenate([values[key] for key in keys]),
        np.array([(place[chosen], place[rejected]) for chosen, rejected in pairs], dtype=np.int64),
        np.stack([products[pair] for pair in pairs]),
    )


def _by_key(table: ReferenceTable) -> Iterable[tuple[str, np.ndarray]]:
    return zip(table.keys, np.split(table.values, table.offsets[1:-1]), strict=True)


def pair_keys(pairs: Iterable[TokenisedPair]) -> tuple[list[str], list[str]]:
    """The response keys of the chosen and of the rejected side of each pair."""
    both = [(response_key(p.prompt, p.chosen), response_key(p.prompt, p.rejected)) for p in pairs]
    return [key for key, _ in both], [key for _, key in both]


def score_responses(
    architecture: Architecture,
    weights: torch.Tensor,
    pairs: Sequence[TokenisedPair],
    device: torch.device,
    ladder: bool = False,
) -> ReferenceTable:
    """Score every distinct response of `pairs` once under the weights `(P,)`; hidden products come of the same pass.

    With `ladder` in widths of each prompt and response (`models/responses.py`). Without, each row is one response with
    its prompt, as wide as the longest of `pairs`: for sources whose rows are all about as long.
    """
    wanted: dict[str, Response] = {}
    for pair in pairs:
        for response in (pair.chosen, pair.rejected):
            wanted.setdefault(response_key(pair.prompt, response), (pair.prompt, response))
    keys = tuple(sorted(wanted))
    model = build_lanes(skeleton(architecture), [weights], device)
    rows = [wanted[key] for key in keys]
    scored = score(model, [rows])[0] if ladder else list(_in_one_width(model, rows, device))
    values = [one.logps for one in scored]
    offsets = np.cumsum([0, *map(len, values)]).astype(np.int64)
    place = {key: row for row, key in enumerate(keys)}
    together = sorted({(place[one], place[two]) for one, two in zip(*pair_keys(pairs), strict=True)})
    index = np.array(together, dtype=np.int64).reshape(-1, 2)
    hidden = np.array([one.state for one in scored], dtype=np.float64).reshape(len(keys), -1)
    chosen, rejected = hidden[index[:, 0]], hidden[index[:, 1]]
    products = [(chosen * rejected).sum(-1), (chosen * chosen).sum(-1), (rejected * rejected).sum(-1)]
    return ReferenceTable(
        keys,
        offsets,
        np.concatenate(values) if values else np.zeros(0, np.float32),
        index,
        np.stack(products, -1).astype(np.float32),
    )


def _in_one_width(model: LaneModel, responses: Sequence[Response], device: torch.device) -> Iterable[Scored]:
    """The responses in rows as wide as the longest. The last chunk is filled up with copies of its last row."""
    nothing = np.zeros(0, dtype=np.int32)
    rows = [TokenisedPair("", prompt, response, nothing) for prompt, response in responses]
    tokens = max((len(row.prompt) + len(row.chosen) for row in rows), default=0)
    depth = max((len(row.chosen) for row in rows), default=0)
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        padded = part + [part[-1]] * (CHUNK - len(part))
        corpus = build_corpus([pack_rows(padded, tokens=tokens, responses=depth)], None, device)
        with torch.no_grad():
            hidden, target, side = response_hidden(model, corpus, torch.arange(CHUNK, device=device)[None])
            logps = picked_logps(model, hidden, target)
            summed = torch.where(side[..., None] == CHOSEN, hidden.float(), 0.0).sum(1)
        found = zip(logps.float().cpu().numpy(), summed.cpu().numpy(), strict=True)
        for row, (values, state) in zip(part, found, strict=False):
            yield Scored(values[: len(row.chosen)].copy(), state)
