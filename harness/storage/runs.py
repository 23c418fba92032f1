"""A run's folder: which runs are final, their checked tables, and `result.json`, published last with checksums."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from harness.identity import canonical_json, canonical_plain, file_sha256, plain
from harness.storage.atomic import remove_path, set_aside, sync_folder, write_atomic, write_synced
from harness.storage.failpoints import failpoint
from harness.text import slug
from harness.types import InputError, PlannedRun, RunStatus

RESULT, ATTEMPT = "result.json", "attempt"


def write_table(path: Path, columns: Mapping[str, Any]) -> None:
    """Columns of equal length as Parquet with page checksums, atomically."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    table = pa.table({name: pa.array(list(v) if v.dtype == object else v) for name, v in columns.items()})
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    write_atomic(path, sink.getvalue().to_pybytes())


def read_table(path: Path, wanted: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The columns of a Parquet file, verified: page checksums, and in a finished run the SHA-256 in its result.

    `wanted` limits them to those of its names that the file has. Raises OSError where checksums do not match. (Page
    checksums alone miss what is between the pages.)
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = path.read_bytes()
    result = whole_result(path.parent / RESULT)
    stated = result["files"].get(path.name) if result is not None else None
    if stated is not None and hashlib.sha256(data).hexdigest() != stated:
        raise OSError(f"{path}: does not match its checksum in {RESULT}")
    file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
    names = None if wanted is None else [name for name in file.schema_arrow.names if name in wanted]
    table = file.read(names)
    return {name: table[name].to_numpy() for name in table.column_names}


def run_folders(sweep_folder: Path) -> dict[str, Path]:
    """Run folders by the first 8 characters of their run key; the sweep's folder is listed once for all of them."""
    if not sweep_folder.is_dir():
        return {}
    names = sorted((entry.name for entry in os.scandir(sweep_folder) if entry.name[8:9] == "-"), reverse=True)
    return {name[:8]: sweep_folder / name for name in names}


def find_run(sweep_folder: Path, run_key: str, readable: str = "") -> Path | None:
    """The folder of a run, or None. Folder names begin with the first 8 characters of the key.

    Looks for the `readable` name first; else the sweep's folder is listed, since names may have changed.
    """
    likely = sweep_folder / f"{run_key[:8]}-{slug(readable)}"
    return likely if readable and likely.is_dir() else run_folders(sweep_folder).get(run_key[:8])


def open_run(sweep_folder: Path, run_key: str, readable: str, keep: str = "") -> tuple[Path, int]:
    """The run's folder, ready for a new attempt, and the number of that attempt (1 for the first).

    What an unfinished or failed earlier attempt left is removed, except `keep`. Raises InputError where
    the folder is a link: files outside the sweep must not be removed.
    """
    folder = find_run(sweep_folder, run_key, readable) or sweep_folder / f"{run_key[:8]}-{slug(readable)}"
    if folder.is_symlink():
        raise InputError(f"{folder}: is a symbolic link; a run's folder must be a folder, remove the link")
    folder.mkdir(mode=0o700, exist_ok=True)
    attempt = 1 + attempts_of(folder)
    write_atomic(folder / ATTEMPT, str(attempt).encode())
    (folder / RESULT).unlink(missing_ok=True)  # first: there must never be a result beside missing files
    for leftover in folder.iterdir():
        if leftover.name not in (ATTEMPT, keep):
            remove_path(leftover)
    return folder, attempt


def attempts_of(folder: Path) -> int:
    """Attempts at a run so far, by its result or its counter."""
    earlier = whole_result(folder / RESULT)
    return int(earlier["attempt"]) if earlier is not None else _attempts(folder / ATTEMPT)


def _attempts(counter: Path) -> int:
    """Attempts so far; a counter that cannot be read counts as none."""
    try:
        return int(counter.read_text())
    except (OSError, ValueError):
        return 0


def run_result(
    planned: PlannedRun,
    folder: Path,
    status: RunStatus,
    steps: int,
    costs: Mapping[str, Any],
    t0_ms: int,
    results: Mapping[str, float | None] | None = None,
) -> dict[str, Any]:
    """What `result.json` says of a run before it is committed."""
    return {
        "run_key": planned.key,
        "status": status,
        "steps": steps,
        "results": dict(results or {}),
        "costs": dict(costs),
        "config": plain(planned.run),
        "name": folder.name,
        "t0_ms": t0_ms,
    }


def commit(folder: Path, result: Mapping[str, Any]) -> None:
    """Publish `result.json`, the last file of a run, with the SHA-256 of every other and of itself.

    Published with a hard link, so of two writers the later one loses.
    """
    failpoint("commit.begin")
    attempt = max(_attempts(folder / ATTEMPT), 1)
    written = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name != ATTEMPT]
    files = {path.name: file_sha256(path) for path in written if not path.name.startswith(".")}
    value = {**result, "attempt": attempt, "files": files}
    value["costs"] = {**result["costs"], "attempt": attempt}
    value["sha256"] = hashlib.sha256(canonical_json(value).encode("utf-8")).hexdigest()
    temporary = folder / f".{RESULT}.{uuid.uuid4().hex[:8]}.tmp"
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        write_synced(temporary, text.encode())
        os.link(temporary, folder / RESULT)
    except FileExistsError:
        pass  # another process finished this run first
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(folder)
    failpoint("commit.published")
    for leftover in folder.iterdir():  # what only an unfinished run needs
        if leftover.name == ATTEMPT or (leftover.is_dir() and result["status"] != RunStatus.STOPPED):
            remove_path(leftover)


def load_result(folder: Path) -> dict[str, Any] | None:
    """The verified result of a run; None where it is missing or damaged (then renamed, so the run is trained again)."""
    path = folder / RESULT
    if not path.exists():
        return None
    result = whole_result(path)
    if result is None:
        set_aside(path)
    return result


def run_status(result: Mapping[str, Any] | None) -> RunStatus:
    """The status of a run by its verified result; pending without one."""
    return RunStatus.PENDING if result is None else RunStatus(result["status"])


def is_final(sweep_folder: Path, run_key: str) -> bool:
    """Whether a run needs no more training: it is done or diverged."""
    return run_status(find_result(sweep_folder, run_key)).final


def final_keys(sweep_folder: Path, run_keys: Collection[str]) -> set[str]:
    """Those of `run_keys` that need no more training. The sweep's folder is listed once for all of them."""
    folders = run_folders(sweep_folder)
    results = [load_result(folders[key[:8]]) for key in run_keys if key[:8] in folders]
    return {result["run_key"] for result in results if run_status(result).final and result} & set(run_keys)


def find_result(sweep_folder: Path, run_key: str) -> dict[str, Any] | None:
    """The verified result of the run with this key; None where it has no folder or no whole result."""
    folder = find_run(sweep_folder, run_key)
    return load_result(folder) if folder is not None else None


def whole_result(path: Path) -> dict[str, Any] | None:
    """The result in a file that matches its own checksum, else None."""
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        stated = value.pop("sha256")
        actual = hashlib.sha256(canonical_plain(value).encode("utf-8")).hexdigest()
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
    return value if actual == stated else None
