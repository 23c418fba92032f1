"""One block of a spec, the main grid or an `also:` entry: validated axes, counted and multiplied out to runs.

Imports no torch.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.config.answers_section import evaluation_axes, length_lines
from harness.config.cells import (
    Entry,
    check_entry,
    corruption_entry,
    objective_entry,
    resolve_corruption,
    resolve_objective,
)
from harness.config.data_section import data_axes
from harness.config.epochs import by_epochs
from harness.config.model_section import HASHES, fit_problems, is_path_model, path_model_axes
from harness.config.schema import SECTIONS, VARIANTS, read_mapping, section_axes, shown
from harness.config.strict_yaml import Node, plain
from harness.objectives.budget import REWARD_MODEL, family, learns_from_model
from harness.types import CorruptionSpec, InputError, ObjectiveSpec, Parameter, PathModelSpec, RunSpec, SeedRounds

MAX_SEED = 2**32
GRID = ("world", "data", "model", "training", "evaluation")  # outermost axes first
_DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]{1,3})?")


@dataclass(frozen=True, slots=True)
class Block:
    """Validated axes of one grid. `sections` holds field -> values for each section present."""

    sections: Mapping[str, Mapping[str, list[Any]]]
    objectives: tuple[Entry, ...]
    corruptions: tuple[Entry, ...]
    seeds: range | tuple[int, ...]
    device: str
    replicas: range | tuple[int, ...] = (0,)
    rounds: SeedRounds | None = None  # how many of the seeds run, where that depends on what they show

    @property
    def world(self) -> bool:
        """True in the embedded world, False on real data."""
        return "world" in self.sections

    def count(self) -> int:
        """Number of runs before equal ones are merged; nothing is made."""
        paired = HASHES.values()  # go with their paths
        axes = ((name, values) for section in self.sections.values() for name, values in section.items())
        grid = math.prod(len(values) for name, values in axes if name not in paired)
        cells = sum(e.count() for e in self.corruptions) * sum(e.count() for e in self.objectives)
        return grid * cells * len(self.seeds) * len(self.replicas)

    def runs(self) -> Iterator[RunSpec]:
        """Every run: section axes outermost, then corruption, objective, hyperparameters, seed, replica innermost.

        Raises InputError where a combination of values, each allowed alone, cannot be used.
        """
        corruptions = [resolve_corruption(cell) for entry in self.corruptions for cell in entry.cells()]
        objectives = [resolve_objective(cell, self.world) for entry in self.objectives for cell in entry.cells()]
        rewards = _reward_model(objectives, self.world)
        for parts in itertools.product(*(_section_cells(name, axes) for name, axes in self.sections.items())):
            common = dict(zip(self.sections, parts, strict=True))
            if isinstance(model := common.get("model"), PathModelSpec):
                _check_reference(model, objectives)
            yield from self._under(common, corruptions, objectives, rewards)

    def _under(
        self,
        common: dict[str, Any],
        corruptions: list[CorruptionSpec],
        objectives: list[ObjectiveSpec],
        rewards: ObjectiveSpec,
    ) -> Iterator[RunSpec]:
        for cell in itertools.product(corruptions, objectives, self.seeds, self.replicas):
            corruption, objective, seed, replica = cell
            run = RunSpec(
                objective=objective, corruption=corruption, seed=seed, device=self.device, replica=replica, **common
            )
            if run.training.epochs:
                run = replace(run, training=by_epochs(run))
            yield replace(run, reward_model=rewards) if learns_from_model(objective) else run


def _check_reference(model: PathModelSpec, objectives: Iterable[ObjectiveSpec]) -> None:
    """Raise InputError for an objective that cannot be trained against a reference other than its start."""
    if own := [objective.name for objective in objectives if model.reference and family(objective) == "rl"]:
        raise InputError(
            f"objective '{own[0]}': samples from the reference that its policy starts from; expected no model.reference"
        )


def _reward_model(objectives: Iterable[ObjectiveSpec], world: bool) -> ObjectiveSpec:
    """How the reward models of a grid's RL runs are trained: as its entry `reward_model` says, else by default."""
    objectives = tuple(objectives)
    found = {objective: None for objective in objectives if objective.name == REWARD_MODEL}
    if len(found) > 1 and any(map(learns_from_model, objectives)):
        raise InputError(
            f"objective '{REWARD_MODEL}': {len(found)} settings, but RL objectives learn from a single reward model; "
            "keep one here and put the others under `also:`"
        )
    return next(iter(found), resolve_objective({"name": REWARD_MODEL}, world))


def read_block(
    keys: Mapping[str, Node], prefixes: Mapping[str, str], where: str, base: Path, hashes: dict[Path, str]
) -> tuple[Block, list[str]]:
    """The block of the top-level `keys`, and its problems. `prefixes[key]` is `also.N.` for keys of an also-entry.

    `base` is the folder that relative data paths in the file are meant from; `hashes` holds data files read already.
    """
    problems: list[str] = []
    names = [name for name in GRID if name in keys or name in ("training", "evaluation")]
    if "world" in keys and "data" in keys:
        both = f"{keys['data'].where} {prefixes.get('data', '')}data"
        problems.append(f"{both}: given beside world; expected one of the two")
    if "world" not in keys and "data" not in keys:
        problems.append(f"{where} world: missing; expected `world: {{kind: mythworld}}` or `data: {{path: ...}}`")
    if "model" in keys and "world" in keys and "data" not in keys:
        alone = f"{keys['model'].where} {prefixes.get('model', '')}model"
        problems.append(f"{alone}: goes with data; the embedded world has its own model")
    if "data" in keys and "model" not in keys:
        names.insert(names.index("data") + 1, "model")
    sections = {}
    for name in names:
        node, prefix = keys.get(name), prefixes.get(name, "")
        if name == "data" and node is not None:
            sections[name] = data_axes(node, prefix, base, hashes, problems)
        elif name == "model" and node is not None and is_path_model(node):
            sections[name] = path_model_axes(node, prefix, base, hashes, problems)
            problems += fit_problems(sections[name], sections.get("data", {"max_length": []}), node.where)
        elif name == "evaluation":
            sections[name] = evaluation_axes(node, prefix, "world" in keys, base, problems)
        else:
            sections[name] = section_axes(name, node, problems, prefix)
    problems += length_lines(sections, keys.get("evaluation"), prefixes.get("evaluation", ""), where)
    given = keys["training"].value if "training" in keys else None
    if isinstance(given, dict) and {"steps", "epochs"} <= given.keys() and plain(given["epochs"]):
        place = f"{given['epochs'].where} {prefixes.get('training', '')}training.epochs"
        problems.append(f"{place}: given beside steps; expected one of the two")
    for name, axes in sections.items():
        problems += _shape_problems(name, axes, keys.get(name), prefixes.get(name, ""), where)
    world = "world" in keys
    rounds = read_rounds(keys.get("seeds"), prefixes.get("seeds", "") + "seeds", problems)

    def objective(cell: Mapping[str, Any]) -> ObjectiveSpec:
        return resolve_objective(cell, world)

    block = Block(
        sections=sections,
        objectives=_entries("objectives", "name", keys, prefixes, where, problems, objective_entry, objective),
        corruptions=_entries(
            "corruptions", "kind", keys, prefixes, where, problems, corruption_entry, resolve_corruption
        ),
        seeds=_numbers("seed", keys.get("seeds"), prefixes.get("seeds", "") + "seeds", problems)
        if rounds is None
        else range(rounds.most),
        device=_device(keys.get("device"), prefixes.get("device", "") + "device", problems),
        replicas=_numbers("replica", keys.get("replica"), prefixes.get("replica", "") + "replica", problems),
        rounds=rounds,
    )
    return block, problems


ROUNDS = {
    "min": Parameter(None, "int", 2, 1000),
    "max": Parameter(None, "int", 2, 1000),
    "stop": Parameter(None, "choice", choices=("settled",)),
}


def read_rounds(node: Node | None, path: str, problems: list[str]) -> SeedRounds | None:
    """The rounds of `seeds: {min: 4, max: 12, stop: settled}`; None of any other form and of a mistake."""
    if node is None or not isinstance(node.value, dict):
        return None
    example = "seeds: {min: 4, max: 12, stop: settled}"
    before, given = len(problems), read_mapping(ROUNDS, node, path, example, problems) or {}
    problems += [
        f"{node.where} {path}.{key}: missing; expected e.g. `{example}`" for key in ROUNDS if key not in node.value
    ]
    if len(problems) > before:
        return SeedRounds(1, 1)
    if given["max"] <= given["min"]:
        problems.append(f"{node.where} {path}.max: {given['max']} is no more than min {given['min']}; expected more")
    return SeedRounds(given["min"], given["max"])


def _section_cells(name: str, axes: Mapping[str, list[Any]]) -> list[Any]:
    kind = VARIANTS["path_model"] if name == "model" and "path" in axes else SECTIONS[name]
    # The content hash belongs to its path: one axis, not two.
    hashed = {path: of for path, of in HASHES.items() if path in axes and of in axes}
    single = [key for key in axes if key not in (*hashed, *hashed.values())]
    groups = [*([path, of] for path, of in hashed.items()), *([key] for key in single)]
    choices = [list(zip(*(axes[key] for key in group), strict=True)) for group in groups]
    names = list(itertools.chain.from_iterable(groups))
    cells = itertools.product(*choices)
    return [kind(**dict(zip(names, itertools.chain.from_iterable(values), strict=True))) for values in cells]


def _entries(
    section: str,
    head: str,
    keys: Mapping[str, Node],
    prefixes: Mapping[str, str],
    where: str,
    problems: list[str],
    read: Callable[[Node, str, list[str]], Entry | None],
    resolve: Callable[[Mapping[str, Any]], Any],
) -> tuple[Entry, ...]:
    """The entries of `objectives` or `corruptions`. Without `corruptions` a sweep has the clean set alone."""
    path, node = prefixes.get(section, "") + section, keys.get(section)
    if node is None:
        if section == "corruptions":
            return (Entry((("kind", ("none",)),), where, path),)
        problems.append(f"{where} {path}: missing; expected a list such as `- {{name: dpo}}`")
        return ()
    if not isinstance(node.value, tuple):
        problems.append(f"{node.where} {path}: {shown(plain(node))} is not a list; expected lines `- {{{head}: ...}}`")
        return ()
    if not node.value:
        problems.append(f"{node.where} {path}: an empty list gives 0 runs; expected at least one entry")
    entries = []
    for index, child in enumerate(node.value):
        entry = read(child, f"{path}.{index}", problems)
        if entry is not None and isinstance(child.value, dict):
            problems += check_entry(entry, resolve, head, child.value)
            entries.append(entry)
    return tuple(entries)


def _numbers(what: str, node: Node | None, path: str, problems: list[str]) -> range | tuple[int, ...]:
    """Seeds or replicas: `5` means 0 to 4, a list is taken as it is; without the key there is one, 0."""
    if node is None:
        return (0,)
    value = plain(node)
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_SEED:
        return range(value)
    wanted = f"a count from 1 to {MAX_SEED}, or a list of different integers in [0, {MAX_SEED}]"
    if not isinstance(node.value, tuple) or not node.value:
        given = "an empty list gives 0 runs" if value == [] else shown(value)
        problems.append(f"{node.where} {path}: {given}; expected {wanted}")
        return (0,)
    found: list[int] = []
    for index, child in enumerate(node.value):
        number = child.value
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= MAX_SEED:
            problems.append(f"{child.where} {path}.{index}: {shown(plain(child))}; expected {wanted}")
        elif number in found:
            problems.append(f"{child.where} {path}.{index}: {what} {number} is given twice; keep one")
        else:
            found.append(number)
    return tuple(found) or (0,)


def _device(node: Node | None, path: str, problems: list[str]) -> str:
    if node is None:
        return "auto"
    if isinstance(node.value, str) and _DEVICE.fullmatch(node.value):
        return node.value
    problems.append(f"{node.where} {path}: {shown(plain(node))}; expected one of auto, cpu, cuda, cuda:N (not an axis)")
    return "auto"


def _shape_problems(name: str, axes: Mapping[str, list[Any]], node: Node | None, prefix: str, where: str) -> list[str]:
    """Pairs of fields that cannot go together, each allowed alone."""

    def at(field: str) -> str:
        given = node.value if node is not None and isinstance(node.value, dict) else {}
        place = given[field].where if field in given else where
        return f"{place} {prefix}{name}.{field}"

    lines = []
    if "heads" in axes:
        for hidden, heads in itertools.product(axes["hidden_size"], axes["heads"]):
            if hidden % (2 * heads):  # rotary positions turn pairs of dimensions, so each head needs an even width
                lines.append(f"{at('hidden_size')}: {hidden} over {heads} heads; expected a multiple of 2 x heads")
    if name == "data":
        for total, prompt in itertools.product(axes["max_length"], axes["max_prompt_length"]):
            if prompt >= total:
                lines.append(f"{at('max_prompt_length')}: {prompt} leaves no room for a response; expected < {total}")
        for held, test in itertools.product(axes["heldout"], axes["test"]):
            if test and (0 if all(axes["heldout_split"]) else held) + test >= 1:
                lines.append(
                    f"{at('test')}: {test:g} beside heldout {held:g} leaves nothing to train on; expected less"
                )
    return lines
