"""What a call of `harness diagnose` asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Asked:
    """The options. `reference` "" is the base of an adapter, "none" no reference, and
    the path of a log-prob file takes the reference from it."""

    out: Path
    policies: Sequence[str] = ()
    reference: str = ""
    data: str = ""
    logps: Path | None = None
    train_data: str = ""
    ledger: Path | None = None
    beta: float | None = None
    slices: Sequence[str] | None = None
    form: str = ""
    rewardbench: int = 0  # 1 or 2: the pairs are that benchmark's file
    limit: int = 0
    max_length: int = 1024
    tokens: str = "dpo"  # as TRL's DPO trainer has them, as its CPO trainer (cpo), or as a sweep (harness)
    dtype: str = "float32"
    device: str = "auto"
    template_arguments: str = ""  # of the tokenizer's chat template, a JSON object
    track: bool = False  # a run per policy in MLflow
    force: bool = False  # replace another diagnosis in `out`
