"""What the RL loop trains: the lanes of a pack with their rewards, and the live state of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from harness.models.architecture import skeleton, with_score
from harness.models.lane_model import LaneModel, build_lanes
from harness.models.pack import Lane, LaneGroup, Pack, lane_groups
from harness.rlhf.algorithms import Algorithm
from harness.rlhf.registry import ALGORITHMS
from harness.rlhf.rollouts import prompt_table
from harness.rlhf.tally import Tally
from harness.training import state as training_state
from harness.training.optim import AdamState, adam_state
from harness.training.state import LaneState

BETA, WATCHED = "beta", "watched."  # names of what an RL lane's state carries beside the trainer's
# The source's own reward: (n prompts, n responses, as token ids) -> rewards (n,), NaN where it knows none.
Gold = Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], np.ndarray]


@dataclass(frozen=True, slots=True, eq=False)
class RlLane:
    """One RL run of a pack: its lane, whose batches name the pairs that lend their prompts, and its reward.

    `reward` are the weights of its reward model: `(P + d,)` with a scalar head, or `(P,)` with `per_nat`, the reward
    per nat of its log-ratio to the reference; None where `gold` is the reward itself. `scale` divides the reward.
    `gold` judges samples. `seed` drives the uniforms.
    `pairs`, `flipped` `(iterations, B)`: the training pairs that constrain each iteration, where the objective is
    constrained. `broken`: its reward model stopped being finite, so the run counts as diverged from the start.
    """

    lane: Lane
    seed: int
    scale: float
    reward: Tensor | None
    gold: Gold
    broken: bool = False
    pairs: Tensor | None = None
    flipped: Tensor | None = None
    per_nat: float | None = None


@dataclass(frozen=True, slots=True)
class Sampling:
    """Constants of a source: end-of-sequence id, width of a padded prompt, most tokens of a response."""

    eos: int
    width: int
    depth: int


@dataclass(frozen=True, slots=True, eq=False)
class Timetable:
    """What every iteration of a pack reads: `batches` `(iterations, K, p)`, `rates` `(iterations, K, 1)`, and the pairs
    that constrain it with which are labelled the other way, `(iterations, K, B)` each, where any do."""

    batches: Tensor
    rates: Tensor
    max_norm: Tensor  # (K, 1)
    constraint: tuple[Tensor, Tensor] | None


@dataclass
class RlTraining:
    """The live state of an RL pack: what `train` yields records about, and what is left when it ends."""

    pack: Pack
    rl_lanes: tuple[RlLane, ...]
    sampling: Sampling
    k: int
    model: LaneModel
    reference: LaneModel
    scorer: LaneModel | None
    per_nat: Tensor | None  # (K, 1), where the scorer is read by its log-ratio to the reference
    groups: tuple[LaneGroup, ...]
    prompts: tuple[Tensor, Tensor]
    start_beta: Tensor  # (K, 1)
    beta: Tensor  # (K, 1), as the KL controller moves it
    scale: Tensor  # (K, 1)
    diverged_at: Tensor  # (K, 1), -1 while finite
    adam: AdamState
    tally: Tally  # what was watched since the last checkpoint
    step: int = 0  # iterations done
    timetable: Timetable | None = None  # made by the first `train`, so that going on costs nothing
    generated: int = 0  # tokens sampled by a lane so far, padding included
    asked: int = 0  # prompts read for them
    uniforms: tuple[np.random.Generator, ...] = field(default=())

    @property
    def alive(self) -> Tensor:
        """Which lanes are still finite, `(K, 1)` bool."""
        return self.diverged_at < 0

    def step_of(self, lane: int) -> int:  # noqa: ARG002 - lanes go together
        """Iterations that the lane has done."""
        return self.step


def start(
    pack: Pack, rl_lanes: Sequence[RlLane], sampling: Sampling, device: torch.device, states: Sequence[LaneState] = ()
) -> RlTraining:
    """Put an RL pack on its device. All lanes share one shape (`pack_key`): samples, epochs, kind of reward.

    With `states`, one a lane and all of one step (`lane_state`), every lane goes on from its state; the records of
    that step are still to come. Raises ValueError where they are of different steps.
    """
    steps = {state.step for state in states} or {0}
    if len(steps) > 1:
        raise ValueError(f"lanes of a pack go on from one step, not from {sorted(steps)}")
    objectives = [lane.objective for lane in pack.lanes]
    groups = lane_groups(objectives, pack.corpus.ids.shape[0], device)
    weights = [lane.weights for lane in pack.lanes]
    architecture, starts = pack.architecture, weights
    if any(needs_values(group) for group in groups):
        architecture = with_score(pack.architecture, weights[0])[0]
        starts = [with_score(pack.architecture, row)[1] for row in weights]
    models = [lane.reward for lane in rl_lanes if lane.reward is not None]
    nats = [lane.per_nat for lane in rl_lanes if lane.per_nat is not None]
    scored = pack.architecture if nats else with_score(pack.architecture, weights[0])[0]
    beta = torch.tensor([[objective.beta or 0.0] for objective in objectives], device=device)
    model = build_lanes(skeleton(architecture), [state.weights for state in states] or starts, device)
    trained = model.flat if pack.lanes[0].training.steps else model.flat[:, :0]  # best-of-n has no moments
    run = RlTraining(
        pack=pack,
        rl_lanes=tuple(rl_lanes),
        sampling=sampling,
        k=int(dict(objectives[0].hyperparameters).get("samples", 1)),
        model=model,
        reference=build_lanes(skeleton(pack.architecture), weights, device),
        scorer=build_lanes(skeleton(scored), models, device) if models else None,
        per_nat=torch.tensor(nats, device=device)[:, None] if nats else None,
        groups=groups,
        prompts=prompt_table(pack.corpus, sampling.width),
        start_beta=beta,
        beta=beta,
        scale=torch.tensor([[lane.scale] for lane in rl_lanes], device=device),
        diverged_at=torch.tensor([[0 if lane.broken else -1] for lane in rl_lanes], device=device),
        adam=adam_state(trained),
        tally=Tally(len(rl_lanes)),
        uniforms=tuple(np.random.Generator(np.random.Philox(lane.seed)) for lane in rl_lanes),
    )
    for _ in range(steps.pop()):
        run.step += 1
        draw(run)  # what the iterations before have used
    for lane, state in enumerate(states):
        restore(run, lane, state)
    return run


def draw(run: RlTraining) -> np.ndarray:
    """The uniforms `(K, p k, L)` in [0, 1) that decide the tokens of the next iteration, counted as generated."""
    prompts = run.pack.lanes[0].batches.shape[1]
    size = (prompts * run.k, run.sampling.depth)
    run.generated += size[0] * size[1]
    run.asked += prompts
    return np.stack([stream.random(size, dtype=np.float32) for stream in run.uniforms])


def needs_values(group: LaneGroup) -> bool:
    """Whether the group's policy carries a value head."""
    return group.row.name in ALGORITHMS and ALGORITHMS[group.row.name].needs_values


def algorithm(group: LaneGroup) -> Algorithm:
    """The algorithm of the group's objective."""
    return ALGORITHMS[group.row.name]


def lane_state(run: RlTraining, lane: int) -> LaneState:
    """A copy of one lane's state, taken between two iterations.

    `trainer` holds `beta` `(1,)` as the KL controller left it, and sum and count `(2,)` of all that was watched since
    the last checkpoint, numbered so that they come back in their order.
    """
    watched = {f"{WATCHED}{i:03}.{name}": pair for i, (name, pair) in enumerate(run.tally.kept(lane).items())}
    return replace(
        training_state.lane_state(run, lane), trainer={BETA: run.beta[lane].detach().cpu().clone(), **watched}
    )


def restore(run: RlTraining, lane: int, state: LaneState) -> None:
    """Put a state in the place of all that a lane carries beside its weights, which are there already.

    Raises KeyError where it is none of an RL run.
    """
    training_state.restore(run, lane, state)
    run.beta = run.beta.clone()
    run.beta[lane] = state.trainer[BETA].to(run.beta.device)
    kept = {name: state.trainer[name] for name in sorted(state.trainer) if name.startswith(WATCHED)}
    run.tally.put(lane, {name.split(".", 2)[2]: pair for name, pair in kept.items()}, run.beta.device)
