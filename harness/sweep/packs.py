"""Which runs train together: the pack key says who may share a pack, the order keeps runs of one setting together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from harness.model_files.place import model_shape
from harness.names import content_hash, plain, run_key
from harness.objectives.table import OBJECTIVES
from harness.objectives.table_budget import budget, family
from harness.types import PathModelSpec, RunSpec

# Lanes of a pack. On a CPU the gain of packing is the shared overhead of a step, and it is spent by about eight lanes;
# more only cost cache and make a killed sweep lose more. Models whose logits are large gain less and get fewer.
PACK_SIZE = 8
# Hyperparameters of RL that lanes of a pack must share: they are shapes, or who is asked for the reward.
SHAPE = ("reward", "samples", "n", "estimate", "epochs", "minibatches", "pairs")
ROLLOUT = 0.5  # trained pairs that a sampled, scored response costs, and a pass over it
LOGIT_BYTES = 64 * 2**20  # of one training step, all lanes of a pack together
PATH_BYTES = 24 * 2**30  # of one training step of a model from a path, all lanes together, the shared base not counted


@dataclass(frozen=True, slots=True)
class PackTask:
    """One unit of scheduling: runs that train in lockstep. `number` names the pack in plan, costs and progress."""

    number: int
    runs: tuple[RunSpec, ...]


def pack_key(run: RunSpec) -> str:
    """Runs with equal keys may share a pack: architecture, widths, batch, steps, Adam constants, evaluation, device."""
    source: object
    if run.world is not None:
        source = [run.world.hidden_size, run.world.layers, run.world.heads, run.world.intermediate_size]
    else:
        # Where each replicate trains its own tokenizer, row widths differ between seeds.
        own = [] if isinstance(run.model, PathModelSpec) else [run.seed]
        source = [plain(run.data), plain(run.model), *own]
    training = plain(budget(run.objective, run.training))
    for lane_wise in ("learning_rate", "warmup_steps", "final_lr_fraction", "max_grad_norm"):
        del training[lane_wise]
    needs = sorted(OBJECTIVES[run.objective.name].needs)  # what others in a pack need, an objective does not pay for
    return content_hash([source, training, plain(run.evaluation), run.device, needs, _shape(run)])


def _shape(run: RunSpec) -> object:
    """What a pack's runs must share beyond the steps: the kind of trainer, and for RL the shape of an iteration."""
    if family(run.objective) != "rl":
        return family(run.objective)
    own = dict(run.objective.hyperparameters)
    return [run.objective.name, *(own.get(name) for name in SHAPE)]


def work_of(run: RunSpec) -> float:
    """The work of a run in trained pairs: what progress and the order of packs go by."""
    own, training = dict(run.objective.hyperparameters), budget(run.objective, run.training)
    if family(run.objective) != "rl":
        return float(training.steps * training.batch_size)
    if run.objective.name == "best_of_n":
        return float(run.evaluation.heldout * ROLLOUT * own["estimate"])
    # A response sampled and scored by two frozen models costs about as much as a pass over it.
    return float(training.steps * training.batch_size * own["samples"] * ROLLOUT * (1 + own.get("epochs", 1)))


def plan_packs(
    runs: Sequence[RunSpec],
    workers: int,
    size: int = PACK_SIZE,
    first: int = 0,
    room: Callable[[RunSpec], int] | None = None,
) -> tuple[PackTask, ...]:
    """Cut the runs into packs of at most `size`, and at most what `room` allows for their kind.

    Runs of one replicate and source stand side by side, the longest packs come first. A short list is cut finer, so
    that every worker has a pack. A lane's numbers do not depend on its pack, so any cut gives the same results; this
    one keeps corpora small. Packs are numbered from `first`.
    """
    groups: dict[str, list[RunSpec]] = {}
    for run in runs:
        groups.setdefault(pack_key(run), []).append(run)
    packs: list[tuple[RunSpec, ...]] = []
    for members in groups.values():
        ordered = sorted(members, key=lambda run: (run.seed, str(plain(run.world)), str(plain(run.corruption))))
        most = min(size, room(ordered[0]) if room is not None else size)
        # The embedded world's logits are small; those of a built text model bound packs on a CPU alone.
        if isinstance(ordered[0].model, PathModelSpec) or (ordered[0].data is not None and size <= PACK_SIZE):
            most = min(most, lanes_that_fit(ordered[0]))
        count = min(max(-(-len(ordered) // most), workers if len(runs) < workers * size else 1), len(ordered))
        # Even packs: 9 runs make 5 + 4, not 8 + 1.
        edges = [round(i * len(ordered) / count) for i in range(count + 1)]
        packs += [tuple(ordered[a:b]) for a, b in pairwise(edges)]
    packs.sort(key=lambda pack: -len(pack) * work_of(pack[0]))
    return tuple(PackTask(number, pack) for number, pack in enumerate(packs, start=first))


def lanes_that_fit(run: RunSpec) -> int:
    """How many lanes keep a step within `LOGIT_BYTES` of logits, or `PATH_BYTES` for one from a path; 1 at least."""
    if run.data is None or run.model is None:
        return PACK_SIZE
    response = run.data.max_response_length or run.data.max_length
    if isinstance(run.model, PathModelSpec):
        return max(PATH_BYTES // _lane_bytes(run, run.model, run.data.max_prompt_length + 2 * response), 1)
    return max(LOGIT_BYTES // (run.training.batch_size * 2 * response * run.model.vocab_size * 4), 1)


def _lane_bytes(run: RunSpec, model: PathModelSpec, width: int) -> int:
    """About what a lane's step holds beside the shared base: activations of rows of `width` tokens, and its state.

    A layer keeps some ten hidden vectors and three of the MLP a token; with gradient checkpointing one vector, and one
    layer at a time in full. The state is weights, gradient and two moments in fp32.
    """
    shape, size = model_shape(model), 2 if model.dtype == "bfloat16" else 4
    tokens = budget(run.objective, run.training).batch_size * width
    layer = tokens * (10 * shape.hidden_size + 3 * shape.intermediate_size) * size
    kept = layer + shape.layers * tokens * shape.hidden_size * size
    state = 16 * shape.parameters if model.lora is None else 0
    return state + (kept if model.gradient_checkpointing else shape.layers * layer)


def keys(task: PackTask) -> tuple[str, ...]:
    """The run keys of a pack, lane by lane."""
    return tuple(run_key(run) for run in task.runs)
