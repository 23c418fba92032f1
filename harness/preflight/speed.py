"""How fast this machine trains a model: some steps on the data's first pairs, timed."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from harness.data.rows import TokenisedPair, pack_rows
from harness.models.architecture import Architecture
from harness.models.logps import build_corpus
from harness.models.pack import Lane, Pack
from harness.objectives.registry import resolve
from harness.training.loop import start, tokens_by_update, train
from harness.training.timing import now
from harness.types import TrainingSpec

PAIRS = 4  # of a step: what is measured per flop hardly depends on it
STEPS = 200  # at most


def training_rate(
    architecture: Architecture,
    weights: Tensor,
    pairs: Sequence[TokenisedPair],
    device: torch.device,
    seconds: float = 8.0,
) -> tuple[float, int]:
    """Flops per second of a core (or a GPU) in training, and the weights that a forward pass reads.

    Steps after the first are counted until `seconds` are over, at least one. On a CPU by the time of one thread, which
    other load does not stretch.
    """
    own = list(pairs[:PAIRS])
    training = TrainingSpec(steps=STEPS, batch_size=len(own), warmup_steps=0)
    corpus = build_corpus([pack_rows(own)], None, device)
    batches = torch.arange(len(own)).expand(STEPS, -1)
    lane = Lane("speed", resolve("dpo", {}), training, weights, batches, torch.zeros_like(batches).bool())
    pack = Pack(architecture, corpus, (lane,), ladder=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run = start(pack, device)
        list(train(run, until=1))
        began, end, done = now(), time.monotonic() + seconds, 1
        while done < STEPS and (done == 1 or time.monotonic() < end):
            done += 1
            list(train(run, until=done))
        spent = now() - began
    finally:
        torch.set_num_threads(threads)
    trained, frozen = run.model.trained, run.model.frozen
    tokens = tokens_by_update(pack, lane, run.model)[0] * (done - 1)
    return tokens * (4 * (trained + frozen) + 2 * trained) / spent, trained + frozen
