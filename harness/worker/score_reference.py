"""A share of the reference's scores, before any pack trains: all workers score, none waits for another."""

from __future__ import annotations

import time
from collections.abc import Iterator

from harness.data.rows import TokenisedPair
from harness.inputs.encoded import EncodedPairs
from harness.inputs.reference_cache import add, scorer, unscored
from harness.models.reference_logps import ReferenceTable, merged, pair_keys, score_responses
from harness.worker.datasets import training_set
from harness.worker.lanes import rows_read
from harness.worker.prepare import Worker, encoded_inputs
from harness.worker.protocol import Scored, ScoreTask
from harness.worker.trainers import as_trained

PAIRS = 32  # scored between two events
SAVE_SECONDS = 30.0  # of work that a killed worker loses


def score_share(task: ScoreTask, worker: Worker) -> Iterator[Scored]:
    """Score the task's share of what its runs read, and add it to the reference's table as it grows."""
    cache = worker.config.cache
    inputs = encoded_inputs(task.runs[0], worker, check=False).inputs
    wanted = sorted(_pairs(task, worker).items(), key=lambda item: (item[1].prompt.tobytes(), item[0]))
    share = slice(len(wanted) * task.share // task.shares, len(wanted) * (task.share + 1) // task.shares)
    missing = unscored(cache, inputs, [pair for _, pair in wanted[share]])
    total, done, frozen = 2 * len(missing), 0, inputs.reference
    yield Scored(task.number, 0, total)
    fresh: ReferenceTable | None = None
    saved_at = time.monotonic()
    for start in range(0, len(missing), PAIRS):
        part = missing[start : start + PAIRS]
        table = score_responses(frozen.architecture, frozen.weights, part, worker.device, inputs.ladder)
        fresh = table if fresh is None else merged(fresh, table)
        done += 2 * len(part)
        if start + PAIRS >= len(missing) or time.monotonic() - saved_at > SAVE_SECONDS:
            add(cache, inputs, fresh)
            fresh, saved_at = None, time.monotonic()
        yield Scored(task.number, done, total)


def _pairs(task: ScoreTask, worker: Worker) -> dict[tuple[str, str], TokenisedPair]:
    """The pairs that the task's runs read, by their responses' keys."""
    found: dict[tuple[str, str], TokenisedPair] = {}
    for run in task.runs:
        encoded = encoded_inputs(run, worker, check=False)
        parts: list[tuple[EncodedPairs, list[int]]] = [(encoded.pairs, list(range(len(encoded.pairs.tokenised))))]
        if not task.all_pairs:
            data = training_set(encoded, run.corruption, run.seed, scorer(worker.config.cache, worker.device))
            parts = list(rows_read(as_trained(run), encoded, data))
        for part, rows in parts:
            read = [part.tokenised[row] for row in rows]
            found |= {(one, two): pair for one, two, pair in zip(*pair_keys(read), read, strict=True)}
    return found
