"""What the table knows of one objective. Imports no torch; a row's function is imported on its first loss."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from harness.text import suggestion
from harness.types import InputError, LossOutput, PairLogps, Parameter

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class StepZero:
    """One pair at step 0, where policy and reference agree: reference log-probs (nats) and scored tokens per side."""

    chosen: float
    rejected: float
    chosen_len: float
    rejected_len: float


StepZeroLoss: TypeAlias = Callable[[Mapping[str, Any], StepZero], float]


@dataclass(frozen=True, slots=True)
class StateField:
    """State that an objective carries between steps: one number a `pair` or one a `lane`, starting at `initial`."""

    scope: str
    initial: float = 0.0


@dataclass(frozen=True, slots=True)
class Objective:
    """One objective: what it minimises, what it needs, its knobs.

    `function` is `module:name`. `family`: pair (a loss of its own for every pair), batch (the batch value repeated),
    token (per pair, from more than summed log-probs) or rl (samples its own responses: no loss of given pairs;
    `function` is what `harness/rlhf` runs, and `loss` refuses). `reduction`: sum, mean or tokens; objectives with a
    `reduction` or `length_average` parameter show their default. `needs` are the keys of `PairLogps.extra` that it
    reads. `target` is `module:name` of the function (objective name, record columns, hyperparameters) -> T, the margin
    that the loss asks of delta, None where there is none. `step0` is the closed-form loss where policy = reference,
    None where it depends on the reference's own log-probs or on the batch.
    """

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
    step0: StepZeroLoss | None = None

    def loss(
        self,
        policy: PairLogps,
        reference: PairLogps | None,
        state: Any = None,
        **hyperparameters: Any,
    ) -> LossOutput:
        """The loss of pairs `(..., B)`; absent hyperparameters take the defaults, absent state its initial value.

        `state` maps the row's state names to tensors, `(..., B)` for scope pair and `(..., 1)` for scope lane.
        A hyperparameter is a number or a tensor that broadcasts against `(..., B)`, such as `(K, 1)`. Half-precision
        log-probs are computed in float32. Raises InputError for an unknown hyperparameter and for missing input, and
        for every row of family rl.
        """
        if self.family == "rl":
            raise InputError(
                f"objective '{self.name}' is of family rl: it learns from responses it samples itself and has no loss"
                " of given pairs; harness/rlhf runs it"
            )
        problems = [
            f"objective '{self.name}' has no hyperparameter '{key}'{suggestion(key, self.hyperparameters)}"
            for key in hyperparameters
            if key not in self.hyperparameters
        ]
        if self.needs_reference and reference is None:
            problems.append(f"objective '{self.name}' needs the reference's log-probs; none were given")
        given = set(policy.extra) | set(reference.extra if reference else ())
        problems += [
            f"objective '{self.name}' needs extra['{key}'], which was not computed for this batch"
            for key in self.needs
            if key not in given
        ]
        if problems:
            raise InputError(*problems)
        full = {key: parameter.default for key, parameter in self.hyperparameters.items()} | hyperparameters
        policy, reference = _wide(policy), None if reference is None else _wide(reference)
        if self.state:
            full["state"] = self.initial_state(policy.chosen) if state is None else state
        result: LossOutput = self.implementation()(policy, reference, **full)
        return result

    def implementation(self) -> Any:
        """What `function` names, imported on first use."""
        module, _, name = self.function.partition(":")
        return getattr(importlib.import_module(module), name)

    def initial_state(self, like: Tensor) -> dict[str, Tensor]:
        """The state before the first step for pairs shaped `like` `(..., B)`."""
        return {
            key: like.new_full(like.shape if kind.scope == "pair" else (*like.shape[:-1], 1), kind.initial)
            for key, kind in self.state.items()
        }


def _wide(logps: PairLogps) -> PairLogps:
    """The log-probs in float32 at least."""
    if logps.chosen.element_size() >= 4 and logps.rejected.element_size() >= 4:
        return logps
    return dataclasses.replace(
        logps,
        chosen=logps.chosen.float(),
        rejected=logps.rejected.float(),
        extra={key: value.float() for key, value in logps.extra.items()},
    )
