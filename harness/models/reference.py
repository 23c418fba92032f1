"""The reference is data: its log-probs are stored per token and per response, so a flip costs no forward pass.

A response is keyed by the token ids of its prompt and of itself (end-of-sequence included), never by its place in a
data set: every objective, beta, corruption level, seed and process that shares the reference shares one table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from harness.data.rows import TokenisedPair, pack_rows
from harness.models.load import Architecture, skeleton
from harness.models.logps import build_corpus, response_logps
from harness.models.pack import LaneModel, build_lanes

# Rows a forward, in key order: a constant, so a stored value does not depend on what was scored beside it.
CHUNK = 64


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceTable:
    """Per-token reference log-probs (nats, fp32) by response key; `offsets[i]:offsets[i + 1]` are key i's tokens."""

    keys: tuple[str, ...]
    offsets: np.ndarray
    values: np.ndarray

    def sums(self, keys: Sequence[str]) -> np.ndarray:
        """Summed log-probs `(n,)` float32. Raises KeyError for a response that was never scored (never 0.0)."""
        totals = np.add.reduceat(self.values, self.offsets[:-1], dtype=np.float64) if self.keys else np.zeros(0)
        table = dict(zip(self.keys, totals.tolist(), strict=True))
        return np.array([table[key] for key in keys], dtype=np.float32)


def response_key(prompt: np.ndarray, response: np.ndarray) -> str:
    """The identity of a response to a prompt: a hash of both token sequences with their lengths."""
    digest = hashlib.blake2b(digest_size=16)
    for ids in (prompt, response):
        digest.update(len(ids).to_bytes(8, "little"))
        digest.update(np.asarray(ids, dtype="<i4").tobytes())
    return digest.hexdigest()


def pair_keys(pairs: Iterable[TokenisedPair]) -> tuple[list[str], list[str]]:
    """The response keys of the chosen and of the rejected side of each pair."""
    both = [(response_key(p.prompt, p.chosen), response_key(p.prompt, p.rejected)) for p in pairs]
    return [key for key, _ in both], [key for _, key in both]


def score_responses(
    architecture: Architecture, weights: torch.Tensor, pairs: Sequence[TokenisedPair], device: torch.device
) -> ReferenceTable:
    """Score every distinct response of `pairs` once under the weights `(P,)`.

    The widths of the scored rows are the longest prompt and response of `pairs`; each row is one response.
    """
    nothing = np.zeros(0, dtype=np.int32)
    wanted: dict[str, TokenisedPair] = {}
    for pair in pairs:
        for response in (pair.chosen, pair.rejected):
            key = response_key(pair.prompt, response)
            wanted.setdefault(key, TokenisedPair(key, pair.prompt, response, nothing))
    keys = tuple(sorted(wanted))
    model = build_lanes(skeleton(architecture), [weights], device)
    values = list(_token_logps(model, [wanted[key] for key in keys], device))
    offsets = np.cumsum([0, *map(len, values)]).astype(np.int64)
    return ReferenceTable(keys, offsets, np.concatenate(values) if values else np.zeros(0, np.float32))


def _token_logps(model: LaneModel, rows: Sequence[TokenisedPair], device: torch.device) -> Iterable[np.ndarray]:
    """Per-token log-probs of each row's response, in order. The last chunk is filled up with copies of its last row."""
    tokens = max((len(row.prompt) + len(row.chosen) for row in rows), default=0)
    depth = max((len(row.chosen) for row in rows), default=0)
    for start in range(0, len(rows), CHUNK):
        part = list(rows[start : start + CHUNK])
        padded = part + [part[-1]] * (CHUNK - len(part))
        corpus = build_corpus([pack_rows(padded, tokens=tokens, responses=depth)], None, device)
        with torch.no_grad():
            logps, _ = response_logps(model, corpus, torch.arange(CHUNK, device=device)[None])
        for row, values in zip(part, logps[0].float().cpu().numpy(), strict=False):
            yield values[: len(row.chosen)].copy()
