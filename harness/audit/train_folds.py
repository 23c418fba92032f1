"""Out-of-fold evidence: what models that never saw a pair's prompt say of its label. Folds are lanes of one pack.

What is finished is kept by content, and a pack in training every minute, so an interrupted audit goes on.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness.data.order import batch_ids
from harness.data.rows import TokenisedPair, pack_rows, response_key
from harness.identity import content_hash, plain, stream_seed, uniform
from harness.metrics.records import Bools, Floats
from harness.metrics.suspicion import linear
from harness.models.architecture import Architecture, skeleton, with_score
from harness.models.lane_model import build_lanes
from harness.models.logps import build_corpus
from harness.models.pack import EvalSet, Lane, Pack
from harness.models.responses import score, summed
from harness.objectives.budget import budget
from harness.objectives.registry import OBJECTIVES
from harness.objectives.reward_model import REWARD_MODEL
from harness.storage.arrays import load_arrays, save_arrays
from harness.training.loop import Training, start, train
from harness.training.state import LaneState, from_tensors, lane_state
from harness.types import ObjectiveSpec, TrainingSpec

Say = Callable[[str], None]
SCORES = "scores"  # folder of stored evidence, under --out
# Part of the keys of stored evidence: bump when folds, lanes or their training change.
CODE_VERSION = 1
RIDGES = (0.01, 0.1, 1.0)  # of a linear head, per standard deviation of a hidden unit
SHOWN_EVERY = 20  # updates between two lines of progress
SAVE_SECONDS = 60.0  # between two checkpoints of a pack


@dataclass(frozen=True, eq=False)
class Judged:
    """The pairs of an audit as token ids, the prompt of each `(n,)`, and the reference that every model starts from.

    `ladder`: pairs differ in length and are scored in widths of their own.
    """

    tokens: Sequence[TokenisedPair]
    prompts: Sequence[str]
    architecture: Architecture
    weights: Tensor
    ladder: bool

    @property
    def identity(self) -> str:
        """What evidence depends on besides recipe, folds and labels: the token ids in their order, and the model."""
        keys = [(response_key(t.prompt, t.chosen), response_key(t.prompt, t.rejected)) for t in self.tokens]
        source = self.architecture.source
        model = "" if source is None else [source.sha256, source.dtype, source.attention, plain(source.lora)]
        return content_hash(
            [keys, list(self.prompts), model, hashlib.sha256(self.weights.numpy().tobytes()).hexdigest()]
        )


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the models of one kind are trained."""

    name: str
    objective: ObjectiveSpec
    training: TrainingSpec


def recipes(steps: int, batch_size: int, rate: float) -> tuple[Recipe, ...]:
    """The kinds of evidence: a reward model, and a policy trained by DPO with its implicit reward."""
    training = TrainingSpec(steps=steps, batch_size=batch_size, learning_rate=rate, mode="fast")
    reward = {name: parameter.default for name, parameter in REWARD_MODEL.hyperparameters.items()}
    reward |= {"head": "scalar", "steps": steps, "batch_size": batch_size, "learning_rate": rate, "shrink": SHRINK}
    dpo = {name: parameter.default for name, parameter in OBJECTIVES["dpo"].hyperparameters.items()}
    return tuple(
        Recipe(name, objective, budget(objective, training))
        for name, objective in (
            ("reward_model", ObjectiveSpec("reward_model", tuple(sorted(reward.items())))),
            ("dpo", ObjectiveSpec("dpo", tuple(sorted((dpo | {"beta": DPO_BETA}).items())))),
        )
    )


DPO_BETA = 0.5
SHRINK = 1e-3  # of the reward model: a fold trains briefly, which shrinks enough


def folds_by_prompt(prompts: Sequence[str], count: int, seed: int) -> np.ndarray:
    """The fold of each pair `(n,)`: prompts in hash order, each to the fold that has the fewest pairs so far."""
    size: dict[str, int] = {}
    for prompt in prompts:
        size[prompt] = size.get(prompt, 0) + 1
    filled = [0] * count
    of: dict[str, int] = {}
    for prompt in sorted(size, key=lambda one: (uniform(seed, "audit folds", one), one)):
        of[prompt] = filled.index(min(filled))
        filled[of[prompt]] += size[prompt]
    return np.array([of[prompt] for prompt in prompts], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Read:
    """What the reference makes of n pairs: log-probs of chosen and rejected `(n,)`, nats, and the difference of the two
    answers' mean hidden states `(n, d)`."""

    chosen: np.ndarray
    rejected: np.ndarray
    hidden: np.ndarray


def read_by_reference(judged: Judged, cache: Path, device: torch.device) -> Read:
    """One forward pass of the reference over every answer; stored under `cache` by content."""
    key = content_hash([CODE_VERSION, "reading", judged.identity, torch.__version__])
    path = _place(cache, key)
    known = load_arrays(path, key)
    if known is None:
        model = build_lanes(skeleton(judged.architecture), [judged.weights], device)
        answers = [(one.prompt, side) for one in judged.tokens for side in (one.chosen, one.rejected)]
        [scored] = score(model, [answers])
        sums = summed([one.logps for one in scored])
        means = np.array([one.state / len(one.logps) for one in scored], np.float32)
        known = {"chosen": sums[::2], "rejected": sums[1::2], "hidden": means[::2] - means[1::2]}
        save_arrays(path, known, {"key": key})
    return Read(known["chosen"], known["rejected"], known["hidden"])


def head_margins(hidden: np.ndarray, flipped: Bools, fold: np.ndarray) -> Floats:
    """Margins `(n,)` of each label by linear heads on hidden states `(n, d)` that saw no pair of the prompt."""
    scale = np.sqrt((hidden.astype(np.float64) ** 2).mean(0))
    features = hidden / np.where(scale > 0, scale, 1.0) * np.where(flipped, -1.0, 1.0)[:, None]
    margin = np.empty(len(features))
    for held in range(int(fold.max()) + 1):
        ridge = _ridge(features[fold != held], fold[fold != held])
        margin[fold == held] = features[fold == held] @ linear(features[fold != held], ridge)
    return margin


def _ridge(features: Floats, fold: np.ndarray) -> float:
    """The strength of shrinkage that judges one fold best after training on the others; the largest where it is one."""
    inner = fold == fold.min()
    if inner.all():
        return RIDGES[-1]
    loss = [float(np.logaddexp(0, -features[inner] @ linear(features[~inner], ridge)).mean()) for ridge in RIDGES]
    return RIDGES[int(np.argmin(loss))]


def _place(cache: Path, key: str) -> Path:
    return cache / SCORES / f"{key[:32]}.safetensors"


def out_of_fold(
    judged: Judged,
    reference: Read,
    labels: Sequence[Bools],
    fold: np.ndarray,
    recipe: Recipe,
    cache: Path,
    device: torch.device,
    say: Say,
) -> Floats:
    """Reward margins `(len(labels), n)`, chosen minus rejected as labelled, by models that saw no pair of the prompt.

    `labels[i]` `(n,)` says which pairs are labelled the other way than they stand; `fold` `(n,)`. All folds of all
    labellings are lanes of one pack. What is stored under `cache` by content is not trained again.
    """
    key = content_hash(
        [CODE_VERSION, judged.identity, plain(recipe), [one.tolist() for one in (*labels, fold)], torch.__version__]
    )
    path = _place(cache, key)
    known = load_arrays(path, key)
    if known is not None:
        return known["margins"].astype(np.float64)
    rows = pack_rows(judged.tokens)
    corpus = build_corpus([rows], [(reference.chosen, reference.rejected)], device)
    architecture, weights = judged.architecture, judged.weights
    if recipe.objective.name == "reward_model":
        architecture, weights = with_score(architecture, weights)
    names = [f"{i} {one.id}" for i, one in enumerate(judged.tokens)]
    lanes, places = [], []
    for number, flipped in enumerate(labels):
        for held in range(int(fold.max()) + 1):
            lanes.append(_lane(f"{number} {held}", names, flipped, fold == held, weights, recipe))
            places.append((number, np.flatnonzero(fold == held)))
    pack = Pack(architecture, corpus, tuple(lanes), (recipe.training.steps,), judged.ladder)
    checkpoint = Checkpoint(path.with_suffix(".part"), key)
    margins = _trained(pack, device, say, recipe.name, checkpoint)
    found = np.full((len(labels), len(names)), np.nan)
    for (number, inside), values in zip(places, margins, strict=True):
        found[number, inside] = values
    save_arrays(path, {"margins": found.astype(np.float32)}, {"key": key})
    checkpoint.path.unlink(missing_ok=True)
    return found.astype(np.float32).astype(np.float64)


def _lane(name: str, names: Sequence[str], flipped: Bools, held: Bools, weights: Tensor, recipe: Recipe) -> Lane:
    """A lane that trains on the pairs outside a fold and judges those inside."""
    outside, inside = np.flatnonzero(~held), np.flatnonzero(held)
    training = recipe.training
    ids, judged = [names[i] for i in outside.tolist()], tuple(names[i] for i in inside.tolist())
    order = outside[batch_ids(ids, stream_seed(0, f"audit {name}"), training.steps, training.batch_size)]
    return Lane(
        name, recipe.objective, training, weights, torch.from_numpy(order), torch.from_numpy(flipped[order]),
        (EvalSet("fold", judged, torch.from_numpy(inside), torch.from_numpy(flipped[inside])),),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The file of a pack in training, and what it depends on."""

    path: Path
    key: str

    def load(self, lanes: int) -> list[LaneState | None]:
        """The state of each lane; None where the pack starts anew."""
        arrays = load_arrays(self.path, self.key)
        if arrays is None:
            return [None] * lanes
        parts: list[dict[str, Tensor]] = [{} for _ in range(lanes)]
        for name, values in arrays.items():
            lane, _, part = name.partition(" ")
            parts[int(lane)][part] = torch.from_numpy(values)
        return [from_tensors(part) for part in parts]

    def save(self, run: Training) -> None:
        """Store the state of every lane."""
        arrays = {
            f"{lane} {part}": tensor.numpy()
            for lane in range(len(run.pack.lanes))
            for part, tensor in lane_state(run, lane).tensors().items()
        }
        save_arrays(self.path, arrays, {"key": self.key})


def _trained(pack: Pack, device: torch.device, say: Say, name: str, checkpoint: Checkpoint) -> list[np.ndarray]:
    """The reward margins of each lane's held-out pairs once all are trained; goes on from a checkpoint."""
    run = start(pack, device, checkpoint.load(len(pack.lanes)))
    if run.step:
        say(f"{name}: goes on after update {run.step} of {run.steps}")
    saved = time.monotonic()
    for until in range(run.step // SHOWN_EVERY * SHOWN_EVERY + SHOWN_EVERY, run.steps, SHOWN_EVERY):
        for _ in train(run, until):
            raise AssertionError("measured at the last step alone")
        if time.monotonic() - saved >= SAVE_SECONDS:
            checkpoint.save(run)
            saved = time.monotonic()
        say(f"{name}: update {until} of {run.steps}, {len(pack.lanes)} models side by side")
    margins = {r.run_key: r.columns["chosen_reward"] - r.columns["rejected_reward"] for r in train(run)}
    return [np.asarray(margins[lane.key], np.float64) for lane in pack.lanes]
