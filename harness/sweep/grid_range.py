"""Whether a sweep's betas cover the range in which the registry says that an objective's best beta is found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.objectives.registry import OBJECTIVES
from harness.types import Parameter, RunSpec

SLACK = 1e-9  # relative: 0.1 written in two ways is one beta


def uncovered(betas: Sequence[float], parameter: Parameter) -> tuple[bool, bool]:
    """Whether the range of a search reaches below the lowest and above the highest of `betas`; never without one."""
    if parameter.search is None or not betas:
        return False, False
    low, high = parameter.search
    return min(betas) > low * (1 + SLACK), max(betas) < high * (1 - SLACK)


def grid_notes(runs: Iterable[RunSpec]) -> list[str]:
    """A line for each objective whose betas leave out a part of its registry's range: its best may lie there."""
    betas: dict[str, set[float]] = {}
    for run in runs:
        if run.objective.beta is not None:
            betas.setdefault(run.objective.name, set()).add(run.objective.beta)
    notes = []
    for name, tried in betas.items():
        parameter = OBJECTIVES[name].hyperparameters.get("beta")
        below, above = (False, False) if parameter is None else uncovered(sorted(tried), parameter)
        if parameter is None or parameter.search is None or not (below or above):
            continue
        low, high = parameter.search
        span = f"{min(tried):g} to {max(tried):g}" if len(tried) > 1 else f"{min(tried):g}"
        beyond = " and ".join([*(["below"] if below else []), *(["above"] if above else [])])
        notes.append(
            f"{name}: beta {span} leaves out a part of the registry's range {low:g} to {high:g}: a best beta may lie"
            f" {beyond}"
        )
    return notes
