"""How a study searches and what it may cost: sampler, pruner, budget, counts, fresh seeds, where trials are copied.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from harness.config.grid import MAX_SEED
from harness.config.schema import expected, read_mapping, shown
from harness.config.strict_yaml import Node, plain
from harness.config.study_targets import Target
from harness.types import Parameter

MAX_TRIALS = 10_000
STORAGE_SCHEMES = ("sqlite", "postgresql", "mysql")


@dataclass(frozen=True, slots=True)
class Sampler:
    """How trials are drawn. A draw depends only on `seed`, objective and trial number; the first ones are random."""

    # tpe: learns where good trials are | random: independent trials | gp: a Gaussian process, for few trials
    kind: str = "tpe"
    seed: int = 0  # seed of the draws; another number draws other trials
    startup_trials: int = 10  # random trials before the sampler learns from them


@dataclass(frozen=True, slots=True)
class Pruner:
    """Which trials lose their remaining seeds."""

    # none: all seeds run | median: worse than half | hyperband: successive halving | wilcoxon: worse than the
    # best on the seeds that both have
    kind: str = "none"
    startup_trials: int = 5  # complete trials before pruning starts (median)
    p: float = 0.1  # wilcoxon: a trial is pruned below this p; larger: sooner


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits on one objective's search besides `trials`: no further round starts once one is reached."""

    tokens: int | None = None  # trained tokens
    # core seconds; they depend on the machine, so a repeated study may differ
    seconds: float | None = None
    runs: int | None = None  # training runs, one per trial and seed


SETTINGS: dict[type[Any], dict[str, Parameter]] = {
    Sampler: {
        "kind": Parameter(None, "choice", choices=("tpe", "random", "gp")),
        "seed": Parameter(None, "int", 0, MAX_SEED),
        "startup_trials": Parameter(None, "int", 1, MAX_TRIALS),
    },
    Pruner: {
        "kind": Parameter(None, "choice", choices=("none", "median", "hyperband", "wilcoxon")),
        "startup_trials": Parameter(None, "int", 0, MAX_TRIALS),
        "p": Parameter(None, "float", 0, 1, low_open=True, high_open=True),
    },
    Budget: {
        "tokens": Parameter(None, "int", 0, low_open=True),
        "seconds": Parameter(None, "float", 0, low_open=True),
        "runs": Parameter(None, "int", 0, low_open=True),
    },
}


def read_settings(kind: type[Any], key: str, keys: Mapping[str, Node], problems: list[str]) -> Any:
    """One of the small mappings; a plain word is its `kind` (`sampler: random`)."""
    node, fields = keys.get(key), SETTINGS[kind]
    if node is None:
        return kind()
    if isinstance(node.value, str) and "kind" in fields:
        node = Node({"kind": Node(node.value, node.where)}, node.where)
    example = "{" + ", ".join(f"{name}: {expected(field)}" for name, field in fields.items()) + "}"
    return kind(**(read_mapping(fields, node, key, example, problems) or {}))


def read_count(node: Node | None, key: str, default: int, problems: list[str]) -> int:
    """A number of trials, `default` where the key is missing; appends one line for a mistake."""
    if node is None:
        return default
    if isinstance(node.value, bool) or not isinstance(node.value, int) or not 1 <= node.value <= MAX_TRIALS:
        problems.append(f"{node.where} {key}: {shown(plain(node))}; expected an integer in [1, {MAX_TRIALS}]")
        return default
    return node.value


def read_fresh(node: Node | None, seeds: tuple[int, ...], problems: list[str]) -> tuple[int, ...]:
    """`10` means the ten seeds after the largest of `seeds`; a list is taken as it is and must share none with them."""
    first = max(seeds) + 1
    if node is None:
        return tuple(range(first, first + 10))
    value = plain(node)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_TRIALS:
        return tuple(range(first, first + value))
    wanted = f"a count from 0 to {MAX_TRIALS}, or a list of different integers that are none of `seeds`"
    good = isinstance(value, list) and all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in value)
    if not good or len(set(value)) < len(value) or set(value) & set(seeds):
        shared = good and set(value) & set(seeds)
        told = f"{sorted(shared)} already used by the search" if shared else shown(value)
        problems.append(f"{node.where} fresh_seeds: {told}; expected {wanted}")
        return ()
    return tuple(value)


def pruner_problems(
    pruner: Pruner, seeds: tuple[int, ...], targets: tuple[Target, ...], keys: Mapping[str, Node], problems: list[str]
) -> None:
    """Appends why the pruner cannot prune this study."""
    if pruner.kind == "none":
        return
    place = f"{keys['pruner'].where} pruner"
    if len(targets) > 1:
        problems.append(f"{place}: trials with several targets have no order to prune by; expected none")
    if len(seeds) < 2:
        problems.append(f"{place}: prunes between the seeds of a trial; expected at least 2 seeds")
    elif pruner.kind == "wilcoxon" and 0.5 ** (len(seeds) - 1) >= pruner.p:
        # The smallest one-sided p of n pairs is 2 ** -n, and the last seed leaves nothing to save.
        problems.append(
            f"{place}: with {len(seeds)} seeds its p is never below {pruner.p:g}, so it would never prune; "
            "expected more seeds, a larger p, or median"
        )


def read_storage(node: Node | None, problems: list[str]) -> str:
    """The database that trials are copied to, empty for the study's own file; appends one line for a mistake."""
    if node is None:
        return ""
    if not isinstance(node.value, str) or (
        node.value and node.value.split(":")[0].split("+")[0] not in STORAGE_SCHEMES
    ):
        problems.append(
            f"{node.where} storage: {shown(plain(node))}; expected a database URL of {', '.join(STORAGE_SCHEMES)} "
            "such as sqlite:///optuna.db, or no `storage` key, to use the study's own file"
        )
    elif urlsplit(node.value).password:
        problems.append(
            f"{node.where} storage: holds a password, which would be copied to the study's folder; expected an address "
            "without one, and PGPASSWORD or a line in ~/.pgpass"
        )
    return str(node.value)
