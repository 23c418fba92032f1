"""A tiny world for trainer tests: random weights, real MythWorld pairs, a stored reference. Nothing is pretrained."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from harness.data.mythworld import pairs as mythpairs
from harness.data.mythworld import tokens as mythtokens
from harness.data.mythworld import world as mythworld
from harness.data.mythworld.language import FIRST
from harness.data.order import batch_ids
from harness.data.rows import PairRows, TokenisedPair, pack_rows
from harness.inputs.encoded import EncodedPairs
from harness.models.architecture import Architecture, initial_weights
from harness.models.logps import Corpus, build_corpus
from harness.models.pack import EvalSet, Lane, Pack
from harness.models.reference_logps import pair_keys, score_responses
from harness.objectives.registry import resolve
from harness.types import TrainingSpec
from harness.worker.datasets import with_mismatches

CPU = torch.device("cpu")
ARCHITECTURE = Architecture(len(FIRST.vocabulary), 32, 1, 2, 64, 64)
PAIRS = 64


@lru_cache(maxsize=4)
def world(seed: int) -> tuple[torch.Tensor, list[TokenisedPair], tuple[np.ndarray, np.ndarray]]:
    """Weights `(P,)`, tokenised pairs and their reference log-probs."""
    weights = initial_weights(ARCHITECTURE, seed)
    pairs = [
        mythtokens.encode_pair(p, FIRST)
        for p in mythpairs.preference_pairs(mythworld.draw_world(seed, 1), "train", PAIRS)
    ]
    table = score_responses(ARCHITECTURE, weights, pairs, CPU)
    chosen, rejected = pair_keys(pairs)
    return weights, pairs, (table.sums(chosen), table.sums(rejected))


def rows(seed: int) -> PairRows:
    return pack_rows(world(seed)[1], tokens=32, responses=24)


def corpus(seeds: tuple[int, ...]) -> Corpus:
    blocks, mismatched = with_mismatches([EncodedPairs(rows(seed), world(seed)[2]) for seed in seeds])
    return build_corpus([b.rows for b in blocks], [b.reference for b in blocks], CPU, mismatched)


def lane(
    name: str,
    objective: str,
    given: dict[str, object],
    *,
    seed: int = 0,
    offset: int = 0,
    training: TrainingSpec | None = None,
    flip: float = 0.0,
) -> Lane:
    """A lane on the world of `seed`, whose rows begin at `offset` in the corpus; a share `flip` of labels is turned."""
    training = training or TrainingSpec(steps=12, batch_size=8, learning_rate=1e-3, warmup_steps=3)
    weights, pairs, _ = world(seed)
    order = torch.from_numpy(batch_ids([p.id for p in pairs], seed, training.steps, training.batch_size))
    flipped = torch.arange(PAIRS) < round(flip * PAIRS)
    split = EvalSet("eval_clean", tuple(p.id for p in pairs[:16]), torch.arange(16) + offset, torch.zeros(16).bool())
    return Lane(name, resolve(objective, given), training, weights, order + offset, flipped[order], (split,))


def pack(lanes: list[Lane], seeds: tuple[int, ...] = (0,), checkpoints: tuple[int, ...] = (0, 6, 12)) -> Pack:
    return Pack(ARCHITECTURE, corpus(seeds), tuple(lanes), checkpoints)
