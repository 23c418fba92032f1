"""A judge's verdicts and what they add up to, in a sweep's folder.

`judge/verdicts.jsonl`: a journal with every verdict of the sweep, by the content of what was compared. `judge.json` in
a run's folder: win rates of that run's answers, one entry per judge and opponent. Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from harness.metrics.judge import WinRate
from harness.metrics.statistics import Estimate
from harness.storage.atomic import read_json, set_aside, write_json
from harness.storage.journal import JournalDamaged, read_journal
from harness.types import InputError

FOLDER, VERDICTS, JUDGEMENTS = "judge", "verdicts.jsonl", "judge.json"
PREFIX = "judge"


@dataclass(frozen=True, slots=True)
class Judgement:
    """Win rates of a run's answers by one judge against one opponent: `reference`, or the name of a run."""

    model: str
    endpoint: str
    template: str  # SHA-256 of the prompt template
    against: str
    step: int
    result: WinRate

    @property
    def asked(self) -> tuple[str, str, str, str]:
        """What makes it the same question as another one."""
        return self.model, self.endpoint, self.template, self.against


def read_verdicts(folder: Path) -> dict[str, str]:
    """The verdicts of a sweep's folder by the key of the comparison. Raises JournalDamaged."""
    path = folder / FOLDER / VERDICTS
    records = read_journal(path) if path.exists() else []
    return {record["key"]: record["verdict"] for record in records if record["kind"] == "verdict"}


def write_judgement(folder: Path, judgement: Judgement) -> None:
    """Add a judgement to a run's folder, in place of an earlier one of the same judge and opponent.

    A damaged file is set aside: all that it held can be made again from the verdicts.
    """
    try:
        others = [one for one in read_judgements(folder) if one.asked != judgement.asked]
    except JournalDamaged:
        set_aside(folder / JUDGEMENTS)
        others = []
    write_json(folder / JUDGEMENTS, {"judgements": [plain(one) for one in (*others, judgement)]})


def read_judgements(folder: Path) -> tuple[Judgement, ...]:
    """The judgements in a run's folder. Raises JournalDamaged where the file is not as it was written."""
    path = folder / JUDGEMENTS
    if not path.is_file():
        return ()
    try:
        return tuple(_judgement(value) for value in read_json(path)["judgements"])
    except (InputError, KeyError, TypeError, ValueError, AttributeError):
        raise JournalDamaged(path, 1) from None


def points(judgement: Judgement) -> dict[str, float]:
    """The metric points of a judgement against the reference; a run has one name for each, so others have none."""
    if judgement.against != "reference" or not judgement.result.prompts:
        return {}
    rates = {"win_rate": judgement.result.win_rate, "win_rate_length_controlled": judgement.result.length_controlled}
    return {f"{PREFIX}/{name}": rate.mean for name, rate in rates.items() if rate is not None}


def plain(judgement: Judgement) -> dict[str, Any]:
    """A judgement as JSON: null where nothing is known."""
    return {name: _known(value) for name, value in asdict(judgement).items()}


def _known(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _known(child) for name, child in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _judgement(value: Mapping[str, Any]) -> Judgement:
    result: dict[str, Any] = dict(value["result"])
    for name, child in result.items():
        if isinstance(child, Mapping):
            known: dict[str, Any] = {key: math.nan if part is None else part for key, part in child.items()}
            result[name] = Estimate(**known)
        elif child is None and name != "length_controlled":
            result[name] = math.nan
    if set(result) != {one.name for one in fields(WinRate)}:
        raise ValueError("other fields than a win rate's")
    return Judgement(**{**value, "result": WinRate(**result)})
