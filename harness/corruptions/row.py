"""A corruption's row: what it does, who is hit first, what it needs, which laws it keeps. Plain data only.

With it the parameters and needs that many rows share. Nothing heavy is imported: a row names its function as
`module:function`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.types import Parameter

Params = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Corruption:
    """One kind of damage.

    `rate`: `fixed` (the caller sets the share of pairs), `derived` (it follows from the parameters and is refused as
    an input) or `none`. A derived kind may have forms (values of its parameter `form`) that do take a rate:
    `rated_forms`, which then keep `rated_laws` instead of `laws`.
    `laws`: C exact count, N nested in rate, I involution, D derived rate.
    `needs`: facts read under the default parameters; `needs_changes` rows are (parameter, value, no longer needed,
    needed as well). `set_by` is the parameter that sets a derived rate. `neutral`: parameter values that do nothing.
    `either`: at most one of these may be given. `severities`: what mild, moderate and severe stand for.
    `form_changes`: what a form changes where that differs from `changes`.
    """

    name: str
    function: str
    rank: str
    rate: str
    changes: str
    laws: frozenset[str]
    citation: str
    summary: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    needs_changes: tuple[tuple[str, Any, tuple[str, ...], tuple[str, ...]], ...] = ()
    set_by: str = ""
    rated_forms: tuple[str, ...] = ()
    rated_laws: frozenset[str] = frozenset()
    neutral: tuple[Params, ...] = ()
    either: tuple[str, ...] = ()
    severities: Mapping[str, Params] = field(default_factory=dict)
    form_changes: Mapping[str, str] = field(default_factory=dict)

    def takes_rate(self, params: Params) -> bool:
        """Whether `rate` is an input under these parameters."""
        return self.rate == "fixed" or params.get("form") in self.rated_forms

    def laws_of(self, params: Params) -> frozenset[str]:
        """The laws kept under these parameters (without defaults filled in, the default form's)."""
        return self.rated_laws if params.get("form") in self.rated_forms else self.laws

    def changes_of(self, params: Params) -> str:
        """labels, rows or text: what is different after it, under these parameters."""
        return self.form_changes.get(str(params.get("form")), self.changes)

    def needs_of(self, params: Params) -> tuple[str, ...]:
        """The facts read under these parameters, in order."""
        needed = dict.fromkeys(self.needs)
        for name, value, dropped, added in self.needs_changes:
            if params.get(name) == value:
                needed = {n: None for n in needed if n not in dropped} | dict.fromkeys(added)
        return tuple(needed)


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

C, CN, CNI = frozenset("C"), frozenset("CN"), frozenset("CNI")
D, DI = frozenset("D"), frozenset("DI")
LENGTHS = ("chosen_len", "rejected_len")
NO_TOKENS = (("unit", "words", LENGTHS, ()), ("unit", "characters", LENGTHS, ()))
RATED = {"mode": MODE, "on_missing": MISSING}
GOLDEN = {"on_missing": MISSING, "gold_from": GOLD}
HERE = "harness.corruptions"


def by_severity(mild: float, moderate: float, severe: float, name: str = "rate") -> dict[str, Params]:
    """The severities of a kind that one number sets."""
    return {"mild": {name: mild}, "moderate": {name: moderate}, "severe": {name: severe}}
