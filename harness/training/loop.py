"""The trainer: a generator of records. It logs nothing, saves nothing and calls nobody back.

All lanes step together. The gradient taken is that of the sum of the lanes' losses, so lane k's row is the gradient
of its own loss; clipping, schedule, Adam and the finite check act row by row, and a lane never sees its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from harness.evaluation.heldout import evaluate
from harness.models.extras import LIVE
from harness.models.lanes import LaneGroup, Pack, lane_groups, select
from harness.models.load import skeleton
from harness.models.logps import oriented
from harness.models.pack import LaneModel, build_lanes
from harness.models.readout import read_pairs
from harness.models.unpadded import Room, rooms
from harness.training.optim import AdamState, adam_state, adamw_step, clip, learning_rate
from harness.training.spans import Spans
from harness.training.state import LaneState, lane_state, restore
from harness.types import Record

# From an unmodified model and the weights `(P,)` of each lane.
Build = Callable[[nn.Module, Sequence[Tensor], torch.device], LaneModel]


@dataclass(frozen=True, slots=True, eq=False)
class Timetable:
    """What every step of a pack reads: `batches` and `flips` `(steps, K, B)`, `rates` `(steps, K, 1)`."""

    batches: Tensor
    flips: Tensor
    rates: Tensor
    max_norm: Tensor  # (K, 1)
    space: list[Room | None]  # by step: how many real tokens its widest lane holds (`models/unpadded.py`)


@dataclass
class Training:
    """The live state of a pack: what `train` yields records about, and what is left when it ends."""

    pack: Pack
    model: LaneModel
    groups: tuple[LaneGroup, ...]
    adam: AdamState
    live: LaneModel | None = None  # the frozen reference, for objectives that need more of it than the stored table
    diverged_at: Tensor = field(default_factory=lambda: torch.empty(0))  # (K, 1), -1 while finite
    step: int = 0  # updates done
    spans: Spans = field(default_factory=Spans)
    timetable: Timetable | None = None  # made by the first `train`, so that going on costs nothing

    @property
    def alive(self) -> Tensor:
        """Which lanes are still finite, `(K, 1)` bool."""
        return self.diverged_at < 0


def checkpoint_steps(steps: int, count: int) -> tuple[int, ...]:
    """At most `count` steps: 0, the last, and between them each about half of the next (log-spaced).

    >>> checkpoint_steps(200, 6)
    (0, 12, 25, 50, 100, 200)
    """
    halves = {round(steps / 2**i) for i in range(max(count - 1, 1))}
    return (0, *sorted(s for s in halves if s > 0))


def start(pack: Pack, device: torch.device, states: Sequence[LaneState] = (), build: Build = build_lanes) -> Training:
    """Put a pack on its device: K copies of the architecture, each lane with its own starting weights.

    `build` makes the model: `training.sharded.build_sharded` spreads a single lane over several processes.

    With `states`, one a lane and all of one step, every lane goes on from its state; the records of that step are
    still to come. Raises ValueError where they are of different steps.
    """
    steps = {state.step for state in states} or {0}
    if len(steps) > 1:
        raise ValueError(f"lanes of a pack go on from one step, not from {sorted(steps)}")
    starts = [lane.weights for lane in pack.lanes]
    model = build(skeleton(pack.architecture), [s.weights for s in states] or starts, device)
    groups = lane_groups([lane.objective for lane in pack.lanes], pack.corpus.ids.shape[0], device)
    live = None
    if any(group.needs & LIVE for group in groups):
        live = build(skeleton(pack.architecture), starts, device)
    finite = torch.full((len(pack.lanes), 1), -1, device=device)
    run = Training(pack, model, groups, adam_state(model.flat), live, finite, steps.pop())
    for lane, state in enumerate(states):
        restore(run, lane, state)
    return run


def compact(run: Training, keep: Sequence[int]) -> Training:
    """The pack of the lanes `keep` alone, going on from where `run` stands: the others have left.

    What a lane computes from there does not depend on who left (bit for bit in `strict` on a CPU).
    """
    pack = replace(run.pack, lanes=tuple(run.pack.lanes[lane] for lane in keep))
    fewer = start(pack, run.model.flat.device, [lane_state(run, lane) for lane in keep])
    fewer.spans = run.spans
    return fewer


def timetable(pack: Pack, device: torch.device) -> Timetable:
    """The batches, orientations and learning rates of every step of a pack."""
    settings = pack.lanes[0].training
    batches = torch.stack([lane.batches for lane in pack.lanes], 1).to(device)  # (steps, K, B)
    flips = torch.stack([lane.flipped for lane in pack.lanes], 1).to(device)
    max_norm = torch.tensor([[lane.training.max_grad_norm] for lane in pack.lanes], device=device)
    rates = torch.tensor(
        [[[learning_rate(step, lane.training)] for lane in pack.lanes] for step in range(settings.steps)],
        device=device,
    )
    space: list[Room | None] = [None] * settings.steps
    if settings.mode == "fast":
        space = rooms(pack.corpus.segment, pack.corpus.chosen_len + pack.corpus.rejected_len, batches)
    return Timetable(batches, flips, rates, max_norm, space)


def train(run: Training, until: int | None = None) -> Iterator[Record]:
    """Train every lane to its last step, yielding the records of each checkpoint in order of step and lane.

    A lane whose loss or gradient stops being finite keeps its last finite weights from then on; `run.diverged_at`
    names the step. Nothing in a step waits for the device.

    With `until` it ends after that many updates, before the records of that step: there `lane_state` may be taken,
    and a further `train(run)`, or one from those states, yields the rest.
    """
    pack, model, device = run.pack, run.model, run.model.flat.device
    settings = pack.lanes[0].training
    table = run.timetable = run.timetable or timetable(pack, device)
    gradient = torch.zeros_like(model.flat)  # one buffer for all steps: memory of this size comes from the system anew
    spans = run.spans
    head = model.model.get_output_embeddings() if spans.on else None
    while until is None or run.step < until:
        if run.step in pack.checkpoints:
            with spans("evaluation"):
                found = list(evaluate(pack, model, run.live, run.groups, run.step))
            yield from found
        if run.step == settings.steps:
            return
        with spans("forward"), spans.within(head, "head"):
            loss = _losses(run, table.batches[run.step], table.flips[run.step], table.space[run.step])
        with spans("backward"):
            gradient = model.gradient(loss.sum(), gradient)
        with spans("optimizer"):
            grad, norm = clip(gradient, table.max_norm, model.norm(gradient))
            finite = torch.isfinite(loss)[:, None] & torch.isfinite(norm)
            run.diverged_at = torch.where(run.alive & ~finite, run.step, run.diverged_at)
            adamw_step(
                model.flat,
                grad,
                run.adam,
                step=run.step + 1,
                rate=table.rates[run.step],
                beta1=settings.adam_beta1,
                beta2=settings.adam_beta2,
                weight_decay=settings.weight_decay,
                alive=run.alive,
            )
        run.step += 1


def _losses(run: Training, index: Tensor, flipped: Tensor, room: Room | None) -> Tensor:
    """The loss of each lane `(K,)` on its batch `(K, B)`, in the observed orientation."""
    corpus, device = run.pack.corpus, index.device
    needs = frozenset[str]().union(*(group.needs for group in run.groups))
    scored = read_pairs(run.model, run.live, corpus, index, needs, run.pack.architecture.score, room)
    policy, reference = (oriented(pairs, flipped) for pairs in scored)
    losses: list[Tensor | None] = [None] * len(run.pack.lanes)
    for group in run.groups:
        lanes = torch.tensor(group.lanes, device=device)
        output = group.loss(select(policy, lanes), select(reference, lanes), index[lanes], update=True)
        for position, lane in enumerate(group.lanes):
            losses[lane] = output.loss[position].mean()
    return torch.stack([loss for loss in losses if loss is not None])
