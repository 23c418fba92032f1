"""Files of preference rows as bytes and as raw rows: JSONL, gzip of it, or Parquet, told apart by their first bytes."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from harness.types import InputError

MAX_ROW_BYTES = 1_000_000
_GZIP, _PARQUET, _BOM = b"\x1f\x8b", b"PAR1", b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class RowError(Exception):
    """One row cannot be used. `kind` groups faults in notes, `field` may be empty, `why` is for the user."""

    def __init__(self, kind: str, field: str, why: str) -> None:
        self.kind, self.field, self.why = kind, field, why
        super().__init__(f"{field}: {why}" if field else why)


@dataclass(frozen=True, slots=True)
class RawRow:
    """Row `number` of a file (from 1; the line in JSONL) with its fields, or what is wrong with it."""

    number: int
    value: Mapping[str, Any] | RowError


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

    Raises InputError for a file that is absent, unreadable or damaged.
    """
    digest = hashlib.sha256()
    with _open(Path(path)) as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _json_row(line: bytes) -> Mapping[str, Any]:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise RowError("not_utf8", "", f"not UTF-8 at byte {error.start} of the line") from error
    except (ValueError, RecursionError) as error:
        raise RowError("bad_json", "", f"not JSON ({error})") from error
    if not isinstance(row, dict):
        raise RowError("bad_json", "", f"expected one JSON object a line, got {type(row).__name__}")
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


def read_rows(path: str | Path, columns: tuple[str, ...]) -> Iterator[RawRow]:
    """The raw rows of `path`, in order. Of a Parquet file only `columns` are read, the others come as None.

    Raises InputError for a file that is absent, unreadable, damaged as a whole, or UTF-16.
    """
    path = Path(path)
    with _open(path) as handle:
        head = handle.read(4)
        if head.startswith(_UTF16):
            raise InputError(f"data.path: {path} is UTF-16; save it as UTF-8")
        if head == _PARQUET:
            yield from _parquet_rows(path, columns)
        else:
            handle.seek(0)
            yield from _json_rows(handle)
