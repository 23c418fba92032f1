"""What the trainer trains: lanes of a pack, and the objectives of a pack as groups of lanes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from harness.models.architecture import Architecture, Frozen
from harness.models.logps import Corpus
from harness.objectives import OBJECTIVES
from harness.objectives.row import Objective
from harness.types import LossOutput, ObjectiveSpec, PairLogps, TrainingSpec


@dataclass(frozen=True, slots=True)
class EvalSet:
    """A fixed set of pairs scored at every checkpoint: corpus rows `(n,)`, and which are labelled the other way."""

    split: str
    ids: tuple[str, ...]
    rows: Tensor
    flipped: Tensor


@dataclass(frozen=True, slots=True)
class Lane:
    """One run in a pack. `batches` `(steps, B)` are corpus rows, `flipped` `(steps, B)` those labelled otherwise."""

    key: str
    objective: ObjectiveSpec
    training: TrainingSpec
    weights: Tensor  # (P,)
    batches: Tensor
    flipped: Tensor
    evals: tuple[EvalSet, ...] = ()


@dataclass(frozen=True, slots=True)
class Pack:
    """K lanes that share architecture, corpus, batch shape and Adam constants (`RunSpec.pack_key` says who may).

    With `ladder` pairs are read in widths of their own. `reference` is the frozen model of a pack whose lanes
    start elsewhere; None: every lane starts as its own reference, so step 0 is what is stored of that.
    """

    architecture: Architecture
    corpus: Corpus
    lanes: tuple[Lane, ...]
    checkpoints: tuple[int, ...] = ()
    ladder: bool = False
    reference: Frozen | None = None

    @property
    def one_order(self) -> bool:
        """Whether the plan gave the pack lanes that all read the same batches (`sweep/packing.py`)."""
        return self.ladder or self.lanes[0].training.mode == "fast"


@dataclass(frozen=True, slots=True)
class LaneGroup:
    """Lanes of a pack that share an objective and its structural options; number options become `(k, 1)` columns."""

    row: Objective
    lanes: tuple[int, ...]
    hyperparameters: Mapping[str, Any]
    state: dict[str, Tensor] = field(default_factory=dict)

    @property
    def needs(self) -> frozenset[str]:
        """Keys of `PairLogps.extra` that the group's objective reads."""
        return frozenset(self.row.needs)

    def loss(self, policy: PairLogps, reference: PairLogps, index: Tensor, update: bool) -> LossOutput:
        """The group's loss for tensors `(k, B)`; with `update` the objective's running state moves on.

        `index` `(k, B)` names the corpus rows, which is where per-pair state is kept.
        """
        if not self.row.state:
            return self.row.loss(policy, reference, **self.hyperparameters)
        now = {
            name: self.state[name].gather(1, index) if kind.scope == "pair" else self.state[name]
            for name, kind in self.row.state.items()
        }
        output = self.row.loss(policy, reference, state=now, **self.hyperparameters)
        if update and output.state is not None:
            for name, kind in self.row.state.items():
                value = output.state[name].detach()
                if kind.scope == "pair":
                    self.state[name].scatter_(1, index, value)
                else:
                    self.state[name].copy_(value)
        return output


def lane_groups(objectives: Sequence[ObjectiveSpec], rows: int, device: torch.device) -> tuple[LaneGroup, ...]:
    """Group lanes by objective and structural options, in order of first appearance. `rows`: pairs in the corpus.

    On a CPU every lane is a group of its own: vectorised exp and log differ from their scalar tails in the last bit,
    so an element's value would depend on where its lane lies in a stacked tensor. A batch-level lane is alone
    everywhere: the batches it is measured in follow its own splits.
    """
    members: dict[tuple[object, ...], list[int]] = {}
    for lane, spec in enumerate(objectives):
        structural = tuple((k, v) for k, v in spec.hyperparameters if not _is_number(v))
        alone = lane if device.type == "cpu" or OBJECTIVES[spec.name].family == "batch" else -1
        members.setdefault((spec.name, structural, alone), []).append(lane)
    groups = []
    for lanes in members.values():
        values = [dict(objectives[lane].hyperparameters) for lane in lanes]
        columns: dict[str, object] = {
            key: torch.tensor([[float(v[key])] for v in values], device=device) if _is_number(value) else value
            for key, value in values[0].items()
        }
        row = OBJECTIVES[objectives[lanes[0]].name]
        state = {
            key: torch.full((len(lanes), rows if kind.scope == "pair" else 1), float(kind.initial), device=device)
            for key, kind in row.state.items()
        }
        groups.append(LaneGroup(row, tuple(lanes), columns, state))
    return tuple(groups)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def columns(pairs: PairLogps, part: slice) -> PairLogps:
    """The pairs `part` of log-probs `(K, B)`."""
    return PairLogps(
        pairs.chosen[:, part],
        pairs.rejected[:, part],
        pairs.chosen_len[:, part],
        pairs.rejected_len[:, part],
        {name: value[:, part] for name, value in pairs.extra.items()},
    )


def joined(parts: Sequence[PairLogps]) -> PairLogps:
    """Log-probs `(K, B_i)` behind each other."""

    def join(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts], dim=1)

    extra = {name: torch.cat([part.extra[name] for part in parts], dim=1) for name in parts[0].extra}
    return PairLogps(join("chosen"), join("rejected"), join("chosen_len"), join("rejected_len"), extra)


def select(pairs: PairLogps, lanes: Tensor) -> PairLogps:
    """The lanes `lanes` `(k,)` of log-probs `(K, B)`."""
    return PairLogps(
        chosen=pairs.chosen[lanes],
        rejected=pairs.rejected[lanes],
        chosen_len=pairs.chosen_len[lanes],
        rejected_len=pairs.rejected_len[lanes],
        extra={name: value[lanes] for name, value in pairs.extra.items()},
    )
