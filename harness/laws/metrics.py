"""Laws of measures, on planted records: they read what they declare, keep their range, say NaN where undefined."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from harness.laws import hold
from harness.metrics.records import Columns
from harness.metrics.row import LOGPS, Metric
from harness.types import InputError, PromptKind

Settings = Mapping[str, Any]


def records(delta: ArrayLike, delta_ref: ArrayLike, base: float = -20.0, **extra: Any) -> dict[str, np.ndarray]:
    """Pairs with the given margins: half of the movement on each side, rejected reference log-prob `base`."""
    now, before = np.asarray(delta, dtype=np.float64), np.asarray(delta_ref, dtype=np.float64)
    n = now.size
    columns: dict[str, np.ndarray] = {
        "id": np.array([f"p{i:04d}" for i in range(n)]),
        "reference_rejected": np.full(n, base),
        "reference_chosen": base + before,
        "policy_rejected": base - (now - before) / 2,
    }
    columns["policy_chosen"] = columns["policy_rejected"] + now
    columns |= {
        "chosen_len": np.full(n, 4, dtype=np.int32),
        "rejected_len": np.full(n, 5, dtype=np.int32),
        "observed_label": np.ones(n, dtype=np.int8),
        "clean_label": np.ones(n, dtype=np.int8),
        "corrupted": np.zeros(n, dtype=bool),
        "gold_margin": np.full(n, np.nan),
        "group": np.array(["what"] * n),
    }
    return columns | {name: np.asarray(value) for name, value in extra.items()}


def everything(columns: Columns) -> dict[str, np.ndarray]:
    """The columns of every measure of pairs."""
    n = len(columns["policy_chosen"])
    numbers = {name: np.linspace(-1, 2, n) for name in ("loss", "grad_w", "ches", "ln_ches")}
    numbers |= {name: np.linspace(0, 2, n) for name in ("base_loss", "grad_l")}
    return dict(columns) | numbers | {"vacuous": np.arange(n) % 2 == 0}


def probed(n: int = 5) -> dict[str, np.ndarray]:
    """The columns of every measure of gradients; the second pair has no chosen gradient."""
    norms = {"grad_norm_w": np.linspace(0, 1, n), "grad_norm_l": np.ones(n), "gain_rate": np.linspace(-1, 1, n)}
    flags = {name: np.arange(n) % 2 == 0 for name in ("chosen_rises", "rejected_falls")}
    return norms | flags | {"grad_cos": np.array([math.nan, *np.linspace(-1, 1, n - 1)])}


def sampled(n: int = 6, **extra: Any) -> dict[str, np.ndarray]:
    """The columns of every measure of samples."""
    names = ("correct", "malformed", "sycophantic", "over_refusal", "harmful", "hedged", "thanked", "sure", "ended")
    flags = {name: np.arange(n) % 3 == 0 for name in names}
    rest = {
        "gold_reward": np.linspace(-1, 1, n),
        "reference_gold_reward": np.linspace(-2, 1, n),
        "k1": np.linspace(-1, 2, n),
        "k3": np.linspace(0, 2, n),
        "length": np.arange(n),
        "reference_length": np.arange(n)[::-1] + 2,
        "fillers": np.arange(n) % 4,
        "entropy": np.linspace(0, 1, n),
        "response": np.array(["a b c"] * n),
        "split": np.array(["eval"] * n),
        "group": np.array([list(PromptKind)[i % 3] for i in range(n)]),
    }
    return flags | rest | extra


def columns_of(row: Metric, columns: Columns | None = None) -> dict[str, np.ndarray]:
    """Records that have all that the row may read: of samples, of the gradient probe, or of pairs such as `columns`."""
    if row.splits == "S":
        return sampled()
    if row.splits == "P":
        return probed()
    if columns is None:
        columns = records(
            [1.0, -0.4, 2.0, -3.0], [-1.0, -2.0, 0.5, 1.0], gold_margin=[1.0] * 4, clean_label=[1, -1, 1, -1]
        )
    return everything(columns)


def settings_of(row: Metric, beta: float = 0.7) -> dict[str, Any]:
    """All that a measure may be told of its run; of chi_po where it is of that loss alone."""
    objective = "chi_po" if row.name == "clamp_rate" else "dpo"
    return {"beta": beta, "gamma": 0.4, "objective": objective, "hyperparameters": {"beta": beta}}


def stays_in_range(row: Metric, columns: Columns | None = None) -> None:
    """A value that is known lies in the declared range."""
    value = row.compute(columns_of(row, columns), **settings_of(row))
    hold(
        math.isnan(value) or row.low - 1e-9 <= value <= row.high + 1e-9, f"{value!r} is outside [{row.low}, {row.high}]"
    )


def neutral_of_beta(row: Metric, columns: Columns | None = None, beta: float = 40.0) -> None:
    """A measure that is `beta_neutral` has one value whatever beta."""
    if row.beta_neutral:
        given = columns_of(row, columns)
        first, second = (row.compute(given, **settings_of(row, b) | {"objective": "dpo"}) for b in (0.5, beta))
        hold(first == second or (math.isnan(first) and math.isnan(second)), "declared beta_neutral, changes with beta")


def reads_what_it_declares(row: Metric) -> None:
    """It needs the columns and settings that it declares and reads nothing else; no rows give NaN."""
    columns, given = columns_of(row), settings_of(row)
    full = row.compute(columns, **given)
    hold(math.isfinite(full), f"is {full} on records that have everything")
    hold(row.compute({name: columns[name] for name in row.needs}, **given) == full, "reads columns beyond `needs`")
    for name in row.needs:
        _missed(row, {key: value for key, value in columns.items() if key != name}, given, name)
    for name in row.settings:
        _missed(row, columns, {key: value for key, value in given.items() if key != name}, name)
    nothing = {name: values[:0] for name, values in columns.items()}
    hold(math.isnan(row.compute(nothing, **given)), "is a number without rows; expected NaN")


def states_itself(row: Metric) -> None:
    """Direction, unit, summary and splits are stated."""
    stated = row.direction in ("up", "down", "none") and row.summary and row.unit and set(row.splits) <= set("OCEDSP")
    hold(bool(stated), "direction up, down or none; a unit, a summary; splits among O C E D S P")


def no_number_of_a_diverged_policy(row: Metric, bad: float = math.nan) -> None:
    """A log-prob that is not finite makes no number."""
    if set(LOGPS) <= set(row.needs):
        columns = everything(records([1.0, 2.0], [0.5, 0.5], gold_margin=[1.0, 1.0], clean_label=[1, -1]))
        columns["policy_chosen"] = np.array([-20.0, bad])
        hold(math.isnan(row.compute(columns, **settings_of(row))), f"is a number where a log-prob is {bad}")


def order_does_not_matter(row: Metric) -> None:
    """Another order of the rows gives the same value."""
    columns, given = columns_of(row), settings_of(row)
    turned = {name: values[::-1] for name, values in columns.items()}
    same = math.isclose(row.compute(columns, **given), row.compute(turned, **given), rel_tol=1e-9, abs_tol=1e-12)
    hold(same, "depends on the order of the rows")


def _missed(row: Metric, columns: Columns, given: Settings, name: str) -> None:
    try:
        row.compute(columns, **given)
    except InputError as error:
        hold(name in str(error), f"the error for a missing {name} does not name it")
        return
    hold(False, f"does not miss {name}, which it declares")


LAWS = (
    states_itself, reads_what_it_declares, stays_in_range, neutral_of_beta, no_number_of_a_diverged_policy,
    order_does_not_matter,
)  # fmt: skip
