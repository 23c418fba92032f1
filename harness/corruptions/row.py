"""The row type of the registry of corruptions, and the parameters that many rows share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.corruptions.draw import Hits, View
from harness.types import Parameter

Params = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Corruption:
    """One kind of corruption: its function, which pairs it hits first, what it reads, and the laws it obeys."""

    name: str
    function: Callable[[View], Hits]
    rank: str  # which pairs are hit first
    # fixed: the caller sets the share of pairs; derived: it follows from the parameters, and a given one is refused;
    # none: there is nothing to set.
    rate: str
    changes: str  # labels, rows or text
    laws: str  # C exact count, N nested in rate, I involution, D derived rate
    summary: str
    citation: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    # The facts it reads: always the same ones, or a function of the parameters (absent ones count as their defaults).
    needs: tuple[str, ...] | Callable[[Params], tuple[str, ...]] = ()
    set_by: str = ""  # the parameters that a derived rate follows from
    rated_laws: str = ""  # for a kind of derived rate that has a `form: rate`, which takes one: the laws of that form
    neutral: tuple[Params, ...] = ()  # parameter values that do nothing
    either: tuple[str, ...] = ()  # parameters of which at most one may be given
    severities: Mapping[str, Params] = field(default_factory=dict)  # what mild, moderate and severe stand for
    form_changes: Mapping[str, str] = field(default_factory=dict)  # `changes` by form, where a form differs
    # For parameters that are more than one number or word: takes all parameters, returns them in their written form
    # and the problems found.
    check: Callable[[Params], tuple[Params, list[str]]] | None = None

    def takes_rate(self, params: Params) -> bool:
        """Whether `rate` is an input under these parameters."""
        return self.rate == "fixed" or bool(self.rated_laws and params.get("form") == "rate")

    def changes_of(self, params: Params) -> str:
        """labels, rows or text: what is different after it, under these parameters."""
        return self.form_changes.get(str(params.get("form")), self.changes)

    def needs_of(self, params: Params) -> tuple[str, ...]:
        """The facts read under these parameters, in order."""
        return self.needs(params) if callable(self.needs) else self.needs


# Parameters that say how a set is drawn, not what is done: resolved specs and run keys show them only where they
# differ from the default, so that reports carry no column of constants.
PLUMBING = ("mode", "on_missing", "gold_from", "eos")

MODE = Parameter("exact", "choice", choices=("exact", "bernoulli"), doc="exactly k pairs, or k ~ Binomial(n, rate)")
MISSING = Parameter(
    "error", "choice", choices=("error", "exclude"), doc="pairs that lack a needed fact: refused, or left unchanged"
)
GOLD = Parameter("margin", "choice", choices=("margin", "scores"), doc="gold margin: from its column, or the scores")
TEMPERATURE = Parameter(
    1.0,
    low=0.0,
    choices=("inf",),
    search=(0.25, 4.0),
    prior="log",
    doc="annotator's temperature; 0: no mistakes, larger: more, inf: a coin flip",
)
KAPPA = Parameter(1.0, low=0.0, search=(0.0, 4.0), doc="weight of the bias, in units of the gold margin")
UNIT = Parameter("tokens", "choice", choices=("tokens", "words", "characters"), doc="what lengths count")
RATED = {"mode": MODE, "on_missing": MISSING}
GOLDEN = {"on_missing": MISSING, "gold_from": GOLD}


def by_severity(mild: float, moderate: float, severe: float, name: str = "rate") -> dict[str, Params]:
    """The severities of a kind that one number sets."""
    return {"mild": {name: mild}, "moderate": {name: moderate}, "severe": {name: severe}}


def lengths_needed(params: Params) -> tuple[str, ...]:
    """The facts that lengths are read from; none where they are counted in the text."""
    return ("chosen_len", "rejected_len") if params.get("unit", "tokens") == "tokens" else ()


def problem_of(parameter: Parameter, value: Any) -> str | None:
    """What is wrong with a value; `choices` of a number are words allowed beside the numbers (temperature: inf)."""
    if parameter.kind == "float" and isinstance(value, str) and value in parameter.choices:
        return None
    return parameter.problem(value)


def written(parameter: Parameter | None, value: Any) -> Any:
    """A number in its one written form, so that 1 and 1.0 share a run key; infinity as the word JSON can hold."""
    if parameter is None or parameter.kind != "float" or isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return "inf" if value == math.inf and "inf" in parameter.choices else float(value)
