"""What a call of `harness audit` asks for."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Asked:
    """The options. `model` "" is a tiny model fitted to the pairs' own texts; `clean` names what is written: drop or
    relabel with `rows`, advice, or "" for nothing."""

    data: str
    out: Path
    model: str = ""
    slices: Sequence[str] = ()
    form: str = ""
    limit: int = 0
    folds: int = 5
    steps: int = 200  # updates of each model; 0 with `model`: no adapters, linear heads on its hidden states alone
    batch_size: int = 32
    learning_rate: float = 0.0  # peak rate; 0: 1e-3, for the adapters of a model 3e-4
    plant: float = 0.1
    seed: int = 0
    max_length: int = 256
    device: str = "auto"
    write: Path | None = None
    clean: str = ""
    rows: int = 0
    force: bool = False

    def again(self, *more: str) -> str:
        """The command that repeats this audit, with `more` options."""
        words = ["harness", "audit", "--data", near(self.data), "--out", near(str(self.out)), "--force"]
        words += ["--model", near(self.model)] if self.model else []
        words += ["--steps", str(self.steps)] if self.steps != (0 if self.model else Asked.steps) else []
        words += ["--slices", ",".join(self.slices)] if self.slices else []
        words += ["--format", self.form] if self.form else []
        for name in ("limit", "folds", "seed", "max_length"):
            if getattr(self, name) != getattr(Asked, name):
                words += [f"--{name.replace('_', '-')}", str(getattr(self, name))]
        return shlex.join([*words, *more])


def near(path: str) -> str:
    """A path as it was given; of one from the root its last part, which says nothing of the machine."""
    return Path(path).name if Path(path).is_absolute() else path
