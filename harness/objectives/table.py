"""Objectives by name: what each minimises, what it needs, its knobs. Imports no torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.names import suggestion
from harness.types import InputError, LossOutput, ObjectiveSpec, PairLogps, Parameter


@dataclass(frozen=True, slots=True)
class StateField:
    """State that an objective carries between steps: one number a `pair` or one a `lane`, starting at `initial`."""

    scope: str
    initial: float = 0.0


@dataclass(frozen=True, slots=True)
class Objective:
    name: str
    function: str
    family: str
    reduction: str
    needs_reference: bool
    hyperparameters: Mapping[str, Parameter]
    citation: str
    summary: str
    breaks: str
    needs: tuple[str, ...] = ()
    state: Mapping[str, StateField] = field(default_factory=dict)
    tier: str = "A"
    target: str | None = None
    bounded_below: bool = True
    step0: str | None = None

    def loss(
        self, policy: PairLogps, reference: PairLogps | None, state: Any = None, **hyperparameters: Any
    ) -> LossOutput:
        module, _, name = self.function.partition(":")
        function = getattr(importlib.import_module(module), name)
        for given in hyperparameters:
            if given not in self.hyperparameters:
                raise InputError(f"objective '{self.name}' has no hyperparameter '{given}'")
        full = {k: p.default for k, p in self.hyperparameters.items()} | hyperparameters
        result: LossOutput = function(policy, reference, **full)
        return result


SUM_BETA = Parameter(0.1, low=0, low_open=True, search=(0.01, 0.5), prior="log")
MEAN_BETA = Parameter(2.0, low=0, low_open=True, search=(2, 10), prior="log")
P = "harness.objectives.pairwise:"
_ROWS = (
    Objective("dpo", P + "dpo", "pair", "sum", True, {"beta": SUM_BETA}, "arXiv 2305.18290", "", ""),
    Objective("ipo", P + "ipo", "pair", "sum", True, {"beta": SUM_BETA, "length_average": Parameter(False, kind="bool")}, "arXiv 2310.12036", "", ""),
    Objective("robust_dpo", P + "robust_dpo", "pair", "sum", True, {"beta": SUM_BETA, "eps": Parameter(0.1, low=0, high=0.5, high_open=True)}, "arXiv 2403.00409", "", ""),
    Objective("simpo", P + "simpo", "pair", "mean", False, {"beta": MEAN_BETA, "gamma": Parameter(0.6, low=0)}, "arXiv 2405.14734", "", ""),
    Objective("hypo", P + "hypo", "pair", "sum", True, {"beta": SUM_BETA}, "arXiv 2602.11902", "", ""),
    Objective("cpo_smooth", P + "cpo_smooth", "pair", "mean", True, {"beta": MEAN_BETA, "gamma": Parameter(0.5, low=0), "tau": Parameter(2.0, low=0, low_open=True), "alpha": Parameter(0.25, low=0, low_open=True), "reduction": Parameter("mean", kind="choice", choices=("mean", "sum"))}, "arXiv 2605.20834", "", ""),
    Objective("nll", P + "nll", "pair", "mean", False, {}, "-", "", "", tier="internal"),
)
OBJECTIVES: dict[str, Objective] = {row.name: row for row in _ROWS}


def resolve(name: str, given: Mapping[str, Any]) -> ObjectiveSpec:
    if name == "constrained_cpo":
        name = "cpo_smooth"
    if name not in OBJECTIVES:
        raise InputError(f"unknown objective '{name}'{suggestion(name, OBJECTIVES)}")
    row = OBJECTIVES[name]
    problems = []
    for key, value in given.items():
        if key not in row.hyperparameters:
            problems.append(f"objective '{name}' has no hyperparameter '{key}'")
        elif (why := row.hyperparameters[key].problem(value)) is not None:
            problems.append(f"objective '{name}': {key}: {why}")
    if problems:
        raise InputError(*problems)
    full = {k: p.default for k, p in row.hyperparameters.items()} | dict(given)
    return ObjectiveSpec(name, tuple(sorted(full.items())))
