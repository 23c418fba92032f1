"""Which files of a run or a sweep differ from what was written."""

from __future__ import annotations

from pathlib import Path

from harness.identity import file_sha256
from harness.storage.evaluations import REFERENCES, damaged_evaluations
from harness.storage.gold import damaged_gold
from harness.storage.journal import JournalDamaged
from harness.storage.judgements import JUDGEMENTS, read_judgements
from harness.storage.runs import RESULT, whole_result


def verify(folder: Path) -> list[str]:
    """One line for each damaged file of a run or sweep folder: run key, file, what differs. Changes nothing."""
    if not (folder / RESULT).exists():
        runs = sorted({path.parent for path in folder.glob(f"*/{RESULT}*")})
        return [line for run in runs for line in _verify_run(run)] + _verify_references(folder)
    return _verify_run(folder)


def _verify_references(sweep_folder: Path) -> list[str]:
    """The damaged benchmark results of references."""
    folders = sorted(path for path in (sweep_folder / REFERENCES).glob("*") if path.is_dir())
    return [f"{folder.name} {line}" for folder in folders for line in damaged_evaluations(folder)]


def _verify_run(folder: Path) -> list[str]:
    lines = [f"{folder.name[:8]} {p.name}: was damaged" for p in sorted(folder.glob(f"{RESULT}.corrupt-*"))]
    lines += [f"{folder.name[:8]} {line}" for line in (*damaged_evaluations(folder), *damaged_gold(folder))]
    try:
        read_judgements(folder)
    except JournalDamaged:
        lines.append(f"{folder.name[:8]} {JUDGEMENTS}: damaged")
    if not (folder / RESULT).exists():
        return lines
    result = whole_result(folder / RESULT)
    if result is None:
        return [*lines, f"{folder.name[:8]} {RESULT}: does not match its own checksum"]
    for name, stated in result["files"].items():
        if not (folder / name).exists():
            lines.append(f"{result['run_key']} {name}: missing")
        elif file_sha256(folder / name) != stated:
            lines.append(f"{result['run_key']} {name}: does not match its checksum")
    return lines
