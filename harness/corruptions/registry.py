"""Corruptions by name, and what a user may write for one cell. Imports no torch, pandas or scipy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.corruptions import annotators, curation, flips, resample, text
from harness.corruptions.row import PLUMBING, Corruption, problem_of, written
from harness.plugins import Registry
from harness.text import look_up, suggestion
from harness.types import CorruptionSpec, InputError, Parameter

_FAMILIES = (flips, annotators, resample, text, curation)
CORRUPTIONS: Registry[Corruption] = Registry(
    "corruptions", Corruption, (row for file in _FAMILIES for row in file.ROWS)
)

__all__ = ["CORRUPTIONS", "SEQUENCE", "Corruption", "needs", "relabels", "resolve", "settle", "steps"]

SEQUENCE = "sequence"
_RATE = Parameter(None, low=0.0, high=1.0)


def resolve(given: Mapping[str, Any]) -> CorruptionSpec:
    """One cell of scalars (`{kind, rate, <parameters>}`, or `{sequence: [cells]}`) as a resolved `CorruptionSpec`.

    Rate 0, `kind: none` and neutral parameters resolve to the clean set, so that equal runs share a run key; a
    sequence drops its clean steps, and one of a single step is that step. `severity: mild | moderate | severe`
    stands for the row's values. Scientific parameters are filled in with their defaults and sorted by name; those of
    `PLUMBING` are kept only where they differ. Only values of `kind="table"` parameters may be lists.

    Raises InputError, one line per problem, for unknown names, values out of range, a missing `rate`, or a `rate`
    given to a kind that derives it.
    """
    if not isinstance(given, Mapping):
        raise InputError(f"a corruption is a mapping such as {{kind: uniform_flip, rate: 0.2}}, got {given!r}")
    if SEQUENCE in given:
        return _resolve_sequence(given)
    given = _with_severity(given)
    if given.get("kind") is None:
        raise InputError("corruption: 'kind' is missing; for the clean set write kind: none")
    kind, rate = given["kind"], given.get("rate")
    if kind == SEQUENCE:
        raise InputError("corruption 'sequence' is written {sequence: [{kind: ...}, {kind: ...}]}")
    row, rate, params = settle(kind, rate, {k: v for k, v in given.items() if k not in ("kind", "rate")})
    if row.rate == "none" or rate == 0 or _is_neutral(row, params):
        return CorruptionSpec()
    kept = {k: v for k, v in params.items() if k not in PLUMBING or v != row.parameters[k].default}
    return CorruptionSpec(kind, rate, tuple((k, _freeze(kept[k])) for k in sorted(kept)), CORRUPTIONS.plugin(kind))


def settle(kind: str, rate: Any, params: Mapping[str, Any]) -> tuple[Corruption, float | None, Mapping[str, Any]]:
    """The row of `kind`, the checked rate (None where it takes none) and all parameters with defaults filled in.

    A parameter whose value is None counts as not given. Raises InputError with one line per problem.
    """
    if not isinstance(kind, str):
        raise InputError(f"corruption: kind must be a name such as uniform_flip, got {kind!r}")
    row = CORRUPTIONS.row(kind, "corruption")
    params = {name: value for name, value in params.items() if value is not None}
    problems = [
        f"corruption '{kind}' has no parameter '{name}'{suggestion(str(name), row.parameters)} (it has: "
        f"{', '.join((['rate'] if row.rate == 'fixed' else []) + list(row.parameters)) or 'none'})"
        for name in params
        if name not in row.parameters
    ]
    known = {name: written(row.parameters[name], value) for name, value in params.items() if name in row.parameters}
    for name, value in known.items():
        problem = problem_of(row.parameters[name], value)
        problems += [f"corruption '{kind}': {name}: {problem}"] if problem else []
    both = [name for name in row.either if name in known]
    if len(both) > 1:
        problems.append(f"corruption '{kind}': give only one of {' and '.join(both)}")
    unset = row.either if both else ()
    defaults = {n: p.default for n, p in row.parameters.items() if n not in unset and p.default is not None}
    full: Mapping[str, Any] = defaults | known
    problems += _rate_problems(row, rate, full)
    if row.check is not None and not problems:
        full, wrong = row.check(full)
        problems = [f"corruption '{kind}': {line}" for line in wrong]
    if problems:
        raise InputError(*problems)
    return row, float(rate) if rate is not None and row.takes_rate(full) else None, full


def plugins_of(kinds: Iterable[str]) -> str:
    """The plug-ins of some kinds, each once, as `CorruptionSpec.plugin` holds them."""
    return "; ".join(sorted({CORRUPTIONS.plugin(kind) for kind in kinds} - {""}))


def needs(spec: CorruptionSpec) -> frozenset[str]:
    """The facts this corruption reads (columns of `facts`, or the pair's own)."""
    return frozenset(fact for kind, _, params in steps(spec) for fact in CORRUPTIONS[kind].needs_of(dict(params)))


def relabels(spec: CorruptionSpec) -> bool:
    """Whether it changes labels at most: the pairs and their texts are those of the clean set."""
    return all(CORRUPTIONS[kind].changes_of(dict(params)) == "labels" for kind, _, params in steps(spec))


def steps(spec: CorruptionSpec) -> Sequence[tuple[str, float | None, tuple[tuple[str, Any], ...]]]:
    """Kind, rate and parameters of every step, one of a single kind; none for the clean set."""
    if spec.kind == SEQUENCE:
        return tuple(dict(spec.params)["steps"])
    return () if spec == CorruptionSpec() else ((spec.kind, spec.rate, spec.params),)


def _resolve_sequence(given: Mapping[str, Any]) -> CorruptionSpec:
    cells, others = given[SEQUENCE], [key for key in given if key != SEQUENCE]
    if others:
        raise InputError(f"corruption: '{others[0]}' beside 'sequence'; put it into one of the steps")
    if not isinstance(cells, list | tuple) or not cells:
        raise InputError("corruption: 'sequence' is a non-empty list such as [{kind: truncate, rate: 0.1}, ...]")
    resolved, problems = [], []
    for number, cell in enumerate(cells, 1):
        try:
            if isinstance(cell, Mapping) and SEQUENCE in cell:
                raise InputError("a sequence cannot stand inside a sequence; write its steps in one list")
            resolved.append(resolve(cell))
        except InputError as error:
            problems += [f"step {number}: {line}" for line in error.problems]
    if problems:
        raise InputError(*problems)
    acting = [spec for spec in resolved if spec != CorruptionSpec()]
    if len(acting) < 2:
        return acting[0] if acting else CorruptionSpec()
    params = (("steps", tuple((s.kind, s.rate, s.params) for s in acting)),)
    return CorruptionSpec(SEQUENCE, None, params, plugins_of(s.kind for s in acting))


def _with_severity(given: Mapping[str, Any]) -> Mapping[str, Any]:
    word = given.get("severity")
    if word is None:
        return given
    row = CORRUPTIONS.row(str(given.get("kind")), "corruption")
    if not row.severities:
        raise InputError(f"corruption '{row.name}' has no severities")
    values = look_up(row.severities, str(word), f"severity of corruption '{row.name}'")
    clash = [key for key in values if key in given]
    if clash:
        raise InputError(f"corruption '{row.name}': severity sets {', '.join(clash)}; give one or the other")
    return {key: value for key, value in given.items() if key != "severity"} | dict(values)


def _rate_problems(row: Corruption, rate: Any, params: Mapping[str, Any]) -> list[str]:
    if row.rate == "none":
        return [] if rate is None or rate == 0 else [f"corruption '{row.name}' takes no rate; leave it out"]
    if not row.takes_rate(params):
        form = "; or choose form: rate for an exact share" if row.rated_laws else ""
        refused = f"corruption '{row.name}' takes no rate: its rate follows from {row.set_by}; set {row.set_by}{form}"
        return [] if rate is None else [refused]
    if rate is None:
        return [f"corruption '{row.name}' needs 'rate', the share of pairs it acts on, in [0, 1]"]
    problem = _RATE.problem(rate)
    return [f"corruption '{row.name}': rate: {problem}"] if problem else []


def _is_neutral(row: Corruption, params: Mapping[str, Any]) -> bool:
    return any(all(params.get(name) == value for name, value in neutral.items()) for neutral in row.neutral)


def _freeze(value: Any) -> Any:
    """`value` with lists as tuples and mappings as sorted tuples of pairs, so that specs stay hashable."""
    if isinstance(value, Mapping):
        return tuple((key, _freeze(value[key])) for key in sorted(value))
    if isinstance(value, list | tuple):
        return tuple(_freeze(item) for item in value)
    return value
