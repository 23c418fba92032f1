"""A run that goes on from a lane's state is the run that was never interrupted, wherever it goes on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from harness.training.loop import compact, start, train
from harness.training.state import LaneState, from_tensors, lane_state, own_rows
from harness.types import TrainingSpec
from tests.training.worlds import CPU, PAIRS, lane, pack

STEPS = 12
# No state, a state a run, a state a pair; two worlds, so that a lane's rows stand elsewhere in another pack's corpus.
LANES = {
    "dpo": ("dpo", {"beta": 2.0}, 0),
    "bco": ("bco", {"beta": 0.5}, 1),
    "dual": ("cpo_dual", {"beta": 2.0}, 1),
}
Rows = list[np.ndarray]


def made(names: list[str], worlds: tuple[int, ...]):
    lanes = [
        lane(n, LANES[n][0], LANES[n][1], seed=LANES[n][2], offset=PAIRS * worlds.index(LANES[n][2])) for n in names
    ]
    return pack(lanes, seeds=worlds)


def finish(training, until: int | None = None) -> dict[str, Rows]:
    records: dict[str, Rows] = {lane.key: [] for lane in training.pack.lanes}
    for record in train(training, until):
        records[record.run_key] += [record.columns[name] for name in sorted(record.columns)]
    return records


def same(a: LaneState, b: LaneState) -> bool:
    mine, others = a.tensors(), b.tensors()
    return mine.keys() == others.keys() and all(torch.equal(mine[name], others[name]) for name in mine)


@pytest.fixture(scope="module")
def whole() -> tuple[dict[str, Rows], dict[str, LaneState]]:
    training = start(made(list(LANES), (0, 1)), CPU)
    records = finish(training)
    return records, {name: lane_state(training, i) for i, name in enumerate(LANES)}


@pytest.mark.parametrize("at", range(STEPS + 1))
def test_stopped_at_any_step_a_lane_goes_on_alone_with_the_same_bits(at, whole):
    first = start(made(list(LANES), (0, 1)), CPU)
    before = finish(first, at)
    for number, name in enumerate(LANES):
        stored = from_tensors(load(save(lane_state(first, number).tensors())))
        world = LANES[name][2]
        alone = start(made([name], (world,)), CPU, [stored])
        after = finish(alone)
        assert same(lane_state(alone, 0), whole[1][name])
        joined = before[name] + after[name]
        assert len(joined) == len(whole[0][name]) > 0
        assert all(np.array_equal(a, b) for a, b in zip(joined, whole[0][name], strict=True))


def test_lanes_of_different_packs_meet_in_another(whole):
    states = {}
    for names, worlds in ((["dual", "dpo"], (1, 0)), (["bco"], (1,))):
        part = start(made(names, worlds), CPU)
        finish(part, 7)
        states |= {name: lane_state(part, i) for i, name in enumerate(names)}
    order = ["bco", "dpo", "dual"]
    met = start(made(order, (1, 0)), CPU, [states[name] for name in order])
    finish(met)
    assert all(same(lane_state(met, i), whole[1][name]) for i, name in enumerate(order))


def test_taking_a_state_changes_nothing_and_later_steps_do_not_change_it(whole):
    training = start(made(list(LANES), (0, 1)), CPU)
    finish(training, 5)
    taken = lane_state(training, 2)
    kept = {name: value.clone() for name, value in taken.tensors().items()}
    finish(training)
    assert all(torch.equal(value, kept[name]) for name, value in taken.tensors().items())
    assert same(lane_state(training, 2), whole[1]["dual"])


def test_a_diverged_lane_stays_diverged():
    bad = lane("bad", "dpo", {"beta": 2.0}, training=TrainingSpec(STEPS, 8, float("inf"), 3))
    training = start(pack([bad]), CPU)
    finish(training, 6)
    state = lane_state(training, 0)
    again = start(pack([bad]), CPU, [state])
    finish(again)
    assert state.diverged_at >= 0 and lane_state(again, 0).diverged_at == state.diverged_at
    assert torch.equal(lane_state(again, 0).weights.nan_to_num(), state.weights.nan_to_num())


def test_states_of_different_steps_do_not_make_a_pack():
    training = start(made(["dpo", "bco"], (0, 1)), CPU)
    finish(training, 3)
    states = [lane_state(training, 0), replace(lane_state(training, 1), step=4)]
    with pytest.raises(ValueError, match="from one step"):
        start(made(["dpo", "bco"], (0, 1)), CPU, states)


def test_own_rows_name_the_same_pairs_in_any_corpus():
    here, there = (lane("a", "dpo", {"beta": 1.0}, offset=offset) for offset in (0, PAIRS))
    assert torch.equal(own_rows(here) + PAIRS, own_rows(there))
    assert len(set(own_rows(here).tolist())) == len(own_rows(here))


def test_lanes_leave_and_the_others_do_not_notice(whole):
    training = start(made(list(LANES), (0, 1)), CPU)
    before = finish(training, 5)
    training = compact(training, [0, 2])
    middle = finish(training, 8)
    training = compact(training, [1])
    after = finish(training)
    assert [lane.key for lane in training.pack.lanes] == ["dual"]
    assert same(lane_state(training, 0), whole[1]["dual"])
    joined = before["dual"] + middle["dual"] + after["dual"]
    assert all(np.array_equal(a, b) for a, b in zip(joined, whole[0]["dual"], strict=True))
