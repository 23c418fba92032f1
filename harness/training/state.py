"""The state of one lane: all that a run needs to continue, alone or in any other pack, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from harness.models.lane_model import LaneModel
from harness.models.pack import Lane, LaneGroup, Pack
from harness.training.optim import AdamState

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
    a trainer other than that of given pairs carries beside (`rlhf/lanes.py`).
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
    group, position = _group_of(run.groups, lane)
    return LaneState(
        step=run.step_of(lane),
        diverged_at=int(run.diverged_at[lane]),
        weights=run.model.weights(lane),
        mean=run.model.row(run.adam.mean, lane),
        square=run.model.row(run.adam.square, lane),
        objective={
            name: value[position, _entries(group, name, run.pack.lanes[lane], value.device)].cpu()
            for name, value in group.state.items()
        },
    )


def restore(run: Live, lane: int, state: LaneState) -> None:
    """Restore one lane's moments, objective state and divergence from a state; its weights are already in place."""
    run.model.put_row(run.adam.mean, lane, state.mean)
    run.model.put_row(run.adam.square, lane, state.square)
    run.diverged_at[lane] = state.diverged_at
    group, position = _group_of(run.groups, lane)
    for name, value in group.state.items():
        value[position, _entries(group, name, run.pack.lanes[lane], value.device)] = state.objective[name].to(
            value.device
        )


def _group_of(groups: tuple[LaneGroup, ...], lane: int) -> tuple[LaneGroup, int]:
    """The group of a lane, and the lane's position in it."""
    group = next(group for group in groups if lane in group.lanes)
    return group, group.lanes.index(lane)


def _entries(group: LaneGroup, name: str, lane: Lane, device: torch.device) -> Tensor:
    """Indices of the lane's entries in an objective's state: those of its rows, or the run's only one."""
    if group.row.state[name].scope == "pair":
        return own_rows(lane).to(device)
    return torch.zeros(1, dtype=torch.int64, device=device)
