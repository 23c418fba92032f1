"""Which files a path means (one, a folder, a split), opened: gzip and zstd, told by their first bytes.

A folder stands for the files of one split. The split is named by the file (`train-00000-of-00002.parquet`,
`train.jsonl.gz`) or, where the file has only a number or a general name, by its folder (`default/train/0000.parquet`).
Scripts beside them are never run.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from harness.data.raw_rows import (
    BOM,
    MAX_ROW_BYTES,
    Bytes,
    RawRow,
    RowError,
    array_rows,
    json_rows,
    parquet_rows,
    table_rows,
)
from harness.text import suggestion
from harness.types import InputError

__all__ = ["MAX_ROW_BYTES", "RawRow", "RowError", "content_sha256", "read_rows", "split_files", "splits"]

_GZIP, _ZSTD, _PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
# A shard may carry a hash of its content, `train-00000-of-00002-1f0e5c9a77b3d2e4.parquet`.
_DATA_FILE = re.compile(
    r"(?P<split>.+?)(-\d{5}-of-\d{5}(-[0-9a-f]{8,})?)?\.(?P<kind>parquet|jsonl|ndjson|json|csv|tsv)(\.gz|\.zst)?"
)
_TABLES = ("csv", "tsv")
# What `datasets` and LLaMA-Factory write about data sets, beside them.
_ABOUT = ("dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json")
_SPLIT_WORD = re.compile(
    r"(?:^|[-_. ])(train|training|test|testing|eval|evaluation|valid|validation|val|dev)(?:$|[-_. ])"
)
_NUMBERED = re.compile(r"(?:(?P<word>part|shard|chunk|data|file)[-_.]?)?\d{4,}([-_.][0-9a-f-]{8,}.*)?")


@contextmanager
def _open(path: Path) -> Iterator[Bytes]:
    """The decompressed bytes of `path`. Raises InputError for a file that is absent, unreadable or damaged."""
    packing = ""
    try:
        with path.open("rb") as raw:
            head = raw.peek(4)[:4]
            if head[:2] == _GZIP:
                with gzip.GzipFile(fileobj=raw) as unpacked:
                    yield unpacked
            elif head == _ZSTD:
                import pyarrow as pa

                packing = "zstd"
                with pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd") as stream:
                    yield io.BufferedReader(stream, 1 << 16)
            else:
                yield raw
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"data.path: {path} is a damaged gzip file ({error}); fetch it again") from error
    except OSError as error:
        if packing and error.errno is None:  # Arrow's own errors carry no number
            raise InputError(f"data.path: {path} is a damaged {packing} file ({error}); fetch it again") from error
        raise InputError(f"data.path: cannot read {path}: {error.strerror or error}") from error


def content_sha256(path: str | Path) -> str:
    """SHA-256 (hex) of the file's decompressed bytes: packing the same rows again with gzip changes nothing.

    Of a folder, of the names of its data files and their contents, whichever split is asked for.
    Raises InputError for a file that is absent, unreadable or damaged, and for a folder without a data file.
    """
    path = Path(path)
    digest = hashlib.sha256()
    if path.is_dir():
        for file in _data_files(path):
            name = file.relative_to(path).as_posix().removesuffix(".gz").removesuffix(".zst")
            digest.update(f"{name} {content_sha256(file)}\n".encode())
        return digest.hexdigest()
    with _open(path) as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _name_part(file: Path, part: str) -> str:
    """`split` or `kind` of the name of a file that `_data_files` found."""
    match = _DATA_FILE.fullmatch(file.name)
    assert match is not None
    return match[part]


def _data_files(folder: Path) -> list[Path]:
    """The data files below a folder in order of their names; what else lies there is no data.

    Tables (CSV, TSV) are data only where no other form lies there: results and labels often stand beside a data set.
    """
    inside = [path for path in folder.rglob("*") if not any(p.startswith(".") for p in path.relative_to(folder).parts)]
    named = {path: match for path in inside if path.is_file() and (match := _DATA_FILE.fullmatch(path.name))}
    files = [path for path in named if path.name not in _ABOUT]
    files = [path for path in files if named[path]["kind"] not in _TABLES] or files
    if not files:
        arrow = any(path.suffix == ".arrow" for path in inside)
        hint = "; Arrow files of save_to_disk: write them again with to_parquet" if arrow else ""
        raise InputError(
            f"data.path: {folder} holds no data file; expected .parquet, .jsonl, .json, .csv or .tsv, the latter also "
            f"as .gz or .zst{hint}"
        )
    return sorted(files, key=Path.as_posix)


def _split_of(file: Path, folder: Path) -> str:
    """The split that a data file belongs to: named by the file, by a folder above it, or `train` where none is."""
    stem = _name_part(file, "split")
    if _SPLIT_WORD.search(stem):
        return stem
    above = reversed(file.relative_to(folder).parts[:-1])
    if named := next((part for part in above if _SPLIT_WORD.search(part)), ""):
        return named
    if numbered := _NUMBERED.fullmatch(stem):
        return numbered["word"] or "train"
    return stem


def splits(folder: Path) -> list[str]:
    """The names of the splits that a folder holds, sorted."""
    return sorted({_split_of(file, folder) for file in _data_files(folder)})


def split_files(path: Path, split: str = "", key: str = "data.split") -> list[Path]:
    """The files of one split of a folder; of a file that file itself.

    Raises InputError where a folder has several splits and none is named, where it lacks the one that is, where its
    files mix forms, and where a split is asked of a single file. `key` is the field of the spec that named the split.
    """
    if not path.is_dir():
        if split:
            raise InputError(f"{key}: '{split}' names files of a folder, and {path} is one file; leave it out")
        return [path]
    by_split: dict[str, list[Path]] = {}
    for file in _data_files(path):
        by_split.setdefault(_split_of(file, path), []).append(file)
    names = ", ".join(sorted(by_split)[:20])
    if not split and len(by_split) > 1:
        raise InputError(f"data.path: {path} holds the splits {names}; name one as {key}")
    files = by_split.get(split) if split else next(iter(by_split.values()))
    if files is None:
        raise InputError(f"{key}: {path} has no split '{split}'{suggestion(split, by_split)}; found {names}")
    kinds = {_name_part(file, "kind") == "parquet" for file in files}
    if len(kinds) > 1:
        raise InputError(f"data.path: {path} holds Parquet and JSON files of one split; keep one form")
    unpacked = [file.with_name(file.name.removesuffix(".gz").removesuffix(".zst")) for file in files]
    if twice := next((file for file in unpacked if unpacked.count(file) > 1), None):
        raise InputError(f"data.path: {path} holds {twice.name} packed in two ways; keep one of them")
    return files


def read_rows(path: str | Path, columns: Mapping[str, str], split: str = "") -> Iterator[RawRow]:
    """The raw rows of a file or of a folder's `split`, in order. Of Parquet only `columns` are read, others are None.

    `columns` maps each name to the kinds of value it may hold (`harness.data.formats.registry`), which CSV cells need.

    Raises InputError for a file that is absent, unreadable, damaged as a whole, or UTF-16, and as `split_files` does.
    """
    passed = 0
    for file in split_files(Path(path), split):
        last = 0
        for row in _file_rows(file, columns):
            last = row.number
            yield RawRow(passed + row.number, row.value, f"{file}:{row.number}")
        passed += last


def _kind(path: Path) -> str:
    """The form that a file's name states, e.g. `tsv`; empty where it states none."""
    match = _DATA_FILE.fullmatch(path.name)
    return str(match["kind"]) if match else ""


def _is_array(head: bytes) -> bool:
    """Whether a file that begins with `head` is one JSON array, not JSONL whose first row is a list."""
    if not head.startswith(b"["):
        return False
    line, _, rest = head.partition(b"\n")
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return True
    return not rest.strip()


def _file_rows(path: Path, columns: Mapping[str, str]) -> Iterator[RawRow]:
    with _open(path) as handle:
        head = handle.read(4096)
    if head.startswith(_UTF16):
        raise InputError(f"data.path: {path} is UTF-16; save it as UTF-8")
    if head.startswith(_PARQUET):
        yield from parquet_rows(path, columns)
        return
    with _open(path) as handle:
        if _is_array(head.removeprefix(BOM).lstrip()):
            yield from array_rows(handle, path)
        elif _kind(path) in _TABLES:
            yield from table_rows(handle, path, columns, "\t" if _kind(path) == "tsv" else ",")
        else:
            yield from json_rows(handle)
