"""The table of objectives by name, and `resolve`: name and hyperparameters as an `ObjectiveSpec`. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.objectives import (
    batchwise,
    constrained,
    mixture,
    pairwise,
    reference_free,
    reward_model,
    rl,
    sidewise,
    tokenwise,
)
from harness.objectives.row import Objective
from harness.plugins import Registry
from harness.text import nearest_or_all, suggestion
from harness.types import InputError, ObjectiveSpec, Parameter

FAMILIES = (
    pairwise, sidewise, constrained, reference_free, batchwise, tokenwise, mixture, reward_model, rl,
)  # fmt: skip
OBJECTIVES: Registry[Objective] = Registry("objectives", Objective, (row for family in FAMILIES for row in family.ROWS))

ALIASES = {"constrained_cpo": "cpo_smooth"}

_ECPO = "is read in different ways: use `ecpo_released` (the authors' code), `cpo_eq17` or `cpo_smooth`."
_RDPO = (
    "is ambiguous: use `robust_dpo` (label noise, arXiv 2403.00409) or `rdpo_length` "
    "(length penalty, arXiv 2403.19159)."
)

REFUSED = {
    "cpo": (
        "is ambiguous: use `contrastive_cpo` (Contrastive Preference Optimization, arXiv 2401.08417, TRL's CPOTrainer) "
        "or `constrained_cpo` (Constrained Preference Optimization, arXiv 2605.20834)."
    ),
    **dict.fromkeys(("ecpo", "e_cpo", "ecpoc", "e_cpoc"), _ECPO),
    **dict.fromkeys(("rdpo", "r_dpo"), _RDPO),
    "rpo": (
        "names three unrelated methods and none of them is here: for an added SFT term use the option `rpo_alpha`, "
        "e.g. `{name: dpo, rpo_alpha: 1}`."
    ),
    **dict.fromkeys(
        ("fdpo", "f_dpo"),
        "needs its divergence: use `fdpo_forward_kl`, `fdpo_js` or `fdpo_alpha` (reverse KL is `dpo`).",
    ),
    "tdpo": "is ambiguous: use `tdpo1` or `tdpo2` (arXiv 2404.11999).",
}

# TRL's loss types that mean exactly one row here. `ipo` is missing on purpose: TRL's is `length_average: true`.
TRL_NAMES = {
    "sigmoid": "`dpo`",
    "robust": "`robust_dpo`",
    "exo_pair": "`exo`",
    "nca_pair": "`nca`",
    "bco_pair": "`bco` with its running shift held at 0",
    "sppo_hard": "`sppo`",
    "aot_pair": "`aot_unpaired`",
    "sigmoid_norm": "`ln_dpo`",
}


def resolve(name: str, given: Mapping[str, Any]) -> ObjectiveSpec:
    """The objective `name` with `given` hyperparameters and the defaults of the rest.

    Raises InputError with every problem at once: an unknown or ambiguous name, a hyperparameter that the objective
    does not have, a value out of range.
    """
    row = _row(name)
    if row.name == "mixture":
        return _resolve_mixture(row, given)
    values, problems = _values(row, given)
    if problems:
        raise InputError(*problems)
    return ObjectiveSpec(row.name, tuple(sorted(values.items())), OBJECTIVES.plugin(row.name))


def _row(name: str) -> Objective:
    plain = name.lower().replace("-", "_")
    if plain in REFUSED:
        raise InputError(f"`{name}` {REFUSED[plain]}")
    if name not in OBJECTIVES and plain in TRL_NAMES:
        raise InputError(f"unknown objective '{name}': TRL's loss type of that name is {TRL_NAMES[plain]} here")
    name = ALIASES.get(name, name)
    if name not in OBJECTIVES:
        visible = sorted(key for key, row in OBJECTIVES.items() if row.tier != "internal")
        unknown = f"unknown objective '{name}'{_hint(name, visible)}"
        raise InputError(unknown, *OBJECTIVES.found.broken)
    OBJECTIVES.check(name)
    return OBJECTIVES[name]


def _hint(name: str, known: Sequence[str]) -> str:
    """The nearest name, else all: one wrong letter or two swapped before anything longer or shorter (`dpp`: `dpo`)."""
    for key in known:
        wrong = [pair for pair in zip(name, key, strict=False) if pair[0] != pair[1]]
        if len(key) == len(name) and (len(wrong) == 1 or (len(wrong) == 2 and sorted(name) == sorted(key))):
            return f"; did you mean '{key}'?"
    return nearest_or_all(name, known)


def _values(row: Objective, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Hyperparameters with the defaults filled in, and what is wrong with them."""
    head, problems = f"objective '{row.name}'", []
    values = {key: parameter.default for key, parameter in row.hyperparameters.items()}
    given = own_terms(row, given)
    for key, value in given.items():
        parameter = row.hyperparameters.get(key)
        if parameter is None:
            known = ", ".join(row.hyperparameters) or "none"
            hint = suggestion(key, row.hyperparameters)
            problems.append(f"{head} has no hyperparameter '{key}'{hint} (it has: {known})")
        elif (why := _problem(parameter, value)) is not None:
            reason = row.reasons.get(key)
            problems.append(f"{head}: {key}: {why}{f' ({reason})' if reason else ''}")
        else:
            whole = parameter.kind == "float" and isinstance(value, int)
            values[key] = float(value) if whole else value
    if not problems and row.check is not None and (why := row.check(values)) is not None:
        problems.append(f"{head}: {why}")
    return values, problems


def own_terms(row: Objective, given: Mapping[str, Any]) -> dict[str, Any]:
    """As `row.in_own_terms`. Raises InputError where an absolute value, or the beta it is divided by, is no number."""
    for absolute, ratio in row.ratios.items():
        for key, parameter in ((absolute, row.hyperparameters[ratio]), ("beta", row.hyperparameters["beta"])):
            if absolute in given and key in given and (why := _problem(parameter, given[key])) is not None:
                raise InputError(f"objective '{row.name}': {key}: {why}")
    return row.in_own_terms(given)


def _problem(parameter: Parameter, value: Any) -> str | None:
    """As `Parameter.problem`; None is a value where it is the default."""
    return None if value is None and parameter.default is None else parameter.problem(value)


def _resolve_mixture(row: Objective, given: Mapping[str, Any]) -> ObjectiveSpec:
    values, problems = _values(row, given)
    entries = given.get("mixture")
    if not isinstance(entries, list | tuple) or not entries:
        problems.append("mixture: expected a list such as [{name: dpo, weight: 1}, {name: ipo, weight: 0.5}]")
        raise InputError(*problems)
    components = [_component(index, entry, problems) for index, entry in enumerate(entries)]
    resolved = [component for component in components if component is not None]
    shared = [
        OBJECTIVES[name].reduction
        for name, _, settings in resolved
        if "beta" in OBJECTIVES[name].hyperparameters and "beta" not in dict(settings)
    ]
    if not problems and not shared:
        problems.append("mixture: no component reads the mixture's beta; leave `beta` out of one that has it")
    if not problems and len(set(shared)) > 1:
        problems.append(
            "mixture: objectives of sums and of token means share one beta; give one of them its own `beta`"
        )
    if problems:
        raise InputError(*problems)
    return ObjectiveSpec(row.name, (("beta", values["beta"]), ("mixture", tuple(resolved))))


def _component(index: int, entry: Any, problems: list[str]) -> tuple[str, float, tuple[tuple[str, Any], ...]] | None:
    """One component as (name, weight, hyperparameters); beta stays out where the mixture's own is meant."""
    where = f"mixture.{index}"
    if isinstance(entry, tuple):  # a component of a resolved mixture
        entry = {"name": entry[0], "weight": entry[1], **dict(entry[2])}
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
        problems.append(f"{where}: expected a mapping with a name, such as {{name: dpo, weight: 1}}")
        return None
    given = {key: value for key, value in entry.items() if key not in ("name", "weight")}
    weight = entry.get("weight", 1.0)
    why = Parameter(1.0, low=0, low_open=True).problem(weight)
    if why is not None:
        problems.append(f"{where}.weight: {why}")
    try:
        row = _row(entry["name"])
        if "beta" not in given and (absolute := sorted(set(given) & set(row.ratios))):
            ratio = row.ratios[absolute[0]]
            raise InputError(f"'{row.name}': {absolute[0]} is {ratio} x beta, which is the mixture's; give {ratio}")
        given = own_terms(row, given)
    except InputError as error:
        problems += [f"{where}: {line}" for line in error.problems]
        return None
    if row.name not in mixture.MIXABLE:
        problems.append(
            f"{where}: '{row.name}' cannot be mixed; expected an objective with a loss per pair and no state"
        )
        return None
    values, wrong = _values(row, given)
    problems += [f"{where}: {line}" for line in wrong]
    if wrong or why is not None:
        return None
    if "beta" in values and "beta" not in given:
        del values["beta"]
    return row.name, float(weight), tuple(sorted(values.items()))
