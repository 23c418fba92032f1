"""Files of preference rows as bytes and as raw rows: JSONL, gzip of it, or Parquet, told apart by their first bytes.

A folder stands for the files in it, those of one split: `train-00000-of-00002.parquet` and `train.jsonl.gz` are of
the split `train`. Scripts beside them are never run.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from harness.text import suggestion
from harness.types import InputError

MAX_ROW_BYTES = 1_000_000
_GZIP, _PARQUET, _BOM = b"\x1f\x8b", b"PAR1", b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_DATA_FILE = re.compile(r"(?P<split>.+?)(-\d{5}-of-\d{5})?\.(?P<kind>parquet|jsonl|json)(\.gz)?")


class RowError(Exception):
    """One row cannot be used. `kind` groups faults in notes, `field` may be empty, `why` is for the user."""

    def __init__(self, kind: str, field: str, why: str) -> None:
        self.kind, self.field, self.why = kind, field, why
        super().__init__(f"{field}: {why}" if field else why)


@dataclass(frozen=True, slots=True)
class RawRow:
    """Row `number` of a source (from 1; the line in a JSONL file) with its fields, or what is wrong with it.

    `place` says where a user finds it, `prefs.jsonl:12`; in a folder of files `number` runs on from file to file.
    """

    number: int
    value: Mapping[str, Any] | RowError
    place: str = ""


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO | gzip.GzipFile]:
    """The decompressed bytes of `path`. Raises InputError for a file that is absent, unreadable or damaged."""
    try:
        with path.open("rb") as raw:
            if raw.peek(2)[:2] == _GZIP:
                with gzip.GzipFile(fileobj=raw) as unpacked:
                    yield unpacked
            else:
                yield raw
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"data.path: {path} is a damaged gzip file ({error}); fetch it again") from error
    except OSError as error:
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
            name = file.relative_to(path).as_posix().removesuffix(".gz")
            digest.update(f"{name} {content_sha256(file)}\n".encode())
        return digest.hexdigest()
    with _open(path) as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _data_files(folder: Path) -> list[Path]:
    """The data files below a folder in order of their names; what else lies there is no data."""
    inside = [path for path in folder.rglob("*") if not any(p.startswith(".") for p in path.relative_to(folder).parts)]
    files = sorted((p for p in inside if p.is_file() and _DATA_FILE.fullmatch(p.name)), key=Path.as_posix)
    if not files:
        arrow = any(path.suffix == ".arrow" for path in inside)
        hint = "; Arrow files of save_to_disk: write them again with to_parquet" if arrow else ""
        raise InputError(f"data.path: {folder} holds no data file; expected .parquet, .jsonl or .jsonl.gz{hint}")
    return files


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
        by_split.setdefault(_DATA_FILE.fullmatch(file.name)["split"], []).append(file)  # type: ignore[index]
    names = ", ".join(sorted(by_split)[:20])
    if not split and len(by_split) > 1:
        raise InputError(f"data.path: {path} holds the splits {names}; name one as {key}")
    files = by_split.get(split) if split else next(iter(by_split.values()))
    if files is None:
        raise InputError(f"{key}: {path} has no split '{split}'{suggestion(split, by_split)}; found {names}")
    kinds = {_DATA_FILE.fullmatch(file.name)["kind"] == "parquet" for file in files}  # type: ignore[index]
    if len(kinds) > 1:
        raise InputError(f"data.path: {path} holds Parquet and JSON files of one split; keep one form")
    return files


def _json_row(line: bytes) -> Mapping[str, Any]:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise RowError("not_utf8", "", f"not UTF-8 at byte {error.start} of the line") from error
    except (ValueError, RecursionError) as error:
        raise RowError("bad_json", "", f"not JSON ({error})") from error
    if not isinstance(row, dict):
        raise RowError("bad_json", "", f"expected one JSON object per line, got {type(row).__name__}")
    return row


def _json_rows(handle: BinaryIO | gzip.GzipFile) -> Iterator[RawRow]:
    """A row a line. Blank lines are no rows. A line beyond the limit is passed over without being held in memory."""
    number = 0
    while line := handle.readline(MAX_ROW_BYTES + 2):
        number += 1
        if len(line) > MAX_ROW_BYTES + 1:
            while line and not line.endswith(b"\n"):
                line = handle.readline(MAX_ROW_BYTES)
            yield RawRow(number, RowError("row_too_long", "", f"longer than {MAX_ROW_BYTES:,} bytes"))
            continue
        if number == 1:
            line = line.removeprefix(_BOM)
        if line.strip():
            try:
                yield RawRow(number, _json_row(line))
            except RowError as fault:
                yield RawRow(number, fault)


def _parquet_rows(path: Path, columns: tuple[str, ...]) -> Iterator[RawRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as table:
            names = table.schema_arrow.names
            wanted = [name for name in names if name in columns]
            unread: dict[str, None] = dict.fromkeys(name for name in names if name not in columns)
            number = 0
            for batch in table.iter_batches(batch_size=1024, columns=wanted):
                for row in batch.to_pylist() if wanted else [{} for _ in range(batch.num_rows)]:
                    number += 1
                    yield RawRow(number, {**unread, **row})
    except pa.ArrowException as error:
        raise InputError(f"data.path: {path} is a damaged Parquet file ({error}); fetch it again") from error


def read_rows(path: str | Path, columns: tuple[str, ...], split: str = "") -> Iterator[RawRow]:
    """The raw rows of a file or of a folder's `split`, in order. Of Parquet only `columns` are read, others are None.

    Raises InputError for a file that is absent, unreadable, damaged as a whole, or UTF-16, and as `split_files` does.
    """
    passed = 0
    for file in split_files(Path(path), split):
        last = 0
        for row in _file_rows(file, columns):
            last = row.number
            yield RawRow(passed + row.number, row.value, f"{file}:{row.number}")
        passed += last


def _file_rows(path: Path, columns: tuple[str, ...]) -> Iterator[RawRow]:
    with _open(path) as handle:
        head = handle.read(4)
        if head.startswith(_UTF16):
            raise InputError(f"data.path: {path} is UTF-16; save it as UTF-8")
        if head == _PARQUET:
            yield from _parquet_rows(path, columns)
        else:
            handle.seek(0)
            yield from _json_rows(handle)
