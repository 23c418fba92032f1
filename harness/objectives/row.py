"""The row of one objective: its loss function and what the rest of the harness knows about it. Imports no torch."""

from __future__ import annotations

import dataclasses
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
    """State that an objective carries between steps: a number per pair or per lane (`scope`), at first `initial`."""

    scope: str
    initial: float = 0.0


@dataclass(frozen=True, slots=True)
class Objective:
    """One objective: its loss, what it needs, its hyperparameters.

    `family`: pair (a loss for each pair), batch (the batch value repeated), token (per pair, from more than summed
    log-probs) or rl (samples its own responses: no loss of given pairs, and `loss` refuses).
    """

    name: str
    function: Callable[..., LossOutput] | None  # (policy, reference, hyperparameters by name); None for family rl
    family: str
    reduction: str  # sum | mean | tokens; the default's where a hyperparameter chooses it
    needs_reference: bool
    hyperparameters: Mapping[str, Parameter]
    citation: str
    summary: str
    breaks: str  # how it fails
    needs: tuple[str, ...] = ()  # keys of `PairLogps.extra` that it reads
    state: Mapping[str, StateField] = field(default_factory=dict)
    tier: str = "A"
    bounded_below: bool = True
    # The loss where policy = reference, in closed form; None where it depends on the batch or on more than log-probs.
    step0: StepZeroLoss | None = None
    # Why values outside a hyperparameter's range are refused, by its name.
    reasons: Mapping[str, str] = field(default_factory=dict)
    # What is wrong with hyperparameters that are each in range; None where nothing is.
    check: Callable[[Mapping[str, Any]], str | None] | None = None

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
        if self.function is None:
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
            problems.append(f"objective '{self.name}' needs the reference's log-probs, which are missing")
        computed = {*policy.extra, *(reference.extra if reference else ())}
        problems += [
            f"objective '{self.name}' needs extra['{key}'], which was not computed for this batch"
            for key in self.needs
            if key not in computed
        ]
        if problems:
            raise InputError(*problems)
        full = {key: parameter.default for key, parameter in self.hyperparameters.items()} | hyperparameters
        policy, reference = _wide(policy), None if reference is None else _wide(reference)
        if self.state:
            full["state"] = self.initial_state(policy.chosen) if state is None else state
        return self.function(policy, reference, **full)

    @property
    def sees_batch(self) -> bool:
        """Whether a pair's loss depends on the other pairs of its batch, or on state that they change."""
        return self.family == "batch" or bool(self.state)

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
