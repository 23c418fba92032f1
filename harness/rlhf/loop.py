"""The RL loop: a generator of records, as the trainer of given pairs is. It logs nothing and calls nobody back.

An iteration samples k responses to each prompt of the lane's batch, scores them by reward and reference, turns that
into targets once, and takes `epochs` x `minibatches` steps on it. All lanes step together; losses, clipping, Adam and
the finite check act lane by lane. Prompts come in the order in which preference training sees its pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.models.pack import LaneGroup
from harness.rlhf import algorithms
from harness.rlhf.algorithms import Forward, Rollout, Targets
from harness.rlhf.constrained import pair_terms, stacked_pairs
from harness.rlhf.kl import next_beta
from harness.rlhf.lanes import RlTraining, Timetable, algorithm, draw, needs_values
from harness.rlhf.monitoring import observed, records
from harness.rlhf.rewards import shaped
from harness.rlhf.rollouts import Responses, read, roll_out
from harness.rlhf.scoring import score
from harness.training.optim import adamw_step, bias_corrections, clip, learning_rate
from harness.types import Record

SHAPING = ("missing_eos_penalty", "length_penalty")


def train(run: RlTraining, until: int | None = None) -> Iterator[Record]:
    """Train every lane to its last iteration, yielding the records of each checkpoint in order of step and lane.

    Records hold log-probs of policy and reference on the lane's evaluation sets, and as rewards beta times the
    log-ratio, the reward for which the policy would be optimal; a policy learnt by RL has no loss of given pairs. The
    first record of each lane carries the means of what was watched since the checkpoint before (`scalars`).

    With `until` it ends after that many iterations, before the records of that step: there `rlhf.lanes.lane_state` may
    be taken, and a further `train(run)`, or one from those states, yields the rest.
    """
    pack, steps = run.pack, run.pack.lanes[0].training.steps
    update = _Update(run)
    while until is None or run.step < until:
        if run.step in pack.checkpoints:
            yield from records(run, run.step, run.tally)
        if run.step == steps:
            return
        update.iterate(run.step)
        run.step += 1


def timetable(run: RlTraining) -> Timetable:
    """The prompts, constraining pairs and learning rates of every iteration of a pack."""
    lanes, device = run.pack.lanes, run.model.flat.device
    rates = [[[learning_rate(i, lane.training)] for lane in lanes] for i in range(lanes[0].training.steps)]
    return Timetable(
        batches=torch.stack([lane.batches for lane in lanes], 1).to(device),
        rates=torch.tensor(rates, device=device),
        max_norm=torch.tensor([[lane.training.max_grad_norm] for lane in lanes], device=device),
        constraint=stacked_pairs(run),
    )


class _Update:
    """One iteration after another, by what the pack's lanes share."""

    def __init__(self, run: RlTraining) -> None:
        self.run, pack = run, run.pack
        self.settings = pack.lanes[0].training
        own = dict(pack.lanes[0].objective.hyperparameters)
        self.epochs, self.minibatches = int(own.get("epochs", 1)), int(own.get("minibatches", 1))
        self.entropy = {
            lane for lane, own in enumerate(pack.lanes) if dict(own.objective.hyperparameters).get("entropy_coef")
        }
        self.values = any(map(needs_values, run.groups))
        self.table = run.timetable = run.timetable or timetable(run)

    def iterate(self, iteration: int) -> None:
        """Sample, score, and take the iteration's steps."""
        run = self.run
        rows = self.table.batches[iteration]
        responses = _sample(run, rows)
        with torch.no_grad():
            reference = read(run.reference, responses).logps
        raw = score(run, responses, reference, rows)
        first: Forward | None = None
        if self.values:  # the values at sampling: the first pass over the rollout computes them anyway
            with torch.set_grad_enabled(self.minibatches == 1):
                first = read(run.model, responses, values=True, entropy=bool(self.entropy))
        rollouts = [self._rollout(group, responses, reference, raw, first) for group in run.groups]
        targets = [self._targets(group, rollout) for group, rollout in zip(run.groups, rollouts, strict=True)]
        for epoch in range(self.epochs):
            for number, part in enumerate(self._parts(iteration, epoch)):
                now = first if first is not None and epoch == 0 and self.minibatches == 1 else None
                shown = responses if part is None else responses.prompts(part)
                updates = (iteration * self.epochs + epoch) * self.minibatches + number
                self._step(iteration, updates, shown, part, now, rollouts, targets)
        self._move_beta(iteration, targets)

    def _rollout(
        self, group: LaneGroup, responses: Responses, reference: Tensor, raw: Tensor, first: Forward | None
    ) -> Rollout:
        run, lanes = self.run, torch.tensor(group.lanes, device=raw.device)
        scores = shaped(
            raw[lanes],
            responses.flat("lengths")[lanes],
            responses.flat("ended")[lanes],
            scale=run.scale[lanes],
            clip=group.hyperparameters.get("reward_clip"),
            **{name: group.hyperparameters[name] for name in SHAPING},
        )
        values = None if first is None or first.values is None else first.values.detach()[lanes]
        rollout = Rollout(
            responses.flat("logps")[lanes], reference[lanes], responses.flat("real")[lanes], scores, run.k, values
        )
        run.tally.add(observed(rollout, raw[lanes], run.beta[lanes], responses, lanes), lanes)
        return rollout

    def _targets(self, group: LaneGroup, rollout: Rollout) -> Targets:
        lanes = torch.tensor(group.lanes, device=rollout.scores.device)
        targets = algorithm(group).targets(rollout, self.run.beta[lanes], group.state, **_knobs(group, self.run.k))
        for name, value in targets.state.items():
            group.state[name].copy_(value.detach())
        return targets

    def _parts(self, iteration: int, epoch: int) -> Iterator[Tensor | None]:
        """The prompts `(K, m)` of each minibatch; None for all of them."""
        if self.minibatches == 1:
            yield None
            return
        count = self.table.batches.shape[2]
        orders = [
            np.random.Generator(np.random.Philox([own.seed, iteration * self.epochs + epoch])).permutation(count)
            for own in self.run.rl_lanes
        ]
        order = torch.from_numpy(np.stack(orders)).to(self.table.batches.device)
        yield from order.tensor_split(self.minibatches, dim=1)

    def _step(
        self,
        iteration: int,
        updates: int,
        responses: Responses,
        part: Tensor | None,
        now: Forward | None,
        rollouts: list[Rollout],
        targets: list[Targets],
    ) -> None:
        run = self.run
        now = now or read(run.model, responses, values=self.values, entropy=bool(self.entropy))
        losses: list[Tensor] = [torch.empty(0)] * len(run.pack.lanes)
        for group, rollout, target in zip(run.groups, rollouts, targets, strict=True):
            lanes = torch.tensor(group.lanes, device=now.logps.device)
            batch = algorithms.minibatch(rollout, target, _rows(part, lanes, rollout, run.k))
            seen = _lanes(now, lanes, entropy=not self.entropy.isdisjoint(group.lanes))
            result = algorithm(group).loss(seen, batch, beta=run.beta[lanes], **_knobs(group, run.k))
            run.tally.add({_NAMES.get(name, name): value for name, value in result.statistics.items()}, lanes)
            run.tally.add({"loss/policy_avg": result.loss}, lanes)
            for position, lane in enumerate(group.lanes):
                losses[lane] = result.loss[position]
        loss = torch.stack(losses)
        if self.table.constraint is not None:
            index, flipped = (table[iteration] for table in self.table.constraint)
            terms = pair_terms(run, run.groups, index, flipped, run.tally)
            loss = loss + torch.stack([terms[lane] for lane in range(len(losses))])
        grad, norm = clip(run.model.gradient(loss.sum()), self.table.max_norm)
        finite = torch.isfinite(loss)[:, None] & torch.isfinite(norm)
        run.diverged_at = torch.where(run.alive & ~finite, iteration, run.diverged_at)
        first, second = bias_corrections(updates + 1, self.settings)
        adamw_step(
            run.model.flat,
            grad,
            run.adam,
            first=first,
            second=second,
            rate=self.table.rates[iteration],
            beta1=self.settings.adam_beta1,
            beta2=self.settings.adam_beta2,
            weight_decay=self.settings.weight_decay,
            alive=run.alive,
        )

    def _move_beta(self, iteration: int, targets: list[Targets]) -> None:
        run, progress = self.run, (iteration + 1) / self.settings.steps
        for group, target in zip(run.groups, targets, strict=True):
            kind = group.hyperparameters.get("kl_controller", "fixed")
            if kind == "fixed":
                continue
            lanes = torch.tensor(group.lanes, device=run.beta.device)
            moved = next_beta(
                kind,
                run.start_beta[lanes],
                run.beta[lanes],
                target.kl.mean(-1, keepdim=True),
                progress,
                target=group.hyperparameters["kl_target"],
                gain=group.hyperparameters["kl_gain"],
                end=group.hyperparameters["kl_end"],
            )
            run.beta = run.beta.index_copy(0, lanes, moved)


# Statistics of a loss under the names that TRL logs them by.
_NAMES: Mapping[str, str] = {
    "clip_fraction": "policy/clipfrac_avg",
    "approx_kl": "policy/approxkl_avg",
    "entropy": "policy/entropy_avg",
    "ratio": "val/ratio",
    "value_loss": "loss/value_avg",
    "explained_variance": "rlhf/explained_variance",
    "pairs": "rlhf/pairs",
}


def _knobs(group: LaneGroup, k: int) -> dict[str, Any]:
    return {name: value for name, value in group.hyperparameters.items() if name != "beta"} | {"k": k}


def _lanes(now: Forward, lanes: Tensor, entropy: bool) -> Forward:
    """A forward's lanes; entropies only for a group that is paid for them."""
    return Forward(
        now.logps[lanes],
        None if now.values is None else now.values[lanes],
        now.entropy[lanes] if entropy and now.entropy is not None else None,
    )


def _rows(part: Tensor | None, lanes: Tensor, rollout: Rollout, k: int) -> Tensor:
    """The responses `(k, m)` of a minibatch of prompts."""
    if part is None:
        return torch.arange(rollout.scores.shape[1], device=lanes.device).expand(len(lanes), -1)
    return (part[lanes][..., None] * k + torch.arange(k, device=lanes.device)).flatten(1)


def _sample(run: RlTraining, rows: Tensor) -> Responses:
    """k responses to the prompts of the pairs `rows` `(K, p)`."""
    prompts, real = (table[rows] for table in run.prompts)
    drawn = torch.from_numpy(draw(run)).to(rows.device, non_blocking=True)
    return roll_out(run.model, prompts, real, drawn, k=run.k, eos=run.sampling.eos)
