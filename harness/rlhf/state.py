"""The state of an RL lane between two iterations: what the trainer of given pairs keeps of one, and what RL carries.

Uniforms are counted, not kept: how many an iteration draws is a constant of the run, so a stream is drawn on to where
it was. Rollouts live within an iteration.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from harness.training import state as common
from harness.training.state import LaneState

if TYPE_CHECKING:
    from harness.rlhf.lanes import RlTraining

BETA, WATCHED = "beta", "watched."


def lane_state(run: RlTraining, lane: int) -> LaneState:
    """A copy of one lane's state, taken between two iterations.

    `trainer` holds `beta` `(1,)` as the KL controller left it, and sum and count `(2,)` of all that was watched since
    the last checkpoint, numbered so that they come back in their order.
    """
    watched = {f"{WATCHED}{i:03}.{name}": pair for i, (name, pair) in enumerate(run.tally.kept(lane).items())}
    return replace(common.lane_state(run, lane), trainer={BETA: run.beta[lane].detach().cpu().clone(), **watched})


def restore(run: RlTraining, lane: int, state: LaneState) -> None:
    """Put a state in the place of all that a lane carries beside its weights, which are there already.

    Raises KeyError where it is none of an RL run.
    """
    common.restore(run, lane, state)
    run.beta = run.beta.clone()
    run.beta[lane] = state.trainer[BETA].to(run.beta.device)
    kept = {name: state.trainer[name] for name in sorted(state.trainer) if name.startswith(WATCHED)}
    run.tally.put(lane, {name.split(".", 2)[2]: pair for name, pair in kept.items()}, run.beta.device)
