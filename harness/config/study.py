"""YAML -> StudySpec: a sweep's settings held fixed, what is searched, what it aims at, and how much it may cost.

Every mistake is named at once with file, line and key, before anything is trained. Imports no torch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.config.cells import resolve_objective
from harness.config.gold_section import take_gold
from harness.config.grid import Block, read_block
from harness.config.lm_eval_section import take_lm_eval
from harness.config.load import GRID_KEYS, STUDY_KEYS, run_problems, texts
from harness.config.load import unknown as unknown_keys
from harness.config.overrides import apply_overrides
from harness.config.report_section import KEY as REPORT
from harness.config.report_section import read_report
from harness.config.schema import SECTIONS, shown
from harness.config.search_space import Arm, Axis, Choice, ends, read_arms, replace_axes
from harness.config.strict_yaml import Node, read_yaml
from harness.config.strict_yaml import plain as plain_node
from harness.config.study_settings import (
    Budget,
    Pruner,
    Sampler,
    pruner_problems,
    read_count,
    read_fresh,
    read_settings,
    read_storage,
)
from harness.config.study_targets import Constraint, Context, Target, read_constraints, read_targets
from harness.identity import content_hash, plain, recipe_version
from harness.metrics.registry import METRICS
from harness.model_files.folder import folder_sha256
from harness.model_files.location import locate_classifier
from harness.objectives.registry import OBJECTIVES
from harness.types import CorruptionSpec, GoldSpec, InputError, LmEvalSpec, ReportSpec, RunSpec

TOP_KEYS = ("name", "question", *GRID_KEYS, *STUDY_KEYS, REPORT)
MAX_CORNERS = 256


@dataclass(frozen=True, slots=True)
class StudySpec:
    """One study, fully resolved: `arms` are searched apart, with equal budgets; everything else is shared and fixed.
    An objective has one arm for each of its searches (`sampler_seeds`).

    `seeds` are those of every trial, `fresh_seeds` those of the winners' re-run; they share none. `round` trials an
    arm are asked together. `template` holds all that no axis changes. `storage` is empty for the study's own file.
    """

    name: str
    question: str
    arms: tuple[Arm, ...]
    template: RunSpec
    seeds: tuple[int, ...]
    fresh_seeds: tuple[int, ...]
    trials: int
    round: int
    targets: tuple[Target, ...]
    constraints: tuple[Constraint, ...]
    sampler: Sampler
    pruner: Pruner
    budget: Budget
    storage: str
    resolved: Mapping[str, Any]
    path: Path
    lm_eval: LmEvalSpec | None = None  # benchmarks of every run, which may be aimed at
    report: ReportSpec = field(default_factory=ReportSpec)
    gold: GoldSpec | None = None  # reward models that score every run, whose gold reward may be aimed at
    gold_identities: tuple[str, ...] = ()  # of their content

    def run(self, arm: Arm, params: Mapping[str, Any], seed: int) -> RunSpec:
        """The training run of one trial and seed."""
        inner = {key.partition(".")[2]: value for key, value in params.items() if key.startswith("training.")}
        own = {key: value for key, value in params.items() if not key.startswith("training.")}
        objective = resolve_objective({**arm.fixed, **own}, self.template.world is not None)
        return replace(self.template, objective=objective, training=replace(self.template.training, **inner), seed=seed)

    @property
    def wanted(self) -> tuple[Target | Constraint, ...]:
        """Everything a trial must have a value for: targets, then bounds."""
        return (*self.targets, *self.constraints)

    @property
    def key(self) -> str:
        """Hash of all that decides which trials are asked and what they score; more trials or fresh seeds keep it."""
        asked = {key: self.resolved[key] for key in (*SECTIONS, "corruptions", "seeds") if key in self.resolved}
        if "data" in asked:
            asked["data"] = {name: value for name, value in asked["data"].items() if name != "path"}
        if self.gold is not None:
            own = {**plain(self.gold), "reward_model": self.gold_identities}
            asked["evaluation"] = {**asked["evaluation"], "gold": own}
        asked["evaluation"] = {name: value for name, value in asked["evaluation"].items() if name != "prompts"}
        arms = [[arm.label, plain(arm.fixed), [(name, plain(axis)) for name, axis in arm.space.items()]]
                for arm in self.arms]  # fmt: skip
        steering = [plain(self.targets), plain(self.constraints), plain(self.sampler), plain(self.pruner)]
        # What plug-ins bring enters by source; the template's data and corruption do so as part of the runs' keys.
        used = [
            *(OBJECTIVES.plugin(str(arm.fixed.get("name", ""))) for arm in self.arms),
            self.template.corruption.plugin,
        ]
        used += [METRICS.plugin(one.measure) for one in self.wanted]
        plugins = sorted({*used} - {""})
        return content_hash([recipe_version(self.template), asked, arms, steering, *([plugins] if plugins else [])])


def load_study(path: Path | str, overrides: Iterable[str] = ()) -> StudySpec:
    """The study of a YAML file, `key=value` overrides put in first.

    Raises InputError with every problem found, one line each: `file:line key: problem; expected ...`.
    """
    path = Path(path)
    root, problems = read_yaml(path)
    root, more = apply_overrides(root, overrides)
    problems += more
    if not isinstance(root.value, dict):
        raise InputError(*problems, f"{path}: {shown(plain_node(root))} is not a mapping; expected `name: ...` lines")
    keys = root.value
    problems += unknown_keys(keys, TOP_KEYS, "")
    name, question = texts(keys, path, problems)
    fixed, axes = replace_axes(keys, problems)
    fixed, lm_eval = take_lm_eval(dict(fixed), "", path.parent, problems)
    fixed, gold = take_gold(fixed, "", path.parent, problems)
    identities = _identities(gold, "world" in fixed, path, problems)
    block, found = read_block(fixed, {}, str(path), path.parent, {})
    problems += found
    problems += _one_condition(block, fixed, axes)
    if block.rounds is not None:
        problems.append(f"{keys['seeds'].where} seeds: rounds belong to a sweep; expected a count or a list of seeds")
    if problems:  # targets are judged against the evaluation and the corruption: those must stand first
        _try_targets(keys, path, block, problems)
        raise InputError(*dict.fromkeys(problems))
    arms = read_arms(block, axes, problems)
    template = next(replace(block, seeds=(0,)).runs())
    context = replace(_context(block, arms, template), lm_eval=lm_eval, gold=gold is not None)
    targets = read_targets(keys.get("targets"), str(path), context, problems)
    constraints = read_constraints(keys.get("constraints"), context, problems)
    study = _assemble(
        keys, path, problems, name=name, question=question, arms=arms, template=template, seeds=tuple(block.seeds),
        targets=targets, constraints=constraints, device=block.device, lm_eval=lm_eval,
    )  # fmt: skip
    if gold is not None:
        evaluation = {**study.resolved["evaluation"], "gold": plain(gold)}
        resolved = {**study.resolved, "evaluation": evaluation}
        study = replace(study, gold=gold, gold_identities=identities, resolved=resolved)
    problems += _corner_problems(study) if not problems else []
    if problems:
        raise InputError(*dict.fromkeys(problems))
    return study


def _identities(gold: GoldSpec | None, world: bool, path: Path, problems: list[str]) -> tuple[str, ...]:
    """What identifies the content of each reward model. Appends to `problems` a line for each that cannot be used."""
    if gold is None:
        return ()
    if world:
        problems.append(
            f"{path} evaluation.gold: the embedded world knows the true reward; leave it out, or set `data`"
        )
        return ()
    found = []
    for text in gold.reward_model:
        try:
            folder, commit = locate_classifier(text)
            found.append(commit or folder_sha256(folder))
        except InputError as error:
            problems += [f"{path} evaluation.gold.reward_model: {line}" for line in error.problems]
    return tuple(found)


def _context(block: Block, arms: tuple[Arm, ...], template: RunSpec) -> Context:
    own = [key for arm in arms for key in arm.space if not key.startswith("training.")]
    return Context(len(arms) == 1 and not own, template.evaluation, template.corruption, block.world)


def _try_targets(keys: Mapping[str, Node], path: Path, block: Block, problems: list[str]) -> None:
    """Mistakes in the targets of a spec that is broken elsewhere, as far as its parts can be read at all."""
    try:
        template = next(replace(block, seeds=(0,)).runs(), None)
    except (InputError, StopIteration):
        template = None
    if template is not None:
        read_targets(keys.get("targets"), str(path), _context(block, (), template), problems)


def _one_condition(block: Block, keys: Mapping[str, Node], axes: Mapping[str, Axis]) -> list[str]:
    """A study fixes what a sweep would vary: each list that is no search axis is a mistake."""
    lines = []
    for section, fields in block.sections.items():
        for name, values in fields.items():
            if len(values) > 1 and f"{section}.{name}" not in axes:
                node = keys[section]
                place = node.value[name].where if isinstance(node.value, dict) else node.where
                lines.append(f"{place} {section}.{name}: {len(values)} values; a study fixes it: expected one")
    if sum(entry.count() for entry in block.corruptions) > 1:
        where = keys["corruptions"].where
        lines.append(f"{where} corruptions: more than one set; a study fixes it: expected one (a study per rate)")
    return lines


def _assemble(
    keys: Mapping[str, Node], path: Path, problems: list[str], *, name: str, question: str, arms: tuple[Arm, ...],
    template: RunSpec, seeds: tuple[int, ...], targets: tuple[Target, ...], constraints: tuple[Constraint, ...],
    device: str, lm_eval: LmEvalSpec | None,
) -> StudySpec:  # fmt: skip
    """The remaining keys: counts, seeds, sampler, pruner, budget, storage; and the resolved mapping."""
    fresh = read_fresh(keys.get("fresh_seeds"), seeds, problems)
    sampler = read_settings(Sampler, "sampler", keys, problems)
    pruner = read_settings(Pruner, "pruner", keys, problems)
    budget = read_settings(Budget, "budget", keys, problems)
    if "trials" not in keys:
        problems.append(f"{path} trials: missing; expected how many each objective gets, e.g. `trials: 30`")
    trials = read_count(keys.get("trials"), "trials", 1, problems)
    together = read_count(keys.get("round"), "round", 5, problems)
    searches = read_count(keys.get("sampler_seeds"), "sampler_seeds", 1, problems)
    pruner_problems(pruner, seeds, targets, keys, problems)
    storage = read_storage(keys.get("storage"), problems)
    resolved = {
        "name": name, "question": question,
        **{name: plain(part) for name in SECTIONS if (part := getattr(template, name, None)) is not None},
        "training": plain(template.training) | _axes(arms[0].space if arms else {}, training=True),
        "objectives": [{**plain(arm.fixed), **_axes(arm.space, training=False)} for arm in arms],
        "corruptions": [_corruption(template.corruption)],
        "seeds": list(seeds), "fresh_seeds": list(fresh), "trials": trials, "round": together,
        "targets": plain(targets), "constraints": plain(constraints),
        "sampler": plain(sampler), "sampler_seeds": searches, "pruner": plain(pruner),
        "budget": {key: value for key, value in plain(budget).items() if value is not None},
        "storage": storage, "device": device,
    }  # fmt: skip
    report = read_report(keys, template.world is None, problems)
    resolved[REPORT] = plain(report)
    if lm_eval is not None:
        resolved["evaluation"] = {**resolved["evaluation"], "lm_eval": plain(lm_eval)}
    searched = tuple(one for arm in arms for one in arm.searches(searches))
    return StudySpec(
        name, question, searched, template, seeds, fresh, trials, together, targets, constraints, sampler, pruner,
        budget, storage, resolved, path, lm_eval, report,
    )  # fmt: skip


def _axes(space: Mapping[str, Axis], training: bool) -> dict[str, Any]:
    """The axes of training, or the objective's own, as a spec writes them."""
    return {
        key.removeprefix("training."): list(axis.values)
        if isinstance(axis, Choice)
        else {"low": axis.low, "high": axis.high, "log": axis.log}
        for key, axis in space.items()
        if key.startswith("training.") == training
    }


def _corruption(spec: CorruptionSpec) -> dict[str, Any]:
    rate = {} if spec.rate is None else {"rate": spec.rate}
    return {"kind": spec.kind, **rate, **plain(dict(spec.params))}


def _corner_problems(study: StudySpec) -> list[str]:
    """Combinations at the ends of the axes, each end allowed alone, that cannot be used together."""
    lines: dict[str, None] = {}
    for arm in study.arms:
        corners = itertools.product(*(ends(axis) for axis in arm.space.values()))
        for values in itertools.islice(corners, MAX_CORNERS):
            try:
                run = study.run(arm, dict(zip(arm.space, values, strict=True)), 0)
                lines |= dict.fromkeys(run_problems(run))
            except InputError as error:
                lines |= dict.fromkeys(f"{arm.where} {arm.path}: {line}" for line in error.problems)
    return list(lines)
