"""GGUF files as model folders: each is dequantised once, by transformers, into the cache of converted models."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import uuid
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock

from harness.types import InputError

SUFFIX = ".gguf"
INSTALL = "pip install 'preference-harness[gguf]'"
MAGIC = b"GGUF"
CONVERSION = 1  # goes up when a conversion would give other weights or tokens
_PART = re.compile(r"-\d{5}-of-\d{5}$")


def cache_folder() -> Path:
    """The cache of converted models: `$HARNESS_CACHE`, else `preference-harness` in the user's cache folder."""
    own, user = os.environ.get("HARNESS_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if own:
        return Path(own).expanduser().resolve()
    return (Path(user) if user else Path.home() / ".cache") / "preference-harness"


def is_gguf(path: str | Path) -> bool:
    """Whether a path names a GGUF file."""
    return Path(path).suffix.lower() == SUFFIX


def converted_folder(file: Path, sha256: str) -> Path:
    """The folder that a GGUF file with this hash is converted into, made where it is not there yet.

    Raises InputError where the file cannot be converted.
    """
    folder = cache_folder() / "models" / f"gguf{CONVERSION}-{sha256[:32]}"
    if folder.is_dir():
        return folder
    check_gguf(file)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock", mode=0o600):  # of several processes one converts
        if not folder.is_dir():
            _convert(file, folder)
    return folder


def check_gguf(file: Path) -> None:
    """Raise InputError for what is no GGUF file, a part of one, and where the package that reads them is missing."""
    try:
        with file.open("rb") as opened:
            magic = opened.read(len(MAGIC))
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
    if magic != MAGIC:
        raise InputError(f"{file}: no GGUF file (it does not begin with {MAGIC.decode()}); fetch it again")
    if _PART.search(file.stem):
        raise InputError(f"{file}: one part of a GGUF file; join the parts first (llama-gguf-split --merge)")
    if find_spec("gguf") is None:
        raise InputError(f"{file}: GGUF files are read with the package gguf; install it with {INSTALL}")


def _convert(file: Path, folder: Path) -> None:
    """Convert in a process of its own: this one needs no torch, and the memory is free again at once."""
    unfinished = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        done = subprocess.run(  # noqa: S603 - this interpreter, a module of ours, two paths
            [sys.executable, "-m", "harness.models.dequantise", str(file), str(unfinished)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise InputError(f"{file}: transformers cannot read it ({lines[-1][:200]})")
        unfinished.replace(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
