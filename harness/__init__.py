"""Which preference objective survives which noise: `harness sweep` asks, `load` opens the answer.

These names are the public API: scripts and notebooks may rely on them, everything else may move. They are loaded on
first use, so importing `harness` loads neither torch nor pandas.

- `OBJECTIVES`, `CORRUPTIONS`, `METRICS`: registries, mappings from name to row. A loss is
  `OBJECTIVES["dpo"].loss(policy, reference, beta=0.1)`; hyperparameters left out take the row's defaults.
- `corrupt(pairs, kind=..., rate=..., seed=...)`: corrupted copies of preference pairs, and a ledger of every change.
- `PreferencePair`, `PairLogps`, `LossOutput`: the types of a pair, of its log-probs and of what an objective returns.
- `plan(spec)`, `sweep(spec)`, `study(spec)`, `status(folder)`, `report(folder)`: the verbs of the command line.
- `audit(data)`: which labels of a preference set are likely wrong, and what to do about it.
- `compare(folder, folder, ...)`: sweeps side by side; `publish(folder, to)`: what of a sweep may leave the machine.
- `diagnose(policies, data=...)`: what a trained policy does to pairs; `corrupt_file(data, out, kind=...)`: a file of
  pairs converted or corrupted; `corrupt_sets(spec, out)`: every training set of a sweep.
- `load(folder)`: the tables of a sweep's folder for pandas.
- `InputError`: what every one of them raises for a mistake, a line per problem in `problems`.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.api import (
        audit,
        compare,
        corrupt_file,
        corrupt_sets,
        diagnose,
        plan,
        publish,
        report,
        status,
        study,
        sweep,
    )
    from harness.corruptions import CORRUPTIONS, corrupt
    from harness.frames import load
    from harness.metrics import METRICS
    from harness.objectives.registry import OBJECTIVES
    from harness.types import InputError, LossOutput, PairLogps, PreferencePair

__all__ = [
    "CORRUPTIONS", "METRICS", "OBJECTIVES", "InputError", "LossOutput", "PairLogps", "PreferencePair", "audit",
    "compare", "corrupt", "corrupt_file", "corrupt_sets", "diagnose", "load", "plan", "publish", "report", "status",
    "study", "sweep",
]  # fmt: skip

_HOMES = {
    "CORRUPTIONS": "harness.corruptions",
    "METRICS": "harness.metrics",
    "OBJECTIVES": "harness.objectives.registry",
    "InputError": "harness.types",
    "LossOutput": "harness.types",
    "PairLogps": "harness.types",
    "PreferencePair": "harness.types",
    "corrupt": "harness.corruptions",
    "load": "harness.frames",
    **dict.fromkeys(
        ("audit", "compare", "corrupt_file", "corrupt_sets", "diagnose", "plan", "publish", "report", "status", "study",
         "sweep"),
        "harness.api",
    ),
}  # fmt: skip


class _Package(ModuleType):
    """`harness` itself, whose `sweep`, `study`, `report`, `audit` and `diagnose` are functions, although packages have
    these names.

    Importing a submodule sets it as an attribute of its package; for a public name that is left out. `from
    harness.sweep.run import ...` works as ever.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    """A public name, imported from its module on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'harness' has no attribute '{name}'")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
