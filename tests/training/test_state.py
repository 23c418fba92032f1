"""A run that goes on from a lane's state is the run that was never interrupted, wherever it goes on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from harness.training.loop import keep_lanes, start, train
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
    bad = lane(
        "bad",
        "dpo",
        {"beta": 2.0},
        training=TrainingSpec(steps=STEPS, batch_size=8, learning_rate=float("inf"), warmup_steps=3),
    )
    training = start(pack([bad]), CPU)
    finish(training, 6)
    state = lane_state(training, 0)
    again = start(pack([bad]), CPU, [state])
    finish(again)
    assert state.diverged_at >= 0 and lane_state(again, 0).diverged_at == state.diverged_at
    assert torch.equal(lane_state(again, 0).weights.nan_to_num(), state.weights.nan_to_num())


def test_lanes_go_on_in_one_pack_from_different_steps(whole):
    """Each from its own state or from the beginning; who has come to its end leaves and is back when all have."""
    before, states = {}, {}
    for name, at in (("bco", 7), ("dual", 3)):
        part = start(made([name], (1,)), CPU)
        before |= finish(part, at)
        states[name] = lane_state(part, 0)
    order = ["bco", "dpo", "dual"]
    met = start(made(order, (1, 0)), CPU, [states.get(name) for name in order])
    assert (met.steps_done, met.step) == ([7, 0, 3], 0)
    after = finish(met)
    assert [lane.key for lane in met.pack.lanes] == order and not met.left and met.steps_done == [STEPS] * 3
    for number, name in enumerate(order):
        assert same(lane_state(met, number), whole[1][name])
        joined = before.get(name, []) + after[name]
        assert len(joined) == len(whole[0][name])
        assert all(np.array_equal(a, b) for a, b in zip(joined, whole[0][name], strict=True))


def test_own_rows_name_the_same_pairs_in_any_corpus():
    here, there = (lane("a", "dpo", {"beta": 1.0}, offset=offset) for offset in (0, PAIRS))
    assert torch.equal(own_rows(here) + PAIRS, own_rows(there))
    assert len(set(own_rows(here).tolist())) == len(own_rows(here))


def test_lanes_leave_and_the_rest_do_not_notice(whole):
    names = list(LANES)
    training = start(made(names, (0, 1)), CPU)
    records: dict[str, Rows] = {name: [] for name in names}

    def take(until: int | None) -> None:
        for record in train(training, until):
            records[record.run_key] += [record.columns[name] for name in sorted(record.columns)]

    take(5)
    keep_lanes(training, [1, 2])
    assert [lane.key for lane in training.pack.lanes] == names[1:] and training.left[names[0]].step == 5
    take(9)
    keep_lanes(training, [1])
    assert {name: state.step for name, state in training.left.items()} == {names[0]: 5, names[1]: 9}
    take(None)
    assert [lane.key for lane in training.pack.lanes] == names  # all are back
    assert same(lane_state(training, 2), whole[1][names[2]])
    assert all(np.array_equal(a, b) for a, b in zip(records[names[2]], whole[0][names[2]], strict=True))
    again = start(replace(training.pack, lanes=training.pack.lanes[:2]), CPU, [lane_state(training, n) for n in (0, 1)])
    for name, rows in finish(again).items():
        records[name] += rows
    for number, name in enumerate(names[:2]):
        assert same(lane_state(again, number), whole[1][name])
        assert all(np.array_equal(a, b) for a, b in zip(records[name], whole[0][name], strict=True))


def test_a_lane_that_diverged_leaves_at_the_next_checkpoint_and_its_records_stand_for_the_later_ones(whole):
    bad = lane(
        "bad",
        "dpo",
        {"beta": 2.0},
        training=TrainingSpec(steps=STEPS, batch_size=8, learning_rate=float("inf"), warmup_steps=3),
    )
    full = made(list(LANES), (0, 1))
    training = start(replace(full, lanes=(full.lanes[0], bad, *full.lanes[1:])), CPU)
    widths, records = [], {}
    for record in train(training):
        widths.append(training.model.lanes)
        records.setdefault(record.run_key, []).append(record)
    assert [record.step for record in records["bad"]] == [0, 6, 12]
    assert widths == [4] * 8 + [4] + [3] * 3  # records of step 0, of step 6, bad's of step 12, the others' of step 12
    assert training.diverged_at[:, 0].tolist() == [-1, 1, -1, -1] and training.model.lanes == 4
    alone = start(pack([bad]), CPU)
    for mine, other in zip(records["bad"], train(alone), strict=True):
        assert mine.step == other.step
        for name, values in other.columns.items():
            assert np.array_equal(mine.columns[name], values, equal_nan=True)
    for number, name in ((0, "dpo"), (2, "bco"), (3, "dual")):
        assert same(lane_state(training, number), whole[1][name])
