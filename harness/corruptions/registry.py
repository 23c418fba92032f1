"""Corruptions by name, and what a user may write for one cell. Imports no torch, pandas or numpy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from harness.corruptions.kinds_curation import CURATION
from harness.corruptions.kinds_labels import LABELS
from harness.corruptions.kinds_rows import ROWS
from harness.corruptions.kinds_text import TEXT
from harness.corruptions.row import PLUMBING, Corruption
from harness.text import look_up, suggestion
from harness.types import CorruptionSpec, InputError, Parameter

CORRUPTIONS: Mapping[str, Corruption] = MappingProxyType({row.name: row for row in (*LABELS, *ROWS, *TEXT, *CURATION)})


__all__ = ["CORRUPTIONS", "SEQUENCE", "Corruption", "changes", "needs", "resolve", "settle"]

SEQUENCE = "sequence"
_RATE = Parameter(None, low=0.0, high=1.0)
_ANNOTATOR = {
    "share": Parameter(None, low=0.0, high=1.0, low_open=True),
    "eps": Parameter(0.0, low=0.0, high=1.0),
    "kappa": Parameter(0.0, low=0.0),
    "temperature": Parameter(0.0, low=0.0, choices=("inf",)),
}


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
    return CorruptionSpec(kind, rate, tuple((k, _freeze(kept[k])) for k in sorted(kept)))


def settle(kind: str, rate: Any, params: Mapping[str, Any]) -> tuple[Corruption, float | None, dict[str, Any]]:
    """The row of `kind`, the checked rate (None where it takes none) and all parameters with defaults filled in.

    A parameter whose value is None counts as not given. Raises InputError with one line per problem.
    """
    if not isinstance(kind, str):
        raise InputError(f"corruption: kind must be a name such as uniform_flip, got {kind!r}")
    row = look_up(CORRUPTIONS, kind, "corruption")
    params = {name: value for name, value in params.items() if value is not None}
    problems = [
        f"corruption '{kind}' has no parameter '{name}'{suggestion(str(name), row.parameters)} (it has: "
        f"{', '.join((['rate'] if row.rate == 'fixed' else []) + list(row.parameters)) or 'none'})"
        for name in params
        if name not in row.parameters
    ]
    known = {name: _number(row.parameters[name], value) for name, value in params.items() if name in row.parameters}
    for name, value in known.items():
        problem = _problem(row.parameters[name], value)
        problems += [f"corruption '{kind}': {name}: {problem}"] if problem else []
    both = [name for name in row.either if name in known]
    if len(both) > 1:
        problems.append(f"corruption '{kind}': give only one of {' and '.join(both)}")
    unset = row.either if both else ()
    full = {n: p.default for n, p in row.parameters.items() if n not in unset and p.default is not None} | known
    problems += _rate_problems(row, rate, full)
    if not problems:
        problems = _table_problems(kind, full)
    if problems:
        raise InputError(*problems)
    if "annotators" in full:
        full["annotators"] = tuple(
            {k: _number(_ANNOTATOR.get(k), v) for k, v in dict(a).items()} for a in full["annotators"]
        )
    return row, float(rate) if rate is not None and row.takes_rate(full) else None, full


def changes(spec: CorruptionSpec) -> frozenset[str]:
    """What differs after this corruption: any of `labels`, `rows`, `text`; empty for the clean set."""
    return frozenset(CORRUPTIONS[kind].changes_of(dict(params)) for kind, _, params in _steps(spec))


def needs(spec: CorruptionSpec) -> frozenset[str]:
    """The facts this corruption reads (columns of `facts`, or the pair's own)."""
    found: set[str] = set()
    for kind, _, params in _steps(spec):
        found |= set(CORRUPTIONS[kind].needs_of(dict(params)))
        for annotator in map(dict, dict(params).get("annotators", ())):
            found |= set(annotator_needs(annotator, dict(params)["unit"]))
    return frozenset(found)


def annotator_needs(annotator: Mapping[str, Any], unit: str) -> tuple[str, ...]:
    """The facts one annotator of an `annotator_mixture` reads; none where it only flips at rate eps."""
    own = annotator.get("kappa") or annotator.get("temperature") or "margin" in annotator
    lengths = ("chosen_len", "rejected_len") if annotator.get("kappa") and unit == "tokens" else ()
    return ((annotator.get("margin", "gold_margin"),) if own else ()) + lengths


def _steps(spec: CorruptionSpec) -> tuple[tuple[str, float | None, tuple[tuple[str, Any], ...]], ...]:
    if spec.kind == SEQUENCE:
        steps: tuple[tuple[str, float | None, tuple[tuple[str, Any], ...]], ...] = dict(spec.params)["steps"]
        return steps
    return () if spec == CorruptionSpec() else ((spec.kind, spec.rate, spec.params),)


def _resolve_sequence(given: Mapping[str, Any]) -> CorruptionSpec:
    steps, others = given[SEQUENCE], [key for key in given if key != SEQUENCE]
    if others:
        raise InputError(f"corruption: '{others[0]}' beside 'sequence'; put it into one of the steps")
    if not isinstance(steps, list | tuple) or not steps:
        raise InputError("corruption: 'sequence' is a non-empty list such as [{kind: truncate, rate: 0.1}, ...]")
    resolved, problems = [], []
    for number, step in enumerate(steps, 1):
        try:
            if isinstance(step, Mapping) and SEQUENCE in step:
                raise InputError("a sequence cannot stand inside a sequence; write its steps in one list")
            resolved.append(resolve(step))
        except InputError as error:
            problems += [f"step {number}: {line}" for line in error.problems]
    if problems:
        raise InputError(*problems)
    acting = [spec for spec in resolved if spec != CorruptionSpec()]
    if len(acting) < 2:
        return acting[0] if acting else CorruptionSpec()
    return CorruptionSpec(SEQUENCE, None, (("steps", tuple((s.kind, s.rate, s.params) for s in acting)),))


def _with_severity(given: Mapping[str, Any]) -> Mapping[str, Any]:
    word = given.get("severity")
    if word is None:
        return given
    row = look_up(CORRUPTIONS, str(given.get("kind")), "corruption")
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
        form = "; or choose form: rate for an exact share" if row.rated_forms else ""
        refused = f"corruption '{row.name}' takes no rate: its rate follows from {row.set_by}; set {row.set_by}{form}"
        return [] if rate is None else [refused]
    if rate is None:
        return [f"corruption '{row.name}' needs 'rate', the share of pairs it acts on, in [0, 1]"]
    problem = _RATE.problem(rate)
    return [f"corruption '{row.name}': rate: {problem}"] if problem else []


def _problem(parameter: Parameter, value: Any) -> str | None:
    # `choices` of a number are words allowed beside the numbers (temperature: inf).
    if parameter.kind == "float" and isinstance(value, str) and value in parameter.choices:
        return None
    return parameter.problem(value)


def _number(parameter: Parameter | None, value: Any) -> Any:
    """Numbers in one written form, so that 1 and 1.0 share a run key; infinity as the word JSON can hold."""
    if parameter is None or parameter.kind != "float" or isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return "inf" if value == math.inf and "inf" in parameter.choices else float(value)


def _table_problems(kind: str, params: Mapping[str, Any]) -> list[str]:
    """Checks of the two parameters that are not one number or one word."""
    marker = params.get("marker", "auto")
    if not isinstance(marker, str) or not marker.strip():
        return [f"corruption '{kind}': marker: expected auto, column, or a phrase, got {marker!r}"]
    if "annotators" not in params:
        return []
    where, rows = f"corruption '{kind}': annotators", params["annotators"]
    try:
        rows = [dict(row) for row in rows]
    except (TypeError, ValueError):
        rows = []
    if not rows:
        return [f"{where}: expected a list of mappings such as [{{share: 0.8, eps: 0.05}}, {{share: 0.2, eps: 0.4}}]"]
    problems = []
    allowed = [*_ANNOTATOR, "name", "margin"]
    for number, row in enumerate(rows):
        for key, value in row.items():
            if key not in allowed:
                problem: str | None = f"unknown key{suggestion(str(key), allowed)} (known: {', '.join(allowed)})"
            elif key in _ANNOTATOR:
                problem = _problem(_ANNOTATOR[key], _number(_ANNOTATOR[key], value))
            else:
                problem = None if isinstance(value, str) and value else f"expected a name, got {value!r}"
            problems += [f"{where}[{number}].{key}: {problem}"] if problem else []
        problems += [] if "share" in row else [f"{where}[{number}]: 'share' is missing"]
    if not problems and abs(math.fsum(row["share"] for row in rows) - 1.0) > 1e-9:
        problems = [f"{where}: shares sum to {math.fsum(row['share'] for row in rows):g}; they must sum to 1"]
    names = [row.get("name", str(number)) for number, row in enumerate(rows)]
    if not problems and len(set(names)) < len(names):
        problems = [f"{where}: two annotators share a name; give each its own"]
    return problems


def _is_neutral(row: Corruption, params: Mapping[str, Any]) -> bool:
    return any(all(params.get(name) == value for name, value in neutral.items()) for neutral in row.neutral)


def _freeze(value: Any) -> Any:
    """`value` with lists as tuples and mappings as sorted tuples of pairs, so that specs stay hashable."""
    if isinstance(value, Mapping):
        return tuple((key, _freeze(value[key])) for key in sorted(value))
    if isinstance(value, list | tuple):
        return tuple(_freeze(item) for item in value)
    return value
