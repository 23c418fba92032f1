"""The bytes of one file parsed to raw rows: JSONL, a JSON array, CSV and TSV, Parquet; a fault stays with its row."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from harness.types import InputError

MAX_ROW_BYTES = 1_000_000
BOM = b"\xef\xbb\xbf"
_BLOCK = 1 << 20  # characters of a JSON array read at a time
_MAX_BUFFER = 1 << 26  # characters that one element of it may take before the file counts as damaged
Bytes = BinaryIO | gzip.GzipFile


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


def json_rows(handle: Bytes) -> Iterator[RawRow]:
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
            line = line.removeprefix(BOM)
        if line.strip():
            try:
                yield RawRow(number, _json_row(line))
            except RowError as fault:
                yield RawRow(number, fault)


_SPACE = re.compile(r"[ \t\r\n]*")


class _Elements:
    """The text of a JSON array, a block in memory at a time, read from left to right."""

    def __init__(self, handle: Bytes) -> None:
        self.handle = handle
        self.decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self.scan = json.JSONDecoder().raw_decode
        self.text, self.at, self.ended = "", 0, False
        self._more()
        self.text = self.text.removeprefix("\ufeff")

    def _more(self) -> None:
        block = self.handle.read(max(_BLOCK, len(self.text) - self.at))
        self.ended = not block
        self.text, self.at = self.text[self.at :] + self.decode(block, final=self.ended), 0

    def skip(self, marks: str) -> str:
        """Go past white space and one of `marks`; that mark, or what stands there instead, "" at the end."""
        while True:
            self.at = _SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]  # it matches nothing, too
            if self.at < len(self.text) or self.ended:
                break
            self._more()
        mark = self.text[self.at : self.at + 1]
        self.at += bool(mark) and mark in marks
        return mark

    def value(self) -> tuple[Any, int]:
        """The next value and how many characters it takes. Raises ValueError or RecursionError where there is none."""
        while True:
            try:
                value, end = self.scan(self.text, self.at)
            except ValueError:
                if self.ended or len(self.text) - self.at > _MAX_BUFFER:
                    raise
            else:
                follows = self.text[end : end + 1]
                whole = bool(follows) and (follows in ",] \t\r\n" or not isinstance(value, int | float))
                if whole or self.ended:  # a number may go on in the next block
                    size, self.at = end - self.at, end
                    return value, size
            self._more()


def array_rows(handle: Bytes, path: Path) -> Iterator[RawRow]:
    """A row an element of a JSON array. `number` counts the elements.

    Own code, not a streaming parser: the standard library's decoder reads an element as it reads a line of JSONL, lone
    surrogates included. A byte that is not UTF-8 becomes a lone surrogate, a fault of its
    row. Raises InputError where the array is cut or broken, as no later row can then be trusted.
    """
    elements, number = _Elements(handle), 0
    elements.skip("[")
    closed = elements.skip("]") == "]"
    while not closed:
        number += 1
        try:
            value, size = elements.value()
            mark = elements.skip(",]")
            if mark not in (",", "]"):
                raise ValueError("expected , or ] behind it")
        except (ValueError, RecursionError) as error:
            raise InputError(f"data.path: {path} is a cut or damaged JSON array, element {number}: {error}") from error
        if size > MAX_ROW_BYTES:
            yield RawRow(number, RowError("row_too_long", "", f"longer than {MAX_ROW_BYTES:,} bytes"))
        elif isinstance(value, dict):
            yield RawRow(number, value)
        else:
            yield RawRow(number, RowError("bad_json", "", f"expected a JSON object, got {type(value).__name__}"))
        closed = mark == "]"
        elements.skip("")
    if elements.skip(""):
        raise InputError(f"data.path: {path} goes on behind its JSON array; expected one array, or one object a line")


def table_rows(handle: Bytes, path: Path, columns: Mapping[str, str], delimiter: str) -> Iterator[RawRow]:
    """The rows of a CSV or TSV file with a header; `number` counts rows below the header. An empty cell is null.

    Cells are text. Where a column of this name holds numbers, flags or messages (`columns`) the cell is read as JSON.
    """
    text = io.TextIOWrapper(handle, "utf-8-sig", errors="surrogateescape", newline="")
    csv.field_size_limit(MAX_ROW_BYTES)
    try:
        table = csv.reader(text, delimiter=delimiter)
        names = next(table, [])
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise InputError(f"data.path: {path} names the column '{twice}' twice; name each once")
        kinds = [set(columns.get(name, "text").split("|")) for name in names]
        for number, cells in enumerate((cells for cells in table if cells), 1):
            if len(cells) != len(names):
                why = f"{len(cells)} cells, the header has {len(names)}"
                yield RawRow(number, RowError("bad_table", "", why))
                continue
            found = zip(names, cells, kinds, strict=True)
            yield RawRow(number, {name: _cell(cell, wanted) for name, cell, wanted in found})
    except csv.Error as error:
        raise InputError(f"data.path: {path} cannot be read as a table ({error}); quote its cells") from error
    finally:
        text.detach()


def _cell(cell: str, kinds: set[str]) -> Any:
    """A cell as the value that its column holds; text where it cannot be read so."""
    if not cell:
        return None
    scalar = "number" in kinds or "flag" in kinds
    if not scalar and (cell[0] not in "[{" or kinds == {"text"}):
        return cell
    try:
        value = json.loads(cell.lower() if cell in ("True", "False", "TRUE", "FALSE") else cell)
    except ValueError:
        return cell
    # An answer may be a text in brackets: only what holds objects is surely more than text.
    holds_objects = isinstance(value, dict) or (isinstance(value, list) and value and isinstance(value[0], dict))
    return value if scalar or holds_objects or "text" not in kinds else cell


def parquet_rows(path: Path, columns: Mapping[str, str]) -> Iterator[RawRow]:
    """The rows of a Parquet file; only `columns` are read, the others come as None."""
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
