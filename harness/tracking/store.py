"""Files that are whole or absent: atomic writes, checked reads, one folder a run with `result.json` published last."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from harness.names import canonical_json, canonical_plain, slug
from harness.tracking import faults
from harness.types import InputError

RESULT, ATTEMPT = "result.json", "attempt"


def write_atomic(path: Path, data: bytes) -> None:
    """Replace `path` by `data` so that a crash leaves the old file or the new one, never a part. Mode 0600."""
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    faults.point("write.begin")
    try:
        write_synced(temporary, data)
        faults.point("write.middle")
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    faults.point("write.renamed")
    sync_folder(path.parent)


def write_synced(path: Path, data: bytes) -> None:
    """A new file with `data`, on the disk when this returns. Mode 0600; raises FileExistsError where it exists."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]
        os.fsync(file)
    finally:
        os.close(file)


def sync_folder(folder: Path) -> None:
    """Make renames and new names in `folder` survive a power loss."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_full(error: OSError) -> bool:
    """Whether a write failed because there is no room: disk, quota or file-size limit."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_json(path: Path, value: Any) -> None:
    """`value` as readable JSON, atomically. Raises ValueError for NaN or infinity."""
    write_atomic(path, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8"))


def read_json(path: Path) -> Any:
    """The JSON value of a file. Raises InputError naming the file where it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


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
    checksums alone miss what stands between the pages.)
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = path.read_bytes()
    result = _whole_result(path.parent / RESULT)
    stated = result["files"].get(path.name) if result is not None else None
    if stated is not None and hashlib.sha256(data).hexdigest() != stated:
        raise OSError(f"{path}: does not match its checksum in {RESULT}")
    file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
    names = None if wanted is None else [name for name in file.schema_arrow.names if name in wanted]
    table = file.read(names)
    return {name: table[name].to_numpy() for name in table.column_names}


def sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def run_folders(sweep_folder: Path) -> dict[str, Path]:
    """Run folders by the first 8 characters of their run key; the sweep's folder is listed once for all of them."""
    if not sweep_folder.is_dir():
        return {}
    found = sorted((entry.name for entry in os.scandir(sweep_folder) if entry.name[8:9] == "-"), reverse=True)
    return {name[:8]: sweep_folder / name for name in found}


def find_run(sweep_folder: Path, run_key: str, readable: str = "") -> Path | None:
    """The folder of a run, or None. Folder names begin with the first 8 characters of the key.

    A folder of the `readable` name is found at once; else the sweep's folder is listed, since names may have changed.
    """
    likely = sweep_folder / f"{run_key[:8]}-{slug(readable)}"
    return likely if readable and likely.is_dir() else run_folders(sweep_folder).get(run_key[:8])


def open_run(sweep_folder: Path, run_key: str, readable: str, keep: str = "") -> tuple[Path, int]:
    """The run's folder, ready for a new attempt, and the number of that attempt (1 for the first).

    What an unfinished or failed earlier attempt left is removed, but for what is named `keep`. Raises InputError where
    the folder is a link: what is removed here must be the run's own.
    """
    folder = find_run(sweep_folder, run_key, readable) or sweep_folder / f"{run_key[:8]}-{slug(readable)}"
    if folder.is_symlink():
        raise InputError(f"{folder}: is a symbolic link; a run's folder must be a folder, remove the link")
    folder.mkdir(mode=0o700, exist_ok=True)
    attempt = 1 + attempts_of(folder)
    write_atomic(folder / ATTEMPT, str(attempt).encode())
    (folder / RESULT).unlink(missing_ok=True)  # first: a result must never stand beside files that are gone
    for leftover in folder.iterdir():
        if leftover.name not in (ATTEMPT, keep):
            _remove(leftover)
    return folder, attempt


def attempts_of(folder: Path) -> int:
    """Attempts at a run so far, by its result or its counter."""
    earlier = _whole_result(folder / RESULT)
    return int(earlier["attempt"]) if earlier is not None else _attempts(folder / ATTEMPT)


def _attempts(counter: Path) -> int:
    """Attempts so far; a counter that cannot be read counts as none."""
    try:
        return int(counter.read_text())
    except (OSError, ValueError):
        return 0


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def commit(folder: Path, result: Mapping[str, Any]) -> None:
    """Publish `result.json`, the last file of a run, with the SHA-256 of every other and of itself.

    Published with a hard link, so of two writers the later one loses and the first result stands.
    """
    faults.point("commit.begin")
    attempt = max(_attempts(folder / ATTEMPT), 1)
    own = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name != ATTEMPT]
    files = {path.name: sha256(path) for path in own if not path.name.startswith(".")}
    value = {**result, "attempt": attempt, "files": files}
    value["costs"] = {**result["costs"], "attempt": attempt}
    value["sha256"] = hashlib.sha256(canonical_json(value).encode("utf-8")).hexdigest()
    temporary = folder / f".{RESULT}.{uuid.uuid4().hex[:8]}.tmp"
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        write_synced(temporary, text.encode())
        os.link(temporary, folder / RESULT)
    except FileExistsError:
        pass  # someone else finished this run first: their result stands
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(folder)
    faults.point("commit.published")
    for leftover in folder.iterdir():  # what only an unfinished run needs
        if leftover.name == ATTEMPT or (leftover.is_dir() and result["status"] != "stopped"):
            _remove(leftover)


def load_result(folder: Path) -> dict[str, Any] | None:
    """The verified result of a run, or None where there is none or it is damaged (renamed, so it is made again)."""
    path = folder / RESULT
    if not path.exists():
        return None
    result = _whole_result(path)
    if result is None:
        _quarantine(path)
    return result


def _whole_result(path: Path) -> dict[str, Any] | None:
    """The result in a file that matches its own checksum, else None."""
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        stated = value.pop("sha256")
        actual = hashlib.sha256(canonical_plain(value).encode("utf-8")).hexdigest()
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
    return value if actual == stated else None


def _quarantine(path: Path) -> None:
    path.replace(path.with_name(f"{path.name}.corrupt-{time.time_ns() // 1_000_000}"))


def verify(folder: Path) -> list[str]:
    """One line for each damaged file of a run or sweep folder: run key, file, what differs. Changes nothing."""
    if not (folder / RESULT).exists():
        runs = sorted({path.parent for path in folder.glob(f"*/{RESULT}*")})
        return [line for run in runs for line in _verify_run(run)] + _verify_references(folder)
    return _verify_run(folder)


def _verify_references(sweep_folder: Path) -> list[str]:
    """What was evaluated of the references that runs began as."""
    from harness.tracking.evaluations import REFERENCES, damaged

    found = sorted(path for path in (sweep_folder / REFERENCES).glob("*") if path.is_dir())
    return [f"{path.name} {line}" for path in found for line in damaged(path)]


def _verify_run(folder: Path) -> list[str]:
    from harness.tracking.evaluations import damaged as damaged_evaluations

    lines = [f"{folder.name[:8]} {p.name}: was damaged" for p in sorted(folder.glob(f"{RESULT}.corrupt-*"))]
    lines += [f"{folder.name[:8]} {line}" for line in damaged_evaluations(folder)]
    if not (folder / RESULT).exists():
        return lines
    result = _whole_result(folder / RESULT)
    if result is None:
        return [*lines, f"{folder.name[:8]} {RESULT}: does not match its own checksum"]
    for name, stated in result["files"].items():
        if not (folder / name).exists():
            lines.append(f"{result['run_key']} {name}: missing")
        elif sha256(folder / name) != stated:
            lines.append(f"{result['run_key']} {name}: does not match its checksum")
    return lines


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray], meta: Mapping[str, str]) -> None:
    """Named arrays as safetensors, with `meta` (its `key` is checked on load) and a SHA-256 of the data inside."""
    from safetensors.numpy import save

    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    write_atomic(path, save(plain, metadata={**meta, "sha256": _digest(plain)}))


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def load_arrays(path: Path, key: str) -> dict[str, np.ndarray] | None:
    """The arrays stored at `path` under `key`; None where absent or damaged (then renamed, to be made again)."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return None
    try:
        with safe_open(path, framework="np") as file:
            meta = file.metadata()
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, ValueError, SafetensorError):
        meta, arrays = None, {}
    if not meta or meta.get("key") != key or meta.get("sha256") != _digest(arrays):
        _quarantine(path)
        return None
    return arrays


def once(
    path: Path, load: Callable[[], dict[str, np.ndarray] | None], build: Callable[[], None]
) -> dict[str, np.ndarray]:
    """What `load` gives, after `build` where it gives None: of several processes one builds, the others wait."""
    from filelock import FileLock

    found = load()
    if found is not None:
        return found
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock", mode=0o600):
        found = load()
        if found is None:
            build()
            found = load()
    if found is None:
        raise RuntimeError(f"{path.name} was written but cannot be read back")
    return found


@contextmanager
def claim_sweep(folder: Path) -> Iterator[None]:
    """Hold the sweep for this process; a dead holder's claim ends with it. Raises InputError naming a live holder."""
    from filelock import FileLock, Timeout

    lock = FileLock(str(folder / ".lock"), timeout=0, mode=0o600)
    note = folder / ".holder"
    try:
        lock.acquire()
    except Timeout:
        holder = note.read_text() if note.exists() else "another process"
        raise InputError(f"{folder}: {holder} is running this sweep; wait for it or stop it") from None
    try:
        write_atomic(note, f"process {os.getpid()} (since {time.strftime('%H:%M:%S')})".encode())
        yield
    finally:
        lock.release()


def claimed_by(folder: Path) -> str | None:
    """Who is running this sweep now, or None: a claim ends with its process, however that ends."""
    from filelock import FileLock, Timeout

    if not (folder / ".lock").exists():
        return None
    lock = FileLock(str(folder / ".lock"), timeout=0, mode=0o600)
    try:
        with lock:
            return None
    except Timeout:
        note = folder / ".holder"
        return note.read_text() if note.exists() else "another process"
