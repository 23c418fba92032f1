"""The training loop of a pack: batch, forward, losses, backward and update of all its runs, step by step.

A generator of records: it logs nothing, saves nothing and calls nobody back. All lanes step together, each with its own
step count. The gradient is that of the sum of the lanes' losses, so row k is the gradient of lane k's loss; clipping,
schedule, Adam and the finite check act row by row, and no lane sees another. So a lane may leave without effect on the
rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from harness.evaluation.heldout import evaluate
from harness.models.architecture import skeleton
from harness.models.lane_model import LaneModel, build_lanes
from harness.models.logps import Widths, narrowed, oriented, read_pairs, widths_of
from harness.models.loss_inputs import LIVE
from harness.models.pack import Lane, LaneGroup, Pack, columns, joined, lane_groups, select
from harness.models.unpadded import UNLIKE, Room, fits, rooms
from harness.objectives import OBJECTIVES
from harness.training.optim import AdamState, adam_state, adamw_step, bias_corrections, clip, learning_rate
from harness.training.state import LaneState, lane_state, restore
from harness.training.timing import Spans
from harness.types import PairLogps, Record

# From an unmodified model and the weights `(P,)` of each lane.
Build = Callable[[nn.Module, Sequence[Tensor], torch.device], LaneModel]
SIDES = ("chosen", "rejected")


@dataclass(frozen=True, slots=True)
class Part:
    """What one forward of an update reads: columns of its batches, in rows of these widths.

    `room`: how many real tokens the widest lane holds, where these alone are computed (`models/unpadded.py`).
    """

    columns: slice
    widths: Widths
    room: Room | None

    @property
    def tokens(self) -> int:
        """Tokens of a lane that are computed."""
        return (self.columns.stop - self.columns.start) * self.widths.tokens if self.room is None else self.room.tokens


@dataclass(frozen=True, slots=True, eq=False)
class Timetable:
    """What every update of a pack reads, from where its lanes stood when it was made.

    `batches` and `flips` `(T, K, B)`; `number` (each lane's own step), `rates` and Adam's two bias corrections
    `(T, K, 1)`, on the device, so that nothing of an update depends on a number of the host.
    """

    batches: Tensor
    flips: Tensor
    number: Tensor
    rates: Tensor
    first: Tensor
    second: Tensor
    max_norm: Tensor  # (K, 1)
    parts: list[list[Part]]  # by update: what its forwards read, one after another


@dataclass
class Training:
    """The live state of a pack: what `train` yields records about, and what is left when it ends."""

    pack: Pack  # of the lanes that train; of all of them once `train` has ended
    model: LaneModel
    groups: tuple[LaneGroup, ...]
    adam: AdamState
    live: LaneModel | None  # the frozen reference, for objectives that need more of it than the stored table
    diverged_at: Tensor  # (K, 1), -1 while finite
    steps_done: list[int]  # by lane
    recorded: list[int]  # the step of the newest records, by lane; -1: none yet
    build: Build = build_lanes
    spans: Spans = field(default_factory=Spans)
    timetable: Timetable | None = None  # made by the first update, so that going on costs nothing
    updates: int = 0  # done since the timetable was made
    left: dict[str, LaneState] = field(default_factory=dict)  # lanes that are not in `pack` any more, by run key
    all_lanes: tuple[Lane, ...] = ()  # also those that left

    @property
    def alive(self) -> Tensor:
        """Which lanes are still finite, `(K, 1)` bool."""
        return self.diverged_at < 0

    @property
    def step(self) -> int:
        """Updates done by the lane that has the most before it."""
        return min(self.steps_done)

    def step_of(self, lane: int) -> int:
        """Updates that the lane has done."""
        return self.steps_done[lane]

    @property
    def steps(self) -> int:
        """Updates that a lane does in all."""
        return self.pack.lanes[0].training.steps


def checkpoint_steps(steps: int, count: int) -> tuple[int, ...]:
    """At most `count` steps: 0, the last, and between them each about half of the next (log-spaced).

    >>> checkpoint_steps(200, 6)
    (0, 12, 25, 50, 100, 200)
    """
    halves = {round(steps / 2**i) for i in range(max(count - 1, 1))}
    return (0, *sorted(s for s in halves if s > 0))


def start(
    pack: Pack, device: torch.device, states: Sequence[LaneState | None] = (), build: Build = build_lanes
) -> Training:
    """Put a pack on its device: K copies of the architecture, each lane with its own starting weights.

    `build` makes the model: `training.sharded.build_sharded` spreads a single lane over several processes.

    With `states`, one a lane, a lane goes on from its state, at whatever step that was taken; the records of that step
    are still to come. None: from the beginning.
    """
    kept = tuple(states) or (None,) * len(pack.lanes)
    starts = [lane.weights for lane in pack.lanes]
    weights = [first if state is None else state.weights for first, state in zip(starts, kept, strict=True)]
    model = build(skeleton(pack.architecture), weights, device)
    groups = lane_groups([lane.objective for lane in pack.lanes], pack.corpus.ids.shape[0], device)
    live = None
    if any(group.needs & LIVE for group in groups):
        frozen = pack.reference
        live = (
            build(skeleton(pack.architecture), starts, device)
            if frozen is None
            else build(skeleton(frozen.architecture), [frozen.weights] * len(starts), device)
        )
    finite = torch.full((len(pack.lanes), 1), -1, device=device)
    done = [0 if state is None else state.step for state in kept]
    adam = adam_state(model.flat)
    run = Training(pack, model, groups, adam, live, finite, done, [-1] * len(done), build, all_lanes=pack.lanes)
    for lane, state in enumerate(kept):
        if state is not None:
            restore(run, lane, state)
    return run


def state_of(run: Training, key: str) -> LaneState:
    """The state of the run `key`, in the pack or left. Raises KeyError where it never was in the pack."""
    lanes = {lane.key: number for number, lane in enumerate(run.pack.lanes)}
    return run.left[key] if key in run.left else lane_state(run, lanes[key])


def keep_lanes(run: Training, keep: Sequence[int]) -> None:
    """Let all lanes but `keep` leave `run` itself; their states go to `run.left`.

    What a lane computes does not depend on who left (bit for bit in `strict` on a CPU).
    """
    states = [lane_state(run, lane) for lane in range(len(run.steps_done))]
    gone = {run.pack.lanes[lane].key: state for lane, state in enumerate(states) if lane not in keep}
    _replace(
        run,
        [run.pack.lanes[lane] for lane in keep],
        [states[lane] for lane in keep],
        [run.recorded[lane] for lane in keep],
    )
    run.left |= gone


def _reassemble(run: Training) -> None:
    """Bring back the lanes that left, as they were then: the pack is whole, in its first order."""
    present = {lane.key: lane_state(run, number) for number, lane in enumerate(run.pack.lanes)}
    states, run.left = run.left | present, {}
    _replace(run, run.all_lanes, [states[lane.key] for lane in run.all_lanes], [run.steps] * len(run.all_lanes))


def _replace(run: Training, lanes: Sequence[Lane], states: Sequence[LaneState | None], recorded: list[int]) -> None:
    """Make `run` the training of other lanes. Between two steps no activations are held: there is room for both."""
    fresh = start(replace(run.pack, lanes=tuple(lanes)), run.model.flat.device, states, run.build)
    fresh.recorded, fresh.spans, fresh.left, fresh.all_lanes = recorded, run.spans, run.left, run.all_lanes
    for part in fields(Training):
        setattr(run, part.name, getattr(fresh, part.name))


def timetable(pack: Pack, model: LaneModel, steps_done: Sequence[int], device: torch.device) -> Timetable:
    """What the updates of a pack read whose lanes have done `steps_done` updates, up to the last one of any lane."""
    settings = pack.lanes[0].training
    numbers = [
        [min(done + t, settings.steps - 1) for done in steps_done] for t in range(settings.steps - min(steps_done))
    ]
    rows = torch.tensor(numbers).reshape(-1, len(pack.lanes))  # (T, K)

    def by_step(tables: Sequence[Tensor]) -> Tensor:
        return torch.stack([table[rows[:, lane]] for lane, table in enumerate(tables)], 1).to(device)

    def column(value: Callable[[int, Lane], float]) -> Tensor:
        values = [[[value(n, lane)] for n, lane in zip(row, pack.lanes, strict=True)] for row in numbers]
        return torch.tensor(values, dtype=torch.float32, device=device).reshape(-1, len(pack.lanes), 1)

    batches = by_step([lane.batches for lane in pack.lanes])
    return Timetable(
        batches,
        by_step([lane.flipped for lane in pack.lanes]),
        rows[..., None].to(device),
        column(lambda step, lane: learning_rate(step, lane.training)),
        column(lambda step, lane: bias_corrections(step + 1, lane.training)[0]),
        column(lambda step, lane: bias_corrections(step + 1, lane.training)[1]),
        torch.tensor([[lane.training.max_grad_norm] for lane in pack.lanes], device=device),
        _parts(pack, batches, skips_padding(pack, model)),
    )


def skips_padding(pack: Pack, model: LaneModel) -> bool:
    """Whether updates compute the real tokens of their rows alone: where lanes read the same batches, and can."""
    if any(OBJECTIVES[lane.objective.name].needs or lane.training.shards > 1 for lane in pack.lanes):
        return False
    return pack.one_order and not pack.architecture.score and fits(model)


def _parts(pack: Pack, batches: Tensor, skips: bool) -> list[list[Part]]:
    """The parts of each update of `batches` `(T, K, B)`: all pairs at once, or micro-batches."""
    corpus, settings = pack.corpus, pack.lanes[0].training
    size = batches.shape[-1]
    step = min(settings.micro_batch or size, size)
    parts: list[list[Part]] = [[] for _ in range(len(batches))]
    for low in range(0, size, step):
        place = slice(low, min(low + step, size))
        own = batches[..., place]
        widths = [Widths(corpus.ids.shape[1], corpus.target.shape[1])] * len(batches)
        if pack.ladder:
            widths = _widths(pack, own)
        room: list[Room | None] = [None] * len(batches)
        if skips:
            lengths = corpus.chosen_len + corpus.rejected_len
            strict = settings.mode == "strict"
            room = rooms(corpus.segment, lengths, own, [one.tokens for one in widths], alike=strict)
        for update, width, space in zip(parts, widths, room, strict=True):
            update.append(Part(place, width, space))
    return parts


def tokens_by_update(pack: Pack, lane: Lane, model: LaneModel) -> list[int]:
    """Tokens that each of a lane's updates computes: those of padding too, where it is not skipped."""
    own = replace(pack, lanes=(lane,))
    updates = _parts(own, lane.batches[:, None].to(pack.corpus.ids.device), skips_padding(own, model))
    return [sum(part.tokens for part in one) for one in updates]


def _widths(pack: Pack, batches: Tensor) -> list[Widths]:
    """The widths of each update of `batches` `(T, K, b)`. In `strict` they are those of every lane alone."""
    lanes = len(pack.lanes)
    each = widths_of(pack.corpus, batches.flatten(0, 1), mismatched=len(pack.corpus.mismatched) > 0)
    together = [each[start : start + lanes] for start in range(0, len(each), lanes)]
    if pack.lanes[0].training.mode == "strict" and any(len(set(own)) > 1 for own in together):
        raise ValueError(UNLIKE)
    return [Widths(max(one.tokens for one in own), max(one.responses for one in own)) for own in together]


def train(run: Training, until: int | None = None) -> Iterator[Record]:
    """Train every lane to its last step, yielding the records of each checkpoint as lanes come to it.

    A lane whose loss or gradient stops being finite keeps its last finite weights; `run.diverged_at` names the step.
    At the next checkpoint it leaves, its records of the later ones being those of that one; a lane that has come to
    its last step before others leaves, too. Nothing in a step waits for the device.

    With `until` it ends after that many updates of every lane, before the records of that step: there `lane_state` may
    be taken, and a further `train(run)`, or one from those states, yields the rest.
    """
    gradient: Tensor | None = None  # one buffer for all steps: memory of this size comes from the system anew
    while until is None or run.step < until:
        due = [
            done in run.pack.checkpoints and recorded < done
            for done, recorded in zip(run.steps_done, run.recorded, strict=True)
        ]
        if any(due):
            with run.spans("evaluation"):
                records = _records(run, due)
            yield from records
        on = [lane for lane, done in enumerate(run.steps_done) if done < run.steps]
        if not on:
            if run.left:
                _reassemble(run)
            return
        if len(on) < len(run.steps_done):
            keep_lanes(run, on)
            gradient = None
        gradient = _update(run, torch.zeros_like(run.model.flat) if gradient is None else gradient)


def _records(run: Training, due: Sequence[bool]) -> list[Record]:
    """The records of the lanes that are `due`; of one that diverged those of its later checkpoints too."""
    measured: dict[str, list[Record]] = {}
    for record in evaluate(run.pack, run.model, run.live, run.groups, max(run.steps_done)):
        measured.setdefault(record.run_key, []).append(record)
    records: list[Record] = []
    broken = (~run.alive[:, 0]).tolist()
    for number, lane in enumerate(run.pack.lanes):
        if not due[number]:
            continue
        done = run.steps_done[number]
        steps = [step for step in run.pack.checkpoints if step == done or (step > done and broken[number])]
        records += [replace(record, step=step) for step in steps for record in measured.get(lane.key, [])]
        run.recorded[number] = done
        if broken[number]:
            run.steps_done[number] = run.recorded[number] = run.steps
    return records


def _update(run: Training, gradient: Tensor) -> Tensor:
    """One update of every lane; returns the buffer of the gradient."""
    table = run.timetable = run.timetable or timetable(run.pack, run.model, run.steps_done, run.model.flat.device)
    model, spans, now = run.model, run.spans, run.updates
    settings = run.pack.lanes[0].training
    loss, gradient = _loss_and_gradient(run, table.batches[now], table.flips[now], table.parts[now], gradient)
    with spans("optimizer"):
        grad, norm = clip(gradient, table.max_norm, model.norm(gradient))
        finite = torch.isfinite(loss)[:, None] & torch.isfinite(norm)
        run.diverged_at = torch.where(run.alive & ~finite, table.number[now], run.diverged_at)
        adamw_step(
            model.flat,
            grad,
            run.adam,
            first=table.first[now],
            second=table.second[now],
            rate=table.rates[now],
            beta1=settings.adam_beta1,
            beta2=settings.adam_beta2,
            weight_decay=settings.weight_decay,
            alive=run.alive,
        )
    run.updates += 1
    run.steps_done = [done + 1 for done in run.steps_done]
    return gradient


def _loss_and_gradient(
    run: Training, index: Tensor, flipped: Tensor, parts: Sequence[Part], gradient: Tensor
) -> tuple[Tensor, Tensor]:
    """The loss of each lane `(K,)` on its batch `(K, B)`, in the observed orientation, and its gradient, in `gradient`.

    Over micro-batches a loss of single pairs is a sum. One that sees the whole batch is computed from the log-probs of
    a first pass, and its gradient by them goes through a second one: the same gradient, at another forward's cost.
    """
    model, spans = run.model, run.spans
    head = model.model.get_output_embeddings() if spans.on else None
    if len(parts) == 1:
        with spans("forward"), spans.within(head, "head"):
            loss = _losses(run, index, *_read(run, index, flipped, parts[0]))
        with spans("backward"):
            return loss, model.gradient(loss.sum(), gradient)
    total = torch.zeros(len(index), device=index.device)
    pulls: list[PairLogps | None] = [None] * len(parts)
    if any(group.row.sees_batch for group in run.groups):
        with spans("forward"), spans.within(head, "head"), torch.no_grad():
            read = [_read(run, index, flipped, part) for part in parts]
        total, pulls = _whole_batch(run, index, [policy for policy, _ in read], [other for _, other in read])
    share = torch.zeros_like(gradient)
    gradient.zero_()
    for part, pull in zip(parts, pulls, strict=True):
        with spans("forward"), spans.within(head, "head"):
            policy, reference = _read(run, index, flipped, part)
            if pull is None:
                own = index[:, part.columns]
                objective = _losses(run, own, policy, reference) * (own.shape[1] / index.shape[1])
                total = total + objective.detach()
            else:
                objective = torch.stack([(a * b).sum() for a, b in _with_gradient(policy, pull)])
        with spans("backward"):
            gradient += model.gradient(objective.sum(), share)
    return total, gradient


def _whole_batch(
    run: Training, index: Tensor, policy: Sequence[PairLogps], reference: Sequence[PairLogps]
) -> tuple[Tensor, list[PairLogps | None]]:
    """The loss of each lane `(K,)` of log-probs read part by part, and its derivative by those of each part."""
    whole = joined(policy)
    leaves = {name: value.detach().requires_grad_() for name, value in _values(whole).items()}
    held = {name: value for name, value in leaves.items() if name not in SIDES}
    with torch.enable_grad():
        loss = _losses(
            run, index, replace(whole, **{name: leaves[name] for name in SIDES}, extra=held), joined(reference)
        )
        slopes = torch.autograd.grad(loss.sum(), list(leaves.values()), allow_unused=True)
    by_name = {
        name: torch.zeros_like(leaf) if slope is None else slope
        for (name, leaf), slope in zip(leaves.items(), slopes, strict=True)
    }
    extra = {name: by_name[name] for name in held}
    pull = replace(whole, **{name: by_name[name] for name in SIDES}, extra=extra)
    edges = [0, *accumulate(part.chosen.shape[1] for part in policy)]
    return loss.detach(), [columns(pull, slice(low, high)) for low, high in pairwise(edges)]


def _values(pairs: PairLogps) -> dict[str, Tensor]:
    """What a gradient may go through: both sides' log-probs, and what an objective asked for beside them."""
    return {name: getattr(pairs, name) for name in SIDES} | dict(pairs.extra)


def _with_gradient(policy: PairLogps, pull: PairLogps) -> Iterator[tuple[Tensor, Tensor]]:
    slopes = _values(pull)
    for name, value in _values(policy).items():
        if value.requires_grad:
            yield value, slopes[name]


def _read(run: Training, index: Tensor, flipped: Tensor, part: Part) -> tuple[PairLogps, PairLogps]:
    """Policy and reference on a part of the batch `index` `(K, B)`, in the observed orientation."""
    needs = frozenset[str]().union(*(group.needs for group in run.groups))
    corpus, own = narrowed(run.pack.corpus, part.widths), index[:, part.columns]
    scored = read_pairs(run.model, run.live, corpus, own, needs, run.pack.architecture.score, part.room)
    policy, reference = (oriented(pairs, flipped[:, part.columns]) for pairs in scored)
    return policy, reference


def _losses(run: Training, index: Tensor, policy: PairLogps, reference: PairLogps) -> Tensor:
    """The loss of each lane `(K,)`, the mean over its pairs `index` `(K, B)`."""
    losses: list[Tensor | None] = [None] * len(run.pack.lanes)
    for group in run.groups:
        lanes = torch.tensor(group.lanes, device=index.device)
        output = group.loss(select(policy, lanes), select(reference, lanes), index[lanes], update=True)
        for position, lane in enumerate(group.lanes):
            losses[lane] = output.loss[position].mean()
    return torch.stack([loss for loss in losses if loss is not None])
