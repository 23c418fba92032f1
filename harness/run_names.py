"""Readable names of runs, such as `dpo b=2 flip=0.2 refwrong=0.75 s0`. Imports no torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.config.cells import world_defaults
from harness.identity import plain, run_key
from harness.objectives.registry import OBJECTIVES
from harness.types import CorruptionSpec, ObjectiveSpec, PlannedRun, RunSpec

_SHORT = {"uniform_flip": "flip"}
_SECTIONS = ("world", "data", "model", "training", "evaluation")


def readable_name(run: RunSpec) -> str:
    """Objective, beta, what differs from its defaults, corruption, `refwrong` (the world's
    `misaligned`), label kind, replica, seed.

    Settings shared by a sweep (steps, sizes, ...) are left out, so two runs may share a name: see `readable_names`.
    """
    parts = [*_objective(run.objective, run.world is not None), *_corruption(run.corruption)]
    if run.world is not None:
        parts.append(f"refwrong={_text(run.world.misaligned)}")
        if run.world.labels != "hard":
            parts.append(run.world.labels)
    if run.replica:
        parts.append(f"r{run.replica}")
    return " ".join([*parts, f"s{run.seed}"])


def readable_names(runs: Iterable[RunSpec]) -> tuple[str, ...]:
    """One name per run, different for different runs: settings in which namesakes differ stand before the seed."""
    runs = tuple(runs)
    return _told_apart(runs, [readable_name(run) for run in runs])


def set_names(runs: Iterable[RunSpec]) -> tuple[str, ...]:
    """A name for the training set of each run, `flip=0.2 s0`: corruption, source settings that differ, seed."""
    runs = tuple(runs)
    return _told_apart(runs, [" ".join([*(_corruption(run.corruption) or ["clean"]), f"s{run.seed}"]) for run in runs])


def _told_apart(runs: Sequence[RunSpec], plain_names: Sequence[str]) -> tuple[str, ...]:
    groups: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(plain_names):
        groups[name].append(index)
    names = [""] * len(runs)
    for name, members in groups.items():
        settings = [_settings(runs[index]) for index in members]
        known = dict.fromkeys(key for own in settings for key in own)  # some are not mentioned at their default
        telling = [key for key in known if len({str(s.get(key)) for s in settings}) > 1]
        for index, own in zip(members, settings, strict=True):
            head, _, seed = name.rpartition(" ")
            names[index] = " ".join([head, *(f"{key}={_text(own[key])}" for key in telling if key in own), seed])
    return tuple(names)


def planned_runs(runs: Iterable[RunSpec]) -> tuple[PlannedRun, ...]:
    """The runs of a sweep with their keys and names."""
    runs = tuple(runs)
    return tuple(PlannedRun(run_key(run), name, run) for run, name in zip(runs, readable_names(runs), strict=True))


def _settings(run: RunSpec) -> dict[str, Any]:
    """Every section field as `steps`, `pairs`, ...; a name used twice keeps its section. Data files by content."""
    out: dict[str, Any] = {}
    for section in _SECTIONS:
        values: Mapping[str, Any] = plain(getattr(run, section)) or {}
        for key, value in values.items():
            if key not in ("path", "reference", "reference_logps"):
                value = value[:8] if key.endswith("sha256") else _lora(value) if key == "lora" else value
                out[f"{section}.{key}" if key in out else key] = value
    return out


def _lora(lora: Mapping[str, Any] | None) -> str:
    """`full`, or rank, alpha and targets of adapters, e.g. `r16/a32`."""
    if lora is None:
        return "full"
    targets = [] if lora["targets"] == ["all-linear"] else [",".join(lora["targets"])]
    return "/".join([f"r{lora['rank']}", f"a{lora['alpha']:g}", *targets])


def _objective(spec: ObjectiveSpec, world: bool) -> list[str]:
    row = OBJECTIVES.get(spec.name)
    usual = {name: parameter.default for name, parameter in row.hyperparameters.items()} if row else {}
    usual |= world_defaults(spec.name, {}) if world else {}
    others = [(name, value) for name, value in spec.hyperparameters if name != "beta"]
    parts = [spec.name] if spec.beta is None else [spec.name, f"b={_text(spec.beta)}"]
    return parts + [f"{name}={_text(value)}" for name, value in others if name not in usual or usual[name] != value]


def _corruption(spec: CorruptionSpec) -> list[str]:
    if spec.kind == "none":
        return []
    if spec.kind == "sequence":
        steps = [CorruptionSpec(kind, rate, params) for kind, rate, params in dict(spec.params)["steps"]]
        return ["+".join("/".join(_corruption(step)) for step in steps)]
    name = _SHORT.get(spec.kind, spec.kind)
    head = name if spec.rate is None else f"{name}={_text(spec.rate)}"
    return [head, *(f"{key}={_text(value)}" for key, value in spec.params)]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return "".join(str(plain(value)).split())
