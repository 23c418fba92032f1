"""A lane does not see its neighbours: every function of rollouts on stacked lanes gives each lane what it gives alone.

On tensors of one lane after another the CPU gives the same bits; where a vectorised exp meets its scalar tail the last
bits may differ, so bits are asked of what only adds, multiplies and compares, 1e-6 of the rest.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch

from harness.objectives import OBJECTIVES
from harness.rlhf import advantage, kl
from harness.rlhf import losses as policy_loss
from harness.rlhf import losses as value_loss
from harness.rlhf import rewards as shaping
from harness.rlhf.algorithms import Forward, Minibatch, Rollout, minibatch
from harness.rlhf.best_of_n import select, shares
from harness.rlhf.constrained import constraint, constraint_scale, lagrangian_loss, multiplier_step, violation, visit
from harness.rlhf.online_dpo import fresh_pairs
from harness.rlhf.registry import ALGORITHMS
from harness.types import PairLogps

K, N, T, SAMPLES = 3, 12, 7, 4


def drawn(dtype=torch.float32):
    draw = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype)

    lengths = torch.randint(0, T + 1, (K, N), generator=draw)  # empty responses too
    return {
        "logps": -normal(K, N, T).abs(), "old": -normal(K, N, T).abs(), "reference": -normal(K, N, T).abs(),
        "mask": torch.arange(T) < lengths[..., None], "lengths": lengths, "finished": lengths < T,
        "scores": normal(K, N), "values": normal(K, N, T), "returns": normal(K, N, T), "tokens": normal(K, N, T),
        "responses": normal(K, N), "column": normal(K, 1).abs() + 0.1,
        "share": torch.rand(K, 1, generator=draw).to(dtype),
        # two of the three prompts, in an order of the lane's own
        "rows": torch.tensor([[8, 9, 10, 11, 0, 1, 2, 3], [4, 5, 6, 7, 8, 9, 10, 11], [0, 1, 2, 3, 4, 5, 6, 7]]),
    }  # fmt: skip


# Every function with its arguments by name: those of a lane are the lane's rows of them.
FUNCTIONS = {
    **{
        f"{what.__name__} {name}": lambda d, what=what, name=name: what(name, d["logps"], d["reference"], d["mask"])
        for what in (kl.token_kl, kl.sequence_kl)
        for name in kl.ESTIMATORS
    },
    **{
        f"next_beta {name}": lambda d, name=name: kl.next_beta(
            name, d["column"], d["share"], d["column"] * 7, 0.3, target=d["column"], gain=d["share"], end=d["share"]
        )
        for name in ("fixed", "adaptive", "linear", "cosine")
    },
    "reward_scale": lambda d: shaping.reward_scale(d["scores"]),
    "shaped": lambda d: shaping.shaped(
        d["scores"], d["lengths"], d["finished"], scale=d["column"], clip=d["share"],
        missing_eos_penalty=d["column"], length_penalty=d["share"],
    ),
    "last_token": lambda d: shaping.last_token(d["mask"]),
    "token_rewards": lambda d: shaping.token_rewards(d["scores"], d["tokens"], d["mask"], d["column"]),
    "sequence_rewards": lambda d: shaping.sequence_rewards(d["scores"], d["responses"], d["column"]),
    "gae": lambda d: advantage.gae(d["tokens"], d["values"], d["mask"], d["share"], d["share"].sqrt()),
    "whiten": lambda d: advantage.whiten(d["tokens"], d["mask"]),
    "whiten, mean kept": lambda d: advantage.whiten(d["tokens"], d["mask"], shift=False),
    "masked_mean": lambda d: advantage.masked_mean(d["tokens"], d["mask"]),
    "rloo": lambda d: advantage.rloo(d["scores"], SAMPLES),
    "grpo": lambda d: advantage.grpo(d["scores"], SAMPLES),
    "dr grpo": lambda d: advantage.grpo(d["scores"], SAMPLES, scale=False),
    "against_batch": lambda d: advantage.against_batch(d["scores"]),
    "against_running": lambda d: advantage.against_running(d["scores"], d["column"], d["share"]),
    "clipped": lambda d: policy_loss.clipped(d["logps"], d["old"], d["tokens"], d["mask"], d["share"]),
    "sequence_reinforce": lambda d: policy_loss.sequence_reinforce(d["logps"], d["responses"], d["mask"]),
    "sequence_clipped": lambda d: policy_loss.sequence_clipped(
        d["logps"], d["old"], d["responses"], d["mask"], d["share"]
    ),
    **{
        f"grpo loss, {name}": lambda d, name=name: policy_loss.grpo(
            d["logps"], d["old"], d["responses"], d["mask"], d["share"], name, d["reference"], d["column"]
        )
        for name in ("token", "sequence", "constant")
    },
    "entropy_bonus": lambda d: policy_loss.entropy_bonus(d["tokens"], d["mask"]),
    "value loss": lambda d: value_loss.clipped_value_loss(d["values"], d["old"], d["returns"], d["mask"], d["share"]),
    "explained_variance": lambda d: value_loss.explained_variance(d["values"], d["returns"], d["mask"]),
    "constraint": lambda d: constraint(d["scores"], d["responses"], d["column"]),
    "constraint_scale": lambda d: constraint_scale(d["scores"], d["responses"], d["column"]),
    "lagrangian": lambda d: lagrangian_loss(
        d["scores"], d["responses"], d["responses"].abs(), d["column"], d["scores"]
    ),
    "violation": lambda d: violation(d["scores"], d["responses"], d["column"]),
    "multiplier_step": lambda d: multiplier_step(d["scores"].abs(), d["responses"], d["column"]),
    "visit": lambda d: visit(
        PairLogps(-d["scores"].abs(), -d["responses"].abs(), d["scores"], d["scores"]),
        PairLogps(-d["responses"].abs(), -d["scores"].abs() - 1, d["scores"], d["scores"]),
        d["scores"].abs(), beta=d["column"], margin=d["share"],
    ),
    "select": lambda d: select(d["scores"], SAMPLES),
    "shares": lambda d: shares(d["scores"].round(), SAMPLES),
    "best and worst": lambda d: fresh_pairs(d["scores"].round(), SAMPLES),
    "neighbours": lambda d: fresh_pairs(d["scores"].round(), SAMPLES, "adjacent"),
}  # fmt: skip
# These take an exponential.
ROUNDED = {
    "token_kl k3", "sequence_kl k3", "constraint", "constraint_scale", "lagrangian", "visit", "clipped",
    "sequence_clipped", "grpo loss, token", "grpo loss, sequence", "grpo loss, constant",
}  # fmt: skip


def leaves(found):
    """The tensors of a result."""
    if isinstance(found, torch.Tensor):
        return [found]
    if dataclasses.is_dataclass(found):
        found = [getattr(found, field.name) for field in dataclasses.fields(found)]
    if isinstance(found, dict):
        found = list(found.values())
    return [x for part in found or () for x in leaves(part)]


def lane_by_lane(function, data, exact):
    stacked = leaves(function(data))
    for lane in range(K):
        alone = leaves(function({name: value[lane : lane + 1] for name, value in data.items()}))
        assert len(alone) == len(stacked) > 0
        for both, own in zip(stacked, alone, strict=True):
            assert both.shape[0] == K and own.shape[0] == 1
            if exact:
                assert torch.equal(both[lane : lane + 1], own)
            else:
                torch.testing.assert_close(both[lane : lane + 1], own, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_lane_does_not_see_its_neighbours(name):
    lane_by_lane(FUNCTIONS[name], drawn(), exact=name not in ROUNDED)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_lane_that_diverged_leaves_the_others_alone(name):
    """NaN in everything of lane 0 that is a number: lanes 1 and 2 keep their bits."""
    data, broken = drawn(), drawn()
    for value in broken.values():
        if value.is_floating_point():
            value[0] = torch.nan
    for clean, other in zip(leaves(FUNCTIONS[name](data)), leaves(FUNCTIONS[name](broken)), strict=True):
        assert torch.equal(clean[1:], other[1:])


CHOICES = {
    "reinforce": [{"baseline": "batch"}, {"baseline": "running"}, {"baseline": "none", "whiten": True}],
    "grpo": [{"kl_in": "loss"}, {"kl_in": "reward", "scale_rewards": "none", "average": "constant"}],
    "online_dpo": [{"pairing": "best_worst"}, {"pairing": "adjacent"}],
    "ppo": [{"whiten": True}, {"whiten": False, "kl_estimator": "k3"}],
}


@pytest.mark.parametrize(
    ("name", "choice"), [(name, choice) for name in ALGORITHMS for choice in CHOICES.get(name, [{}])], ids=str
)
def test_whole_algorithms_lane_by_lane(name, choice):
    """Targets of a rollout, a minibatch of it, the loss and its gradient, with every number a column of its own."""
    row = OBJECTIVES[name]
    numbers = [
        key for key, p in row.hyperparameters.items() if p.kind == "float" and p.default is not None and key != "beta"
    ]

    def whole(d):
        hp = {key: p.default for key, p in row.hyperparameters.items() if key != "beta"} | choice
        hp |= dict.fromkeys(numbers, d["share"] * 0.9 + 0.01)
        state = {"baseline": d["column"]} if "baseline" in row.state else None
        values = d["values"] if ALGORITHMS[name].needs_values else None
        rollout = Rollout(d["old"], d["reference"], d["mask"], d["scores"], SAMPLES, values)
        targets = ALGORITHMS[name].targets(rollout, d["column"], state, **hp)
        batch = minibatch(rollout, targets, d["rows"])
        assert isinstance(batch, Minibatch)
        policy = d["logps"].gather(1, d["rows"][..., None].expand(-1, -1, T)).clone().requires_grad_()
        now = Forward(policy, d["returns"][:, :8], d["tokens"][:, :8].abs())
        found = ALGORITHMS[name].loss(now, batch, beta=d["column"], k=SAMPLES, **hp)
        (slope,) = torch.autograd.grad(found.loss.sum(), policy)
        kept = {key: value.detach() for key, value in found.statistics.items()}
        return [targets, batch, found.loss.detach(), kept, slope]

    lane_by_lane(whole, drawn(), exact=False)
