"""What is watched of an RL run: each rollout under TRL's names, and the records of a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from harness.evaluation.heldout import evaluate
from harness.rlhf.algorithms import Rollout
from harness.rlhf.kl import sequence_kl
from harness.rlhf.lanes import RlTraining
from harness.rlhf.rollouts import Responses, read, roll_out
from harness.rlhf.scoring import gold, score
from harness.rlhf.tally import Tally
from harness.types import Record, Split

CURVE_PROMPTS = 128  # held-out prompts a checkpoint answers once each


def observed(rollout: Rollout, raw: Tensor, beta: Tensor, responses: Responses, lanes: Tensor) -> dict[str, Tensor]:
    """Means `(k,)` over one rollout of the lanes `lanes`. `raw` `(k, n)` are rewards before scale and penalties.

    TRL's names: `objective/kl` (sequence k1, nats), `objective/entropy` (summed surprisal of a response),
    `objective/non_score_reward` (the KL price), `objective/scores` (shaped), `objective/rlhf_reward` (their sum),
    `frac_reward_zero_std` (prompts whose samples all score alike, which teach nothing), `val/num_eos_tokens`. Ours:
    `rlhf/reward` (raw), `rlhf/beta`, `rlhf/response_length`.
    """
    kl = sequence_kl("k1", rollout.logps, rollout.reference, rollout.mask).mean(-1)
    scores = rollout.scores.mean(-1)
    groups = rollout.scores.view(len(scores), -1, rollout.k)
    alike = groups.amax(-1) == groups.amin(-1)
    price = -beta[:, 0] * kl
    return {
        "objective/kl": kl,
        "objective/entropy": -rollout.logps.sum(-1).mean(-1),
        "objective/non_score_reward": price,
        "objective/scores": scores,
        "objective/rlhf_reward": scores + price,
        "frac_reward_zero_std": alike.float().mean(-1),
        "val/num_eos_tokens": responses.flat("ended")[lanes].float().sum(-1),
        "rlhf/reward": raw.mean(-1),
        "rlhf/beta": beta[:, 0],
        "rlhf/response_length": responses.flat("lengths")[lanes].float().mean(-1),
    }


@torch.no_grad()
def curve(run: RlTraining) -> list[dict[str, float]]:
    """By lane, on held-out prompts: `rlhf/heldout_reward` (raw, what the run climbs), `rlhf/heldout_gold_reward` (what
    it is worth) and `rlhf/heldout_kl` (mean sequence k3, nats). A reward that goes on rising while gold falls is
    over-optimised. Every checkpoint uses the same prompts and random numbers.
    """
    rows = torch.stack([_heldout(run, lane) for lane in range(len(run.rl_lanes))]).to(run.model.flat.device)
    if not rows.shape[1]:
        return [{} for _ in run.rl_lanes]
    size = (rows.shape[1], run.sampling.depth)
    streams = [np.random.Generator(np.random.Philox([own.seed, 1])) for own in run.rl_lanes]
    uniforms = torch.from_numpy(np.stack([stream.random(size, dtype=np.float32) for stream in streams])).to(rows.device)
    prompts, real = (table[rows] for table in run.prompts)
    responses = roll_out(run.model, prompts, real, uniforms, k=1, eos=run.sampling.eos)
    reference = read(run.reference, responses).logps
    kl = sequence_kl("k3", responses.flat("logps"), reference, responses.flat("real"))
    means = {
        "rlhf/heldout_reward": score(run, responses, reference, rows).mean(-1).tolist(),
        "rlhf/heldout_gold_reward": gold(run, responses, rows).mean(-1).tolist(),
        "rlhf/heldout_kl": kl.mean(-1).tolist(),
    }
    return [
        {name: values[lane] for name, values in means.items() if math.isfinite(values[lane])}
        for lane in range(len(run.rl_lanes))
    ]


def _heldout(run: RlTraining, lane: int) -> Tensor:
    """The corpus rows of the first held-out pairs of a lane."""
    found = [part.rows for part in run.pack.lanes[lane].evals if part.split == Split.HELDOUT]
    return found[0][:CURVE_PROMPTS] if found else torch.zeros(0, dtype=torch.int64)


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
