"""The reference models that a sweep builds before its runs: each keyed by its recipe, built once and stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness.data.mythworld import pairs as mythpairs
from harness.data.mythworld import tokens as mythtokens
from harness.data.mythworld import world as mythworld
from harness.data.mythworld.language import LANGUAGES, PROMPT_TOKENS
from harness.identity import stream_seed
from harness.inputs.mythworld import mythworld_architecture
from harness.inputs.text import fit_text_reference, starting_weights, text_reference_key
from harness.models.architecture import initial_weights
from harness.storage.arrays import load_arrays, save_arrays
from harness.training.sft import fit, likelihood_settings
from harness.types import PathModelSpec, RunSpec, WorldSpec


@dataclass(frozen=True, slots=True)
class Build:
    """A model to build: its key, the stage (pretrain | reference), and a run whose source and seed it belongs to."""

    key: str
    stage: str
    run: RunSpec


def builds(runs: Sequence[RunSpec]) -> tuple[tuple[Build, ...], ...]:
    """The models the runs need, stage by stage; each distinct recipe once, in order of first need."""
    pretrain: dict[str, Build] = {}
    reference: dict[str, Build] = {}
    for run in runs:
        if as_loaded(run):
            continue
        key = reference_key(run)
        reference.setdefault(key, Build(key, "reference", run))
        if run.world is not None:
            base = mythworld.pretraining_key(run.world, run.seed)
            pretrain.setdefault(base, Build(base, "pretrain", run))
    return tuple(stage for stage in (tuple(pretrain.values()), tuple(reference.values())) if stage)


def reference_key(run: RunSpec) -> str:
    """The recipe of a run's reference model."""
    return mythworld.reference_key(run.world, run.seed) if run.world is not None else text_reference_key(run)


def as_loaded(run: RunSpec) -> bool:
    """Whether a run starts from the model of its path as it is, so that nothing has to be built."""
    return isinstance(run.model, PathModelSpec) and not run.model.sft_steps


def start_weights(cache: Path, run: RunSpec) -> Tensor:
    """The row `(P,)` that a run's policy starts from, which is its reference unless the spec names another model.

    Raises RuntimeError where a model that the sweep builds is gone from the cache.
    """
    if as_loaded(run):
        return starting_weights(run)
    weights = load_weights(cache, reference_key(run))
    if weights is None:
        raise RuntimeError("the reference model of this run is not in the cache; run the command again")
    return weights


def weights_path(cache: Path, key: str) -> Path:
    """The file of a built model's weights."""
    return cache / "models" / f"{key[:32]}.safetensors"


def load_weights(cache: Path, key: str) -> Tensor | None:
    """Stored weights `(P,)`, or None where they are absent or damaged (then they are built again)."""
    arrays = load_arrays(weights_path(cache, key), key)
    return None if arrays is None else torch.from_numpy(arrays["weights"])


def build_models(cache: Path, wanted: Sequence[Build], device: torch.device) -> None:
    """Build and store the models of one stage that are missing, those of one recipe as one pack."""
    missing = [build for build in wanted if load_weights(cache, build.key) is None]
    if not missing:
        return
    if missing[0].run.world is None:
        for build in missing:
            _store(cache, build, fit_text_reference(build.run, device))
        return
    recipes: dict[WorldSpec, list[Build]] = {}
    for build in missing:
        assert build.run.world is not None
        # What a pack's models may differ in: the bias of the reference, and what only the pairs depend on.
        common = replace(build.run.world, misaligned=0.0, labels="hard", pairs=1, coverage=1.0)
        recipes.setdefault(common, []).append(build)
    for pack in recipes.values():
        for build, weights in zip(pack, _fit_worlds(cache, pack, device), strict=True):
            _store(cache, build, weights)


def _store(cache: Path, build: Build, weights: Tensor) -> None:
    array = weights.numpy().astype(np.float32)
    save_arrays(weights_path(cache, build.key), {"weights": array}, {"key": build.key, "stage": build.stage})


def _fit_worlds(cache: Path, wanted: Sequence[Build], device: torch.device) -> list[Tensor]:
    spec = wanted[0].run.world
    assert spec is not None
    architecture = mythworld_architecture(spec)
    starts, rows, responses = [], [], LANGUAGES[spec.version].response_tokens
    first = wanted[0].stage == "pretrain"
    steps, batch, rate = (
        (spec.pretrain_steps, spec.pretrain_batch, spec.pretrain_learning_rate)
        if first
        else (spec.sft_steps, spec.sft_batch, spec.sft_learning_rate)
    )
    for build in wanted:
        world_spec, seed = build.run.world, build.run.seed
        assert world_spec is not None
        world = mythworld.draw_world(seed, world_spec.version)
        if first:
            starts.append(initial_weights(architecture, stream_seed(seed, "init")))
        else:
            base = load_weights(cache, mythworld.pretraining_key(world_spec, seed))
            if base is None:
                raise RuntimeError("the pretrained model of this world is not in the cache; run the command again")
            starts.append(base)
        data = mythpairs.supervised(world, steps * batch, None if first else world_spec.misaligned)
        rows.append(mythtokens.encode_supervised(data, world.language))
    return fit(
        architecture,
        starts,
        rows,
        likelihood_settings(steps, batch, rate),
        device,
        [f"{build.stage} of world seed {build.run.seed}" for build in wanted],
        tokens=PROMPT_TOKENS + responses,
        responses=responses,
    )
