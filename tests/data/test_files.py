"""Files and folders as rows: JSON arrays, tables, zstd, splits that folders name, shards; damage is never read past."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data.files import read_rows, split_files
from harness.data.formats.registry import COLUMNS
from harness.data.pairs import content_sha256, read_pairs
from harness.data.raw_rows import RawRow, RowError, array_rows
from harness.types import DataSpec, InputError

ROWS = [{"prompt": f"question {i}", "chosen": f" yes {i}", "rejected": f" nö {i}"} for i in range(40)]


def zstd(content: bytes) -> bytes:
    import pyarrow as pa

    return bytes(pa.Codec("zstd").compress(content, asbytes=True))


def values(path: Path) -> list[Any]:
    return [str(raw.value) if isinstance(raw.value, RowError) else raw.value for raw in read_rows(path, COLUMNS)]


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        read_pairs(DataSpec(str(path), **options))
    return " | ".join(caught.value.problems)


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def lines(rows: Sequence[Any] = ROWS) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(path: Path, rows: Sequence[Any]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


# --- JSON arrays ---

ARRAYS = {
    "compact": json.dumps(ROWS),
    "indented": json.dumps(ROWS, indent=2, ensure_ascii=False),
    "an object a line": "[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n",
    "byte order mark": "\ufeff \n" + json.dumps(ROWS, ensure_ascii=False),
}


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
def test_an_array_is_read_as_lines_are(tmp_path: Path, name: str, packed: str) -> None:
    content = ARRAYS[name].encode()
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstd}[packed]
    path = put(tmp_path / f"prefs.json{packed}", pack(content))
    assert values(path) == ROWS and values(put(tmp_path / "p.jsonl", lines())) == ROWS
    assert [raw.place for raw in read_rows(path, COLUMNS)][-1] == f"{path}:40"
    assert content_sha256(path) == content_sha256(put(tmp_path / "plain", content))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, max_examples=150)
@given(st.lists(json_values, max_size=8), st.integers(1, 7), st.sampled_from([None, 1]))
def test_an_array_reads_alike_however_it_comes_in_blocks(elements: list[Any], block: int, indent: int | None) -> None:
    class Slow:
        def __init__(self, content: bytes) -> None:
            self.content, self.at = content, 0

        def read(self, _: int) -> bytes:
            self.at += block
            return self.content[self.at - block : self.at]

    content = json.dumps(elements, indent=indent, ensure_ascii=False).encode("utf-8", "surrogatepass")
    found = list(array_rows(Slow(content), Path("x.json")))  # type: ignore[arg-type]
    assert [raw.number for raw in found] == list(range(1, len(elements) + 1))
    for raw, element in zip(found, elements, strict=True):
        assert raw.value == element if isinstance(element, dict) else isinstance(raw.value, RowError)


BROKEN = {
    "cut in an element": (json.dumps(ROWS)[:-30], "damaged JSON array, element 40"),
    "cut between elements": (json.dumps(ROWS)[:-1], "damaged JSON array, element 40: expected , or ] behind it"),
    "no comma": ('[{"prompt": "a"} {"prompt": "b"}]', "damaged JSON array, element 1: expected , or ]"),
    "a comma too many": ('[{"prompt": "a"},]', "damaged JSON array, element 2"),
    "more behind it": ('[\n{"prompt": "a"}]\n\n x', "goes on behind its JSON array"),
    "too deep": ("[" * 100_000, "damaged JSON array, element 1"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_array_is_refused_not_read_half(tmp_path: Path, name: str) -> None:
    content, message = BROKEN[name]
    assert message in refused(put(tmp_path / "p.json", content.encode()))


def test_faults_of_elements_are_those_of_lines(tmp_path: Path) -> None:
    bad = b'{"prompt": "a", "chosen": "b\xff", "rejected": "c"}'
    array = (
        b"["
        + b", ".join([json.dumps(ROWS[0]).encode(), b"[1]", bad, json.dumps({"x": "y" * 1_000_001}).encode()])
        + b"]"
    )
    path = put(tmp_path / "p.json", array)
    assert values(path)[1] == "expected a JSON object, got list" and values(path)[3] == "longer than 1,000,000 bytes"
    read = read_pairs(DataSpec(str(path), limit=3))
    assert {note.kind: note.rows for note in read.notes} == {"bad_json": (2,), "bad_text": (3,)}


def test_lines_whose_first_is_a_list_are_no_array(tmp_path: Path) -> None:
    path = put(tmp_path / "p.jsonl", b"[1]\n" + lines())
    assert values(path) == ["expected one JSON object per line, got list", *ROWS]


def test_an_array_is_not_held_in_memory(tmp_path: Path) -> None:
    import tracemalloc

    filler = "x" * 1000
    path = tmp_path / "p.json"
    with path.open("w") as file:
        file.write("[" + ",".join(json.dumps({"prompt": str(i), "text": filler}) for i in range(20_000)) + "]")
    tracemalloc.start()
    count = sum(isinstance(raw, RawRow) for raw in read_rows(path, COLUMNS))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 20_000 and peak < 10_000_000 < path.stat().st_size


# --- zstd and tables ---


def test_zstd_in_several_frames_and_damaged(tmp_path: Path) -> None:
    half = len(lines()) // 2
    path = put(tmp_path / "p.jsonl.zst", zstd(lines()[:half]) + zstd(lines()[half:]))
    assert values(path) == ROWS
    whole = zstd(lines())
    for name, content in (
        ("cut", whole[: len(whole) // 2]),
        ("flipped", whole[:20] + bytes([whole[20] ^ 255]) + whole[21:]),
    ):
        with pytest.raises(InputError, match=r"^data\.path: .* is a damaged zstd file"):
            values(put(tmp_path / name, content))


def test_tables_name_the_row_that_does_not_fit_the_header(tmp_path: Path) -> None:
    table = b"\xef\xbb\xbfprompt,chosen,rejected\r\na,b,c\r\n\r\na,b\r\nd,e,f\r\n"
    read = read_pairs(DataSpec(str(put(tmp_path / "p.csv", table))))
    assert [pair.prompt for pair in read.pairs] == ["a", "d"]
    assert {note.kind: note.rows for note in read.notes} == {"bad_table": (2,)}
    twice = put(tmp_path / "q.csv", b"prompt,chosen,chosen\na,b,c\n")
    assert "names the column 'chosen' twice" in refused(twice)
    tabs = put(tmp_path / "q.tsv.gz", gzip.compress(b"prompt\tchosen\trejected\na, b\tc\td\n"))
    assert read_pairs(DataSpec(str(tabs))).pairs[0].prompt == "a, b"


# --- folders ---

LAYOUTS: dict[str, tuple[Sequence[str], dict[str, Sequence[str]]]] = {
    "the hub's own Parquet": (
        ["default/train/0000.parquet", "default/train/0001.parquet", "default/test/0000.parquet"],
        {"train": ["0000", "0001"], "test": ["0000"]},
    ),
    "shards with a hash": (
        ["data/train-00000-of-00002-1f0e5c9a77b3d2e4.parquet", "data/train-00001-of-00002-9ab34c1d0e7f5562.parquet"],
        {"": ["train-00000-of-00002-1f0e5c9a77b3d2e4", "train-00001-of-00002-9ab34c1d0e7f5562"]},
    ),
    "folders named like splits": (
        ["train_prefs/data.jsonl", "test_prefs/data.jsonl"], {"train_prefs": ["data"], "test_prefs": ["data"]}
    ),
    "subsets with splits": (
        ["helpful/train.jsonl.gz", "helpful/test.jsonl.gz", "harmless/train.jsonl.gz", "harmless/test.jsonl.gz"],
        {"train": ["train", "train"], "test": ["test", "test"]},
    ),
    "numbers alone": (["0000.parquet", "0001.parquet"], {"": ["0000", "0001"]}),
    "parts of a cluster": (
        ["part-00000-5f1e0a1c-aaaa-bbbb-cccc-1234567890ab-c000.snappy.parquet", "part-00001.parquet"],
        {"": ["part-00000-5f1e0a1c-aaaa-bbbb-cccc-1234567890ab-c000.snappy", "part-00001"]},
    ),
    "what is said about the set": (["train.jsonl", "dataset_infos.json", "dataset_info.json"], {"": ["train"]}),
    "tables beside the set": (["train.jsonl", "results.csv"], {"": ["train"]}),
    "tables alone": (["train.csv", "test.tsv"], {"train": ["train"], "test": ["test"]}),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_folders_name_their_splits(tmp_path: Path, name: str) -> None:
    files, expected = LAYOUTS[name]
    for file in files:
        put(tmp_path / file, b"x")
    for split, stems in expected.items():
        found = split_files(tmp_path, split)
        assert [file.name.split(".gz")[0].rsplit(".", 1)[0] for file in found] == list(stems)
    if "" not in expected:
        with pytest.raises(InputError, match=f"holds the splits {', '.join(sorted(expected))}; name one as data.split"):
            split_files(tmp_path)


def test_splits_of_folders_are_not_joined(tmp_path: Path) -> None:
    parquet(tmp_path / "default/train/0000.parquet", ROWS[:30])
    parquet(tmp_path / "default/test/0000.parquet", ROWS[30:])
    sides = [read_pairs(DataSpec(str(tmp_path), split=split)) for split in ("train", "test")]
    assert [side.rows for side in sides] == [30, 10]


def test_one_file_packed_in_two_ways_is_not_read_twice(tmp_path: Path) -> None:
    put(tmp_path / "train.jsonl", lines())
    put(tmp_path / "train.jsonl.zst", zstd(lines()))
    assert "holds train.jsonl packed in two ways; keep one of them" in refused(tmp_path)
