"""The row of one objective: its loss function and what the rest of the harness knows about it. Imports no torch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from harness.text import look_up, suggestion
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
class Preset:
    """Hyperparameters that one source used; what it leaves out has the row's default. `source`: paper or file."""

    values: Mapping[str, Any]
    source: str


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
    # Published configurations by name: `paper` (the article), `released` (the authors' code), `trl` (TRL's defaults) or
    # a model that the authors trained. Spec key `preset`.
    presets: Mapping[str, Preset] = field(default_factory=dict)
    # Hyperparameters that are a ratio to beta, by the name under which the absolute value may be given instead.
    ratios: Mapping[str, str] = field(default_factory=dict)
    # The hyperparameter that its source sets to the data's own flip rate; empty where it has none.
    assumed_rate: str = ""

    def in_own_terms(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """`given` with its `preset` written out (explicit keys win) and absolute values as ratios to beta."""
        explicit = {key: value for key, value in given.items() if key != "preset"}
        ratios = {absolute: ratio for absolute, ratio in self.ratios.items() if absolute in explicit}
        for absolute, ratio in ratios.items():
            if ratio in explicit:
                raise InputError(f"objective '{self.name}': {absolute} is {ratio} x beta; expected one of the two")
        preset = self._preset(given["preset"]) if given.get("preset") is not None else {}
        values = {key: value for key, value in preset.items() if key not in ratios.values()} | explicit
        for absolute, ratio in ratios.items():
            values[ratio] = values.pop(absolute) / values.get("beta", self.hyperparameters["beta"].default)
        return values

    def _preset(self, name: Any) -> dict[str, Any]:
        """Every hyperparameter of a preset, but those that training or the loss decide where they are None."""
        if not self.presets:
            raise InputError(f"objective '{self.name}' has no presets; leave `preset` out")
        values = look_up(self.presets, str(name), f"preset of objective '{self.name}'").values
        defaults = {key: one.default for key, one in self.hyperparameters.items() if one.default is not None}
        return {**defaults, **values}

    def published(self, hyperparameters: Mapping[str, Any], flip_rate: float | None = None) -> str | None:
        """The first preset whose loss these hyperparameters are, beta aside; None where nobody published it.

        Beta is the axis of a comparison, not part of the loss. A loss that assumes a flip rate (`assumed_rate`) is as
        published where it assumes that of the data, `flip_rate`; without it, what a preset says counts.
        """
        defaults = {key: parameter.default for key, parameter in self.hyperparameters.items()}
        full = defaults | self.in_own_terms(hyperparameters)
        for name, preset in self.presets.items():
            wanted = defaults | dict(preset.values)
            if self.assumed_rate and flip_rate is not None:
                wanted[self.assumed_rate] = flip_rate
            if all(_same(full.get(key), value) for key, value in wanted.items() if key != "beta"):
                return name
        return None

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
        hyperparameters = self.in_own_terms(hyperparameters)
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


def _same(value: Any, wanted: Any) -> bool:
    """Whether two hyperparameters are equal, numbers up to rounding (a ratio may have been divided out)."""
    numbers = isinstance(value, float) and isinstance(wanted, float)
    return math.isclose(value, wanted, rel_tol=1e-9) if numbers else bool(value == wanted)


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
