"""A judge's verdicts and what they add up to, in a sweep's folder.

`judge/verdicts.jsonl`: a journal with every verdict of the sweep, by the content of what was compared. `judge.json` in
a run's folder: win rates of that run's answers, one entry per judge and opponent. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.storage.atomic import read_json, set_aside, write_json
from harness.storage.journal import JournalDamaged, read_journal
from harness.types import InputError

FOLDER, VERDICTS, JUDGEMENTS = "judge", "verdicts.jsonl", "judge.json"
PREFIX = "judge"
REFERENCE = "reference"


@dataclass(frozen=True, slots=True)
class Judgement:
    """Win rates of a run's answers by one judge against one opponent: `reference`, or the name of a run's folder.

    `template`: SHA-256 of the prompt template. `step`: the run's last. `result`: a `WinRate` as JSON, null for unknown.
    """

    model: str
    endpoint: str
    template: str
    against: str
    step: int
    result: Mapping[str, Any]

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
    write_json(folder / JUDGEMENTS, {"judgements": [asdict(one) for one in (*others, judgement)]})


def read_judgements(folder: Path) -> tuple[Judgement, ...]:
    """The judgements in a run's folder. Raises JournalDamaged where the file is not as it was written."""
    path = folder / JUDGEMENTS
    if not path.is_file():
        return ()
    try:
        return tuple(Judgement(**value) for value in read_json(path)["judgements"])
    except (InputError, KeyError, TypeError):
        raise JournalDamaged(path, 1) from None


def points(judgement: Judgement) -> dict[str, float]:
    """The metric points of a judgement against the reference; a run has one name for each, so others have none."""
    rates = {"win_rate": "win_rate", "win_rate_length_controlled": "length_controlled"}
    found = {name: judgement.result.get(key) for name, key in rates.items() if judgement.against == REFERENCE}
    return {f"{PREFIX}/{name}": rate["mean"] for name, rate in found.items() if rate and rate["mean"] is not None}
