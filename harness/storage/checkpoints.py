"""Checkpoints of a run that is not finished: `ckpt/step-N/` with a manifest, complete or absent.

A checkpoint is written under another name, each file flushed, `MANIFEST.json` (size and SHA-256 of every file) last,
then renamed. The one before it is deleted only after the new one was read back. Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from harness.storage.atomic import sync_folder, write_synced
from harness.storage.failpoints import failpoint

CHECKPOINTS, MANIFEST = "ckpt", "MANIFEST.json"
KEEP = 2  # checkpoints per run


def save_checkpoint(run: Path, step: int, files: Mapping[str, bytes]) -> None:
    """Store `files` by name as the run's checkpoint at `step`, and drop all but the newest `KEEP` whole ones.

    Raises OSError where the disk is full, and where the new checkpoint does not read back; older ones are then kept.
    """
    failpoint("ckpt.begin")
    home, name = run / CHECKPOINTS, f"step-{step}"
    home.mkdir(mode=0o700, exist_ok=True)
    fresh = home / f"{name}.tmp-{uuid.uuid4().hex[:8]}"
    fresh.mkdir(mode=0o700)
    try:
        manifest = {}
        for file, data in files.items():
            write_synced(fresh / file, data)
            manifest[file] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            failpoint("ckpt.middle")
        failpoint("ckpt.manifest")
        write_synced(fresh / MANIFEST, json.dumps({"step": step, "files": manifest}).encode())
        sync_folder(fresh)
        failpoint("ckpt.rename")
        if (home / name).exists():  # of an earlier attempt at this very step
            shutil.rmtree(home / name)
        fresh.rename(home / name)
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    sync_folder(home)
    failpoint("ckpt.renamed")
    if read_checkpoint(home / name) is None:
        raise OSError(f"{home / name}: does not read back as it was written")
    for old in _steps(run)[KEEP:]:
        shutil.rmtree(home / f"step-{old}")
        failpoint("ckpt.drop")


def read_checkpoint(folder: Path) -> dict[str, bytes] | None:
    """The files of one checkpoint, each as its manifest says; None where anything is missing or differs."""
    try:
        stated = json.loads((folder / MANIFEST).read_bytes())
        files = {name: (folder / name).read_bytes() for name in stated["files"]}
        whole = f"step-{stated['step']}" == folder.name and all(
            (len(data), hashlib.sha256(data).hexdigest())
            == (stated["files"][name]["size"], stated["files"][name]["sha256"])
            for name, data in files.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return files if whole else None


def load_checkpoints(run: Path) -> Iterator[tuple[int, dict[str, bytes]]]:
    """(step, files) of every whole checkpoint, the newest first. A damaged one is set aside as `*.corrupt-<ms>`."""
    for step in _steps(run):
        place = run / CHECKPOINTS / f"step-{step}"
        files = read_checkpoint(place)
        if files is None:
            place.rename(place.with_name(f"{place.name}.corrupt-{time.time_ns() // 1_000_000}"))
        else:
            yield step, files


def newest_step(run: Path) -> int:
    """The step of the newest checkpoint by name, not yet verified; 0 where there is none."""
    return next(iter(_steps(run)), 0)


def _steps(run: Path) -> list[int]:
    """Steps that have a folder under their final name, the newest first."""
    home = run / CHECKPOINTS
    names = [path.name.removeprefix("step-") for path in home.iterdir()] if home.is_dir() else []
    return sorted((int(name) for name in names if name.isdecimal()), reverse=True)
