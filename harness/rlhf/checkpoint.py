"""The records of an RL run at a checkpoint: log-probs on the fixed pairs, and what was watched on the way there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from harness.evaluation.heldout import evaluate
from harness.rlhf.lanes import RlTraining
from harness.rlhf.tally import Tally
from harness.rlhf.watch import curve
from harness.types import Record


def records(run: RlTraining, step: int, tally: Tally) -> Iterator[Record]:
    """One record for every lane and split; the first of each lane carries the means of `tally` and the curve."""
    watched = tally.read()
    drawn = curve(run)
    for lane, values in enumerate(drawn):
        watched[lane] |= values | {"rlhf/generated_tokens": float(run.generated)}
    betas = run.start_beta[:, 0].tolist()
    number = {lane.key: i for i, lane in enumerate(run.pack.lanes)}
    for record in evaluate(run.pack, run.model, None, (), step):
        lane = number[record.run_key]
        columns = dict(record.columns)
        for side in ("chosen", "rejected"):
            moved = columns[f"policy_{side}"] - columns[f"reference_{side}"]
            columns[f"{side}_reward"] = (betas[lane] * moved).astype(np.float32)
        scalars, watched[lane] = watched[lane], {}
        yield replace(record, columns=columns, scalars=scalars)
