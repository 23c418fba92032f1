"""Named arrays in the caches: safetensors with key and checksum inside; of several processes one builds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from harness.storage.atomic import set_aside, write_atomic


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
    """The arrays stored at `path` under `key`; None where absent or damaged (then renamed, so they are built again)."""
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
        set_aside(path)
        return None
    return arrays


def once(
    path: Path, load: Callable[[], dict[str, np.ndarray] | None], build: Callable[[], None]
) -> dict[str, np.ndarray]:
    """What `load` gives, after `build` where it gives None: of several processes one builds, the others wait."""
    from filelock import FileLock

    arrays = load()
    if arrays is not None:
        return arrays
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock", mode=0o600):
        arrays = load()
        if arrays is None:
            build()
            arrays = load()
    if arrays is None:
        raise RuntimeError(f"{path.name} was written but cannot be read back")
    return arrays
