"""The state of one lane: what must be kept of a run so that it goes on, alone or in any other pack, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from harness.models.lane_model import LaneModel
from harness.models.pack import Lane, LaneGroup, Pack
from harness.training.optim import AdamState

if TYPE_CHECKING:
    from harness.training.loop import Training

OBJECTIVE = "objective."  # prefix of objective state among a lane's tensors
TRAINER = "trainer."  # of what its trainer carries beside


class Live(Protocol):
    """What every trainer's live state has: lanes, their model and moments, the objectives' state, steps done."""

    pack: Pack
    model: LaneModel
    groups: tuple[LaneGroup, ...]
    adam: AdamState
    diverged_at: Tensor

    def step_of(self, lane: int) -> int:
        """Updates that the lane has done."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class LaneState:
    """A run after `step` updates and before the records of that step; every tensor is a copy on the CPU.

    `weights`, `mean`, `square` `(P,)`: trainable parameters and Adam's moments. `objective`: what the objective
    carries, `(1,)` a run or `(n,)` a pair, in the order of `own_rows`, so that it holds in any corpus. `trainer`: what
    a trainer other than that of given pairs carries beside (`rlhf/state.py`).
    """

    step: int
    diverged_at: int  # -1 while finite
    weights: Tensor
    mean: Tensor
    square: Tensor
    objective: Mapping[str, Tensor] = field(default_factory=dict)
    trainer: Mapping[str, Tensor] = field(default_factory=dict)

    def tensors(self) -> dict[str, Tensor]:
        """Everything as named tensors, which safetensors can hold; `from_tensors` is the inverse."""
        counters = {"step": torch.tensor([self.step]), "diverged_at": torch.tensor([self.diverged_at])}
        rows = {"weights": self.weights, "mean": self.mean, "square": self.square}
        carried = {f"{OBJECTIVE}{name}": value for name, value in self.objective.items()}
        return counters | rows | carried | {f"{TRAINER}{name}": value for name, value in self.trainer.items()}


def from_tensors(tensors: Mapping[str, Tensor]) -> LaneState:
    """The state that `LaneState.tensors` gave. Raises KeyError where a part is missing."""
    return LaneState(
        step=int(tensors["step"]),
        diverged_at=int(tensors["diverged_at"]),
        weights=tensors["weights"],
        mean=tensors["mean"],
        square=tensors["square"],
        objective=_under(OBJECTIVE, tensors),
        trainer=_under(TRAINER, tensors),
    )


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def own_rows(lane: Lane) -> Tensor:
    """The corpus rows `(n,)` that a lane reads, each once, in the order in which it first reads them.

    The same pairs in every pack, wherever their rows stand in its corpus.
    """
    read = torch.cat([lane.batches.reshape(-1), *(part.rows for part in lane.evals)])
    return torch.tensor(list(dict.fromkeys(read.tolist())), dtype=torch.int64)


def lane_state(run: Live, lane: int) -> LaneState:
    """A copy of one lane's state, taken between two steps."""
    weights = run.model.weights(lane)

    def row(moments: Tensor) -> Tensor:
        return moments[lane, : len(weights)].detach().cpu().clone()

    group, position = _group_of(run.groups, lane)
    return LaneState(
        step=run.step_of(lane),
        diverged_at=int(run.diverged_at[lane]),
        weights=weights,
        mean=row(run.adam.mean),
        square=row(run.adam.square),
        objective={
            name: value[position, _kept(group, name, run.pack.lanes[lane], value.device)].cpu()
            for name, value in group.state.items()
        },
    )


def state_of(run: Training, key: str) -> LaneState:
    """The state of the run `key`, which may have left. Raises KeyError where it never was in the pack."""
    lanes = {lane.key: number for number, lane in enumerate(run.pack.lanes)}
    return run.left[key] if key in run.left else lane_state(run, lanes[key])


def restore(run: Live, lane: int, state: LaneState) -> None:
    """Put a state in the place of one lane's moments, objective state and divergence; its weights are there already."""
    size = len(state.weights)
    run.adam.mean[lane, :size] = state.mean.to(run.adam.mean.device)
    run.adam.square[lane, :size] = state.square.to(run.adam.square.device)
    run.diverged_at[lane] = state.diverged_at
    group, position = _group_of(run.groups, lane)
    for name, value in group.state.items():
        value[position, _kept(group, name, run.pack.lanes[lane], value.device)] = state.objective[name].to(value.device)


def _group_of(groups: tuple[LaneGroup, ...], lane: int) -> tuple[LaneGroup, int]:
    """The group of a lane, and the lane's position in it."""
    group = next(group for group in groups if lane in group.lanes)
    return group, group.lanes.index(lane)


def _kept(group: LaneGroup, name: str, lane: Lane, device: torch.device) -> Tensor:
    """Which entries of an objective's state belong to the lane: those of its rows, or the one of the run."""
    if group.row.state[name].scope == "pair":
        return own_rows(lane).to(device)
    return torch.zeros(1, dtype=torch.int64, device=device)
