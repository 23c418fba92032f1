"""Which runs train together, and in packs of what size: decided once per sweep and written to its plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from harness.corruptions.registry import relabels
from harness.identity import content_hash, plain
from harness.objectives.budget import budget, family, scalar_head
from harness.objectives.registry import OBJECTIVES
from harness.storage.plan_file import PLAN, read_plan_file
from harness.sweep.estimates import lanes_within, shape_of, step_shape
from harness.sweep.resources import memory
from harness.sweep.token_counts import TokenCounts, token_counts
from harness.types import DataSpec, InputError, ModelSpec, PathModelSpec, PlannedRun, RunSpec
from harness.worker.protocol import PackTask

# Lanes of a pack. On a CPU the gain of packing is the shared overhead of a step, and it is spent by about eight lanes;
# more only cost cache and make a killed sweep lose more. Models whose logits are large gain less and get fewer.
PACK_SIZE = 8
# Hyperparameters of RL that lanes of a pack must share: shapes, and where the reward comes from.
SHAPE = ("reward", "samples", "n", "estimate", "epochs", "minibatches", "pairs")
ROLLOUT = 0.5  # trained pairs that a sampled, scored response costs, and a pass over it
LOGIT_BYTES = 64 * 2**20  # of one training step, all lanes of a pack together


def pack_key(run: RunSpec) -> str:
    """Runs with equal keys may share a pack: architecture, widths, batch, steps, Adam constants, evaluation, device.

    On data, and with `training.mode: fast`, a step is as wide as its batch, so lanes see the same batches: one seed,
    one order, the same texts.
    """
    source: object
    if run.world is not None and run.training.mode == "strict":
        world = run.world
        source = [world.version, world.hidden_size, world.layers, world.heads, world.intermediate_size]
    else:
        texts = "" if relabels(run.corruption) else plain(run.corruption)
        source = [plain(run.world), plain(run.data), plain(run.model), run.seed, run.replica, texts]
    training = plain(budget(run.objective, run.training))
    if training["micro_batch"]:  # the objectives of a pack need one pass over its micro-batches, or two
        training["micro_batch"] = [training["micro_batch"], OBJECTIVES[run.objective.name].sees_batch]
    for lane_wise in ("schedule", "learning_rate", "warmup_steps", "final_lr_fraction", "max_grad_norm"):
        del training[lane_wise]
    needs = sorted(OBJECTIVES[run.objective.name].needs)  # what others in a pack need, an objective does not pay for
    return content_hash([source, training, plain(run.evaluation), run.device, needs, _shared_shape(run)])


def _shared_shape(run: RunSpec) -> object:
    """What a pack's runs must share beyond the steps: the kind of trainer, the head of the reward model that it trains
    or learns from, and for RL the shape of an iteration."""
    if family(run.objective) != "rl":
        return [family(run.objective), scalar_head(run.objective)]
    own = dict(run.objective.hyperparameters)
    headed = run.reward_model is not None and scalar_head(run.reward_model)
    return [run.objective.name, headed, *(own.get(name) for name in SHAPE)]


Source = tuple[DataSpec | None, ModelSpec | PathModelSpec | None, int]


def source_of(run: RunSpec) -> Source:
    """Data, model and seed: runs with the same share their reference. The embedded world is one source."""
    return (run.data, run.model, run.seed if run.data is not None else 0)


def by_source(runs: Iterable[RunSpec]) -> dict[Source, list[RunSpec]]:
    """Runs by their source, in order of first appearance."""
    groups: dict[Source, list[RunSpec]] = {}
    for run in runs:
        groups.setdefault(source_of(run), []).append(run)
    return groups


def counts_of(runs: Iterable[RunSpec], cache: Path) -> dict[Source, TokenCounts | None]:
    """The token counts of every source of the runs."""
    return {source: token_counts(members[0], cache) for source, members in by_source(runs).items()}


def scored_first(run: RunSpec) -> bool:
    """Whether the reference's responses are scored by all workers before packs train: of large models on data."""
    return run.data is not None and shape_of(run).parameters >= THREADED


def work_of(run: RunSpec) -> float:
    """The work of a run in trained pairs, for progress and the sequence of packs."""
    own, training = dict(run.objective.hyperparameters), budget(run.objective, run.training)
    if family(run.objective) != "rl":
        return float(training.steps * training.batch_size)
    if run.objective.name == "best_of_n":
        return float(run.evaluation.heldout * ROLLOUT * own["estimate"])
    # A response sampled and scored by two frozen models costs about as much as a pass over it.
    return float(training.steps * training.batch_size * own["samples"] * ROLLOUT * (1 + own.get("epochs", 1)))


def plan_packs(
    runs: Sequence[PlannedRun],
    workers: int,
    size: int = PACK_SIZE,
    first: int = 0,
    room: Callable[[RunSpec], int] | None = None,
) -> tuple[PackTask, ...]:
    """Cut the runs into packs of at most `size`, and at most what `room` allows for their kind.

    Runs of one replicate and source are neighbours, the longest packs come first. A short list is cut finer, so that
    every worker has a pack. A run's numbers do not depend on its pack, so any cut gives the same results; this one
    keeps corpora small. Packs are numbered from `first`.
    """
    groups: dict[str, list[PlannedRun]] = {}
    for planned in runs:
        groups.setdefault(pack_key(planned.run), []).append(planned)
    packs: list[tuple[str, tuple[PlannedRun, ...]]] = []
    for group, members in groups.items():
        ordered = sorted(members, key=lambda one: _side_by_side(one.run))
        most = min(size, room(ordered[0].run) if room is not None else size)
        if ordered[0].run.training.shards > 1:
            most = 1  # its processes hold a single lane
        if size <= PACK_SIZE:  # on a CPU; a GPU is bounded by its memory alone
            most = min(most, lanes_within_logits(ordered[0].run))
        count = min(max(-(-len(ordered) // most), workers if len(runs) < workers * size else 1), len(ordered))
        # Even packs: 9 runs make 5 + 4, not 8 + 1.
        edges = [round(i * len(ordered) / count) for i in range(count + 1)]
        packs += [(group, tuple(ordered[a:b])) for a, b in pairwise(edges)]
    packs.sort(key=lambda pack: -len(pack[1]) * work_of(pack[1][0].run))
    return tuple(PackTask(number, members, group) for number, (group, members) in enumerate(packs, start=first))


def _side_by_side(run: RunSpec) -> tuple[object, ...]:
    """The order of runs within a group: those that share data are neighbours."""
    return run.seed, str(plain(run.world)), str(plain(run.corruption))


def lanes_within_logits(run: RunSpec) -> int:
    """How many lanes of a model built for its data keep a step within `LOGIT_BYTES` of logits, at least 1."""
    if run.data is None or not isinstance(run.model, ModelSpec):
        return PACK_SIZE
    response = run.data.max_response_length or run.data.max_length
    return max(LOGIT_BYTES // (run.training.batch_size * 2 * response * run.model.vocab_size * 4), 1)


NO_COUNTS: Mapping[Source, TokenCounts | None] = {}
SHARE = 0.5  # of the machine's memory that training may take, all workers together
GPU_LANES = 512
THREADED = 10_000_000  # parameters of a model from which a second thread is worth its waiting for the first


@dataclass(frozen=True, slots=True)
class Packing:
    """At most `size` lanes per pack, and no more than keep a training step within `bytes` of memory.

    A pack computes in `threads`, on which the last bits of a result depend.
    """

    size: int
    bytes: int
    basis: str
    threads: int = 1

    def room(self, counts: Mapping[Source, TokenCounts | None], run: RunSpec) -> int:
        """Lanes that a pack of runs like this one may have, on data of these token counts."""
        return min(self.size, lanes_within(step_shape(run, counts.get(source_of(run))), self.bytes))


def settle(
    folder: Path,
    workers: int,
    gpu_bytes: int = 0,
    runs: Sequence[PlannedRun] = (),
    cores: int = 1,
    counts: Mapping[Source, TokenCounts | None] = NO_COUNTS,
) -> Packing:
    """The packing that the plan in `folder` states, or a new one for `runs` on so many cores.

    `gpu_bytes`: free memory of a GPU that trains.
    """
    stated = _stated(folder)
    if stated is not None:
        return stated
    if gpu_bytes:
        return Packing(GPU_LANES, int(gpu_bytes * SHARE), "as many runs as fit into GPU memory")
    limit = int(memory() * SHARE) // max(workers, 1)
    basis = f"{PACK_SIZE} runs on a CPU, fewer if memory is short"
    packing = Packing(PACK_SIZE, limit, basis)
    if not runs or min(shape_of(planned.run).parameters for planned in runs) < THREADED:
        return packing
    at_work = min(workers, len(plan_packs(runs, workers, PACK_SIZE, 0, partial(packing.room, counts))))
    return replace(packing, threads=max(cores // at_work, 1))


def _stated(folder: Path) -> Packing | None:
    if not (folder / PLAN).exists():
        return None
    try:
        found: Mapping[str, Any] = read_plan_file(folder)["packing"]
        return Packing(int(found["size"]), int(found["bytes"]), str(found["basis"]), int(found["threads"]))
    except (InputError, KeyError, TypeError, ValueError):  # damaged: the plan is written anew
        return None


def as_plan(packing: Packing) -> dict[str, Any]:
    """What the plan holds of it."""
    return asdict(packing)
