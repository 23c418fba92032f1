"""What a study aims at: held-out measures with a direction and a split, and bounds on others. Imports no torch.

Which measures may steer a study, and on which pairs, stands first: everything else is refused with its reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.config.schema import read_mapping, shown
from harness.config.strict_yaml import Node, plain
from harness.corruptions import registry as corruptions
from harness.metrics import safety
from harness.metrics.registry import METRICS
from harness.text import suggestion
from harness.types import CorruptionSpec, EvaluationSpec, LmEvalSpec, Parameter

DOWNSTREAM = "downstream"  # of a benchmark, which has documents of its own and no split
CLEAN, OBSERVED, OOD, TEST = SPLITS = ("validation_clean", "validation_observed", "ood", "test")
LOSSES = ("loss", "base_loss")
SAFETY = frozenset(row.name for row in safety.ROWS)
# Measures of the pairs or of the reference alone: no setting of a trial moves them.
CONSTANT = re.compile(r"(ln_)?(ref_accuracy|violation_proxy|delta_ref_.*)|reference_.*|vacuous_rate")


@dataclass(frozen=True, slots=True)
class Context:
    """What decides whether a measure exists and compares: searched or several scales, evaluation, data, labels."""

    one_scale: bool  # one objective whose own hyperparameters are all fixed
    evaluation: EvaluationSpec
    corruption: CorruptionSpec
    world: bool
    lm_eval: LmEvalSpec | None = None
    gold: bool = False  # reward models score every run


def refusal(measure: str, split: str, context: Context) -> str:
    """Why `measure` on `split` cannot steer a study; the empty string where it can."""
    if benchmark(measure):
        return _benchmark_refusal(measure, context.lm_eval)
    if split == DOWNSTREAM:
        return f"split {split}: belongs to a benchmark, lm_eval/<task>/<metric>; expected one of {', '.join(SPLITS)}"
    name = measure.removeprefix("eval_")
    if name in LOSSES and not (measure in METRICS and context.one_scale):
        return (
            f"'{measure}' is a loss: every objective and every beta has its own scale, so trials cannot be compared "
            "by it; expected e.g. ranking_accuracy"
        )
    if measure.startswith(("train_", "rewards/", "logps/")):
        return f"'{measure}' is measured on training pairs or in training's units; expected a held-out measure"
    row = METRICS.get(measure)
    if row is None:
        near = suggestion(measure, METRICS)
        broken = "".join(f"; {line}" for line in METRICS.found.broken)
        return f"unknown measure '{measure}'{near}; expected one of `harness list metrics`{broken}"
    if measure in METRICS.found.clashes:
        return METRICS.found.clashes[measure]
    if not row.beta_neutral and name not in LOSSES:
        return f"'{measure}' is scaled by beta, so trials of different beta cannot be compared by it"
    if CONSTANT.fullmatch(measure):
        return f"'{measure}' depends on the reference or the pairs alone, so it is the same for every trial"
    if not set(row.splits) & set("EDS"):
        return f"'{measure}' is measured on training pairs; expected a held-out measure"
    return _unproduced(measure, split, context)


def benchmark(measure: str) -> bool:
    """Whether a target is a number of lm-eval, `lm_eval/<task>/<metric>`."""
    return measure.startswith("lm_eval/")


def _benchmark_refusal(measure: str, asked: LmEvalSpec | None) -> str:
    parts = measure.split("/")
    if len(parts) != 3 or not all(parts):
        return f"'{measure}': expected lm_eval/<task>/<metric>, such as lm_eval/arc_easy/acc"
    task = parts[1]
    if task == "preference":
        return (
            f"'{measure}' is asked of held-out pairs, the report's test half among them; expected ranking_accuracy on "
            f"{CLEAN}, which is the same question"
        )
    if asked is None or not any(task == name or task.startswith(f"{name}_") for name in asked.tasks):
        return f"'{measure}' is not evaluated; expected `evaluation: {{lm_eval: {{tasks: [{task}]}}}}` beside it"
    if asked.runs != "all":
        return f"'{measure}' must be known for every trial; expected `runs: all` in evaluation.lm_eval"
    return ""


def _unproduced(measure: str, split: str, context: Context) -> str:
    row = METRICS[measure]
    wanted = {OOD: "D"}.get(split, "E")
    if "S" in row.splits and wanted not in row.splits:
        if context.evaluation.samples == 0:
            return f"'{measure}' needs free-running samples, and evaluation.samples is 0; the evaluation produces none"
        if measure in SAFETY:
            return f"'{measure}' is measured on evaluation.prompts, of which no half is held back"
        if measure == "gold_reward" and not context.world and not context.gold:
            return "'gold_reward' of data needs a reward model; expected `evaluation: {gold: {reward_model: ...}}`"
        if split == OBSERVED:
            return f"split {split}: '{measure}' is measured on samples, which carry no labels"
        return _ood_refusal(context) if split == OOD else ""
    if wanted not in row.splits:
        return f"split {split}: '{measure}' is not measured there"
    if split == OOD and _ood_refusal(context):
        return _ood_refusal(context)
    if "gold_margin" in row.needs and not context.world:
        return f"'{measure}' needs true rewards; the evaluation does not produce it on this data"
    produced = {"loss", "base_loss", "gold_margin", "chosen_len", "rejected_len"}
    lacking = [n for n in row.needs if not n.startswith(("policy_", "reference_")) and n not in produced]
    if lacking or "gamma" in row.settings:
        return f"'{measure}' needs {', '.join(lacking) or 'gamma'}, which the evaluation does not produce"
    return observed_refusal(measure, context.corruption) if split == OBSERVED else ""


def _ood_refusal(context: Context) -> str:
    if context.world and context.evaluation.ood:
        return ""
    return "split ood: the evaluation produces no such pairs (evaluation.ood is 0, or the data has no such split)"


def observed_refusal(measure: str, corruption: CorruptionSpec) -> str:
    """Why validation pairs cannot be labelled as the training pairs are; empty where they can.

    Simulated by the same kind on the validation half, which only makes sense where the kind relabels pairs.
    """
    if measure in LOSSES:
        return f"split {OBSERVED}: '{measure}' is known only for the labels it was computed with"
    for kind, _, params in corruptions.steps(corruption):
        changes = corruptions.CORRUPTIONS[kind].changes_of(dict(params))
        if changes != "labels":
            return (
                f"split {OBSERVED}: '{kind}' changes {changes}, not labels, so no labels of validation pairs follow "
                f"from it; expected {CLEAN}"
            )
    return ""


DIRECTIONS = {"up": "maximize", "down": "minimize", "maximize": "maximize", "minimize": "minimize"}


@dataclass(frozen=True, slots=True)
class Target:
    """A measure to optimise; several targets search for a Pareto front."""

    measure: str  # a trial's score is its mean over the seeds; `lm_eval/<task>/<metric>` for a benchmark
    direction: str = ""  # follows from the measure where it has one
    # the pairs it is measured on; validation_observed has labels as wrong as the training labels
    split: str = CLEAN


@dataclass(frozen=True, slots=True)
class Constraint:
    """A bound on another measure: a trial that violates it can never win."""

    measure: str  # what is bounded
    # the pairs it is measured on; validation_observed has labels as wrong as the training labels
    split: str = CLEAN
    at_most: float | None = None  # upper bound, in the measure's unit; exactly one of the two
    at_least: float | None = None  # lower bound

    @property
    def name(self) -> str:
        """Measure, split and bound as one text."""
        bound = f"<= {self.at_most:g}" if self.at_most is not None else f">= {self.at_least:g}"
        return f"{self.measure} ({self.split}) {bound}"

    def excess(self, value: float) -> float:
        """How far `value` lies beyond the bound; <= 0 keeps it."""
        if self.at_most is not None:
            return value - self.at_most
        assert self.at_least is not None
        return self.at_least - value


_MEASURE = Parameter(None, "text", doc="a measure of `harness list metrics`")
_SPLIT = Parameter(None, "choice", choices=(*SPLITS, DOWNSTREAM))
TARGET = {
    "measure": _MEASURE,
    "direction": Parameter(None, "choice", choices=("maximize", "minimize", "up", "down")),
    "split": _SPLIT,
}
CONSTRAINT = {"measure": _MEASURE, "split": _SPLIT, "at_most": Parameter(None), "at_least": Parameter(None)}


def read_targets(node: Node | None, where: str, context: Context, problems: list[str]) -> tuple[Target, ...]:
    """The targets of a spec; appends one line per mistake."""
    example = "targets: [{measure: ranking_accuracy, direction: maximize, split: validation_clean}]"
    if node is None or not isinstance(node.value, tuple) or not node.value:
        place = where if node is None else node.where
        problems.append(f"{place} targets: a study needs at least one; expected `{example}`")
        return ()
    found = []
    for index, child in enumerate(node.value):
        path = f"targets.{index}"
        values = _read(TARGET, child, path, example, problems)
        if values is None:
            continue
        assert isinstance(child.value, dict)
        model = Target(**values)
        why = refusal(model.measure, model.split, context)
        if why:
            key = "split" if why.startswith("split") and "split" in child.value else "measure"
            problems.append(f"{child.value[key].where} {path}.{key}: {why}")
            continue
        if benchmark(model.measure) and model.split != DOWNSTREAM and "split" in child.value:
            problems.append(f"{child.value['split'].where} {path}.split: a benchmark has no split; leave it out")
            continue
        direction, wrong = _direction(model)
        if wrong:
            problems.append(f"{child.value.get('direction', child).where} {path}.direction: {wrong}")
            continue
        found.append(Target(model.measure, direction, _place(model.measure, model.split)))
    if len({(t.measure, t.split) for t in found}) < len(found):
        problems.append(f"{node.where} targets: one measure on one split is given twice; keep one")
    return tuple(found)


def read_constraints(node: Node | None, context: Context, problems: list[str]) -> tuple[Constraint, ...]:
    """The bounds of a spec, none where the key is missing; appends one line per mistake."""
    if node is None:
        return ()
    example = "constraints: [{measure: kl, at_most: 5}]"
    if not isinstance(node.value, tuple):
        problems.append(f"{node.where} constraints: {shown(plain(node))} is not a list; expected `{example}`")
        return ()
    found = []
    for index, child in enumerate(node.value):
        path = f"constraints.{index}"
        values = _read(CONSTRAINT, child, path, example, problems)
        if values is None:
            continue
        assert isinstance(child.value, dict)
        model = Constraint(**values)
        why = refusal(model.measure, model.split, context)
        if (model.at_most is None) == (model.at_least is None):
            problems.append(f"{child.where} {path}: expected exactly one of at_most and at_least, as in `{example}`")
        elif why:
            problems.append(f"{child.value['measure'].where} {path}.measure: {why}")
        else:
            place = _place(model.measure, model.split)
            found.append(Constraint(model.measure, place, model.at_most, model.at_least))
    return tuple(found)


def _read(fields: Mapping[str, Parameter], node: Node, path: str, example: str, problems: list[str]) -> Any:
    """The values of a target or bound; None if there is a mistake, or no measure."""
    before = len(problems)
    values = read_mapping(fields, node, path, example, problems)
    if values is not None and isinstance(node.value, dict) and "measure" not in node.value:
        problems.append(f"{node.where} {path}.measure: missing; expected {_MEASURE.doc}")
    return values if len(problems) == before else None


def _direction(model: Target) -> tuple[str, str]:
    """maximize or minimize, and why it cannot be said."""
    known = "" if benchmark(model.measure) else METRICS[model.measure].direction
    natural = DIRECTIONS.get(known)
    if not model.direction:
        if natural is None:
            return "", f"'{model.measure}' has no direction of its own; expected maximize or minimize"
        return natural, ""
    given = DIRECTIONS[model.direction]
    if natural is not None and given != natural:
        return "", f"{given}, but '{model.measure}' is better {known}; expected {natural}"
    return given, ""


def _place(measure: str, split: str) -> str:
    return DOWNSTREAM if benchmark(measure) else split
