"""What a call of `harness audit` asks for."""

from __future__ import annotations

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
