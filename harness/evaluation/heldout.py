"""Scoring fixed sets of pairs at a checkpoint: every lane, every split, one record each, per example."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from harness.evaluation.widths import read_responses, read_rows
from harness.models.lane_model import LaneModel
from harness.models.logps import oriented, read_pairs, reference_logps
from harness.models.pack import LaneGroup, Pack, columns, joined, select
from harness.models.unpadded import Room, rooms
from harness.types import PairLogps, Record

# Pairs a lane and forward: a constant, so a lane's numbers never depend on its neighbours or on how many there are.
CHUNK = 64


def evaluate(
    pack: Pack, model: LaneModel, live: LaneModel | None, groups: Sequence[LaneGroup], step: int
) -> Iterator[Record]:
    """One record for every lane and split: log-probs of policy and reference, losses and rewards as labelled there.

    `live` is the frozen reference of objectives that need more of it than stored log-probs. Lanes in no group have no
    loss of given pairs: their records hold log-probs alone.
    """
    corpus = pack.corpus
    index, flipped = _stacked(pack, corpus.ids.device)
    with torch.no_grad():
        policy, reference = (oriented(pairs, flipped) for pairs in _score(model, live, pack, groups, index, step))
        measured: dict[int, dict[str, np.ndarray]] = {}
        for group in groups:
            lanes = torch.tensor(group.lanes, device=index.device)
            own = _in_batches(group, select(policy, lanes), select(reference, lanes), index[lanes], pack)
            for position, lane in enumerate(group.lanes):
                measured[lane] = {name: value[position].float().cpu().numpy() for name, value in own.items()}
        common = {
            "policy_chosen": policy.chosen,
            "policy_rejected": policy.rejected,
            "reference_chosen": reference.chosen,
            "reference_rejected": reference.rejected,
            "chosen_len": policy.chosen_len,
            "rejected_len": policy.rejected_len,
        }
        shared = {name: value.float().cpu().numpy() for name, value in common.items()}
    for number, own_lane in enumerate(pack.lanes):
        start = 0
        for part in own_lane.evals:
            rows = slice(start, start + len(part.ids))
            start = rows.stop
            values = {name: value[number, rows] for name, value in shared.items()}
            values |= {name: value[rows] for name, value in measured.get(number, {}).items()}
            yield Record(own_lane.key, step, part.split, part.ids, values)


def _stacked(pack: Pack, device: torch.device) -> tuple[Tensor, Tensor]:
    """All sets of a lane behind each other, `(K, n)`; a lane with fewer pairs is filled up with one row."""
    width = max(sum(len(part.ids) for part in lane.evals) for lane in pack.lanes)
    width = -(-width // CHUNK) * CHUNK
    index = torch.zeros(len(pack.lanes), width, dtype=torch.int64)
    flipped = torch.zeros(len(pack.lanes), width, dtype=torch.bool)
    for number, lane in enumerate(pack.lanes):
        if lane.evals:
            rows = torch.cat([part.rows for part in lane.evals])
            index[number] = rows[0] if len(rows) else 0
            index[number, : len(rows)] = rows
            flipped[number, : len(rows)] = torch.cat([part.flipped for part in lane.evals])
    return index.to(device), flipped.to(device)


def _score(
    model: LaneModel, live: LaneModel | None, pack: Pack, groups: Sequence[LaneGroup], index: Tensor, step: int
) -> tuple[PairLogps, PairLogps]:
    """Log-probs of policy and reference: in widths of the pairs, or in chunks of constant width."""
    needs = frozenset[str]().union(*(group.needs for group in groups))
    scores = pack.architecture.score
    if pack.ladder and not (needs or scores):
        reference = reference_logps(pack.corpus, index)
        if step == 0 and pack.reference is None:
            return reference, reference
        if model.processes == 1:
            return read_responses(model, pack.corpus, index), reference
    if pack.ladder:  # rows are what several processes can share
        return read_rows(model, live, pack.corpus, index, needs, scores)
    rounds, place = _rounds(pack, index, step)
    space: list[Room | None] = [None] * len(rounds)
    if pack.lanes[0].training.mode == "fast":
        corpus = pack.corpus
        # One room for all chunks: which of them stand side by side in a round depends on how many lanes there are.
        chunks = torch.cat(torch.split(index, CHUNK, 1))[None]
        space = rooms(corpus.segment, corpus.chosen_len + corpus.rejected_len, chunks) * len(rounds)
    parts = [
        read_pairs(model, live, pack.corpus, part, needs, scores, own) for part, own in zip(rounds, space, strict=True)
    ]
    policy, reference = joined([own for own, _ in parts]), joined([other for _, other in parts])
    if place is None:
        return policy, reference
    return _placed(policy, place), _placed(reference, place)


def _rounds(pack: Pack, index: Tensor, step: int) -> tuple[list[Tensor], Tensor | None]:
    """What each forward reads, `(K, CHUNK)` rows, and where the chunks of `index` `(K, n)` are found in the results.

    Before the first step lanes that start from the same weights are the same model: each of their chunks is read once,
    by any of them, and `place` `(K, n / CHUNK)` says by which: round r of lane k is k * rounds + r. None: in order.
    """
    chunks = list(torch.split(index, CHUNK, 1))
    starts = [id(lane.weights) for lane in pack.lanes]
    if step or len(set(starts)) == len(starts):
        return chunks, None
    rows = [[chunk[lane].tolist() for chunk in chunks] for lane in range(len(starts))]
    tasks: dict[int, dict[tuple[int, ...], int]] = {start: {} for start in starts}
    for start, own in zip(starts, rows, strict=True):
        for chunk in own:
            tasks[start].setdefault(tuple(chunk), len(tasks[start]))
    members = {start: [lane for lane, other in enumerate(starts) if other == start] for start in tasks}
    count = max(-(-len(found) // len(members[start])) for start, found in tasks.items())
    plan = torch.zeros(count, len(starts), CHUNK, dtype=torch.int64)
    for start, found in tasks.items():
        for content, number in found.items():
            plan[number % count, members[start][number // count]] = torch.tensor(content)
    place = [
        [
            members[start][tasks[start][tuple(chunk)] // count] * count + tasks[start][tuple(chunk)] % count
            for chunk in own
        ]
        for start, own in zip(starts, rows, strict=True)
    ]
    return list(plan.to(index.device)), torch.tensor(place, device=index.device)


def _placed(pairs: PairLogps, place: Tensor) -> PairLogps:
    """The chunks named by `place` `(K, c)` of log-probs `(K, rounds * CHUNK)`, in order: `(K, c * CHUNK)`."""

    def put(values: Tensor) -> Tensor:
        return values.reshape(-1, CHUNK)[place].flatten(1)

    return PairLogps(
        put(pairs.chosen),
        put(pairs.rejected),
        put(pairs.chosen_len),
        put(pairs.rejected_len),
        {name: put(value) for name, value in pairs.extra.items()},
    )


def _in_batches(
    group: LaneGroup, policy: PairLogps, reference: PairLogps, index: Tensor, pack: Pack
) -> dict[str, Tensor]:
    """Losses, rewards and pulls `(k, n)`; a batch-level objective sees batches of the training size, split by split."""
    parts = []
    width = pack.lanes[0].training.batch_size
    edges = [0]
    for part in pack.lanes[group.lanes[0]].evals:
        edges.append(edges[-1] + len(part.ids))
    if edges[-1] < index.shape[1]:
        edges.append(index.shape[1])
    for low, high in pairwise(edges):
        size = width if group.row.family == "batch" else max(high - low, 1)  # a split may be empty
        parts += [slice(i, min(i + size, high)) for i in range(low, high, size)]
    found = [_loss(group, columns(policy, part), columns(reference, part), index[:, part]) for part in parts]
    measured = {name: torch.cat([one[name] for one in found], dim=1) for name in found[0]}
    kept = {name: kind for name, kind in group.row.state.items() if kind.scope == "pair"}
    return measured | {name: group.state[name].gather(1, index) for name in kept}


def _loss(group: LaneGroup, policy: PairLogps, reference: PairLogps, index: Tensor) -> dict[str, Tensor]:
    """Losses and rewards `(k, B)`, and what `base_loss` pulls at: grad_w = -d/d chosen, grad_l = d/d rejected, 1/nat.

    Extras are held fixed, but for `*_head`, the part of a summed log-prob that moves with it. An objective that does
    not read a side does not pull at it (0).
    """
    with torch.enable_grad():
        sides = {name: getattr(policy, name).detach().requires_grad_() for name in ("chosen", "rejected")}
        heads = {f"{name}_head": side - side.detach() for name, side in sides.items()}
        extra = {name: value + heads[name] if name in heads else value for name, value in policy.extra.items()}
        output = group.loss(replace(policy, **sides, extra=extra), reference, index, update=False)
        pulls = torch.autograd.grad(output.base_loss.sum(), tuple(sides.values()), allow_unused=True)
    chosen, rejected = (torch.zeros_like(policy.chosen) if pull is None else pull for pull in pulls)
    names = ("loss", "base_loss", "chosen_reward", "rejected_reward")
    return {name: getattr(output, name).detach() for name in names} | {"grad_w": -chosen, "grad_l": rejected}
