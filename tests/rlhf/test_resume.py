"""An RL run that goes on from a lane's state is the run that was never interrupted, alone and in another pack."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from harness.rlhf.lanes import RlTraining, lane_state, start
from harness.rlhf.loop import train
from harness.training.state import LaneState, from_tensors
from tests.rlhf.packs import ITERATIONS, SAMPLING, rl_lane, training
from tests.rlhf.test_loop import CASES
from tests.training.worlds import CPU

CONTROLLED = {
    "adaptive": [
        ("reinforce", {"baseline": "running", "kl_controller": "adaptive", "kl_target": 0.1, "reward_scale": True}, 0),
        ("reinforce", {"baseline": "running", "kl_controller": "adaptive", "kl_target": 0.5, "kl_gain": 1.0}, 1),
    ],
    **{case: [(case.split()[0], given, seed) for given, seed in lanes] for case, lanes in CASES.items()},
}
# By lane: every record's columns and scalars, in order.
Seen = dict[str, list[tuple[dict[str, np.ndarray], dict[str, float]]]]


def made(case: str, numbers: Sequence[int], states: Sequence[LaneState] = ()) -> RlTraining:
    """The lanes `numbers` of a case as one pack."""
    fresh = training([rl_lane(str(n), *CONTROLLED[case][n]) for n in numbers])
    return start(fresh.pack, fresh.rl_lanes, SAMPLING, CPU, states) if states else fresh


def follow(run: RlTraining, until: int | None = None) -> Seen:
    seen: Seen = {lane.key: [] for lane in run.pack.lanes}
    for record in train(run, until):
        seen[record.run_key].append((dict(record.columns), dict(record.scalars)))
    return seen


def equal(one: LaneState, other: LaneState) -> bool:
    mine, others = one.tensors(), other.tensors()
    return mine.keys() == others.keys() and all(torch.equal(mine[name], others[name]) for name in mine)


def same_records(mine: list, theirs: list) -> bool:
    return len(mine) == len(theirs) and all(
        watched == others and a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)
        for (a, watched), (b, others) in zip(mine, theirs, strict=True)
    )


@pytest.mark.parametrize("case", CONTROLLED)
def test_stopped_at_any_iteration_a_lane_goes_on_with_the_same_bits(case):
    everyone = list(range(len(CONTROLLED[case])))
    undisturbed = made(case, everyone)
    whole = follow(undisturbed)
    final = [lane_state(undisturbed, n) for n in everyone]
    for at in range(ITERATIONS + 1):
        first = made(case, everyone)
        before = follow(first, at)
        stored = [from_tensors(load(save(lane_state(first, n).tensors()))) for n in everyone]
        assert {state.step for state in stored} == {at}
        for numbers in (everyone[::-1], *([n] for n in everyone)):
            again = made(case, numbers, [stored[n] for n in numbers])
            after = follow(again)
            assert (again.generated, again.asked) == (undisturbed.generated, undisturbed.asked)
            for place, n in enumerate(numbers):
                assert equal(lane_state(again, place), final[n])
                assert same_records(before[str(n)] + after[str(n)], whole[str(n)])
    assert any(
        state.weights.ne(made(case, [n]).model.weights(0)).any() for n, state in zip(everyone, final, strict=True)
    )


def test_a_state_holds_what_the_run_carries():
    """Moved beta, running baseline, multipliers of the lane's own pairs, what was watched since the last checkpoint."""
    run = made("adaptive", [0, 1])
    assert {record.step for record in train(run, 1)} == {0}
    state = lane_state(run, 0)
    assert state.step == 1 and state.trainer["beta"].item() != run.start_beta[0].item()
    assert state.objective["baseline"].item() != 0
    names = [name for name in state.trainer if name != "beta"]
    assert any(name.endswith(".objective/kl") for name in names)
    assert all(state.trainer[name][1] == 1 for name in names if name.endswith(".rlhf/reward"))
    constrained = made("constrained_rlhf", [0])
    list(train(constrained, 2))
    assert (lane_state(constrained, 0).objective["multiplier"] > 0).any()


def test_states_of_different_steps_and_of_another_trainer_are_refused():
    run = made("rloo", [0, 1])
    list(train(run, 1))
    first = lane_state(run, 0)
    list(train(run, 2))
    with pytest.raises(ValueError, match="one step"):
        made("rloo", [0, 1], [first, lane_state(run, 1)])
    plain = from_tensors({name: t for name, t in first.tensors().items() if not name.startswith("trainer.")})
    with pytest.raises(KeyError):
        made("rloo", [0], [plain])
