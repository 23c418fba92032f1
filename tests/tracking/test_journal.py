"""The journal: what is read is what was written, a torn end is cut, damage in the middle is named."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from harness.storage.journal import Journal, JournalDamaged, encode, read_journal

RECORDS = [
    {"kind": "start", "run_key": "ab" * 32, "attempt": 1},
    {"kind": "metrics", "step": 0, "loss": 0.6931471805599453, "rewards/margins": -9.3e-09},
    {"kind": "note", "text": 'quotes " and } braces, a new\nline, \u202e and \u00e9'},
    {"kind": "metrics", "step": 12, "loss": 1e-300, "geometry/ranking_accuracy": 0.984375},
    {"kind": "end", "status": "done"},
]


def written(path: Path) -> bytes:
    journal = Journal(path)
    for record in RECORDS:
        journal.append(record)
    journal.sync()
    journal.close()
    return path.read_bytes()


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    data = written(tmp_path / "j")
    assert read_journal(tmp_path / "j") == RECORDS
    assert data == b"".join(map(encode, RECORDS))
    assert data.count(b"\n") == len(RECORDS)  # one line a record, whatever the text holds
    assert (tmp_path / "j").stat().st_mode & 0o077 == 0


def test_opening_again_appends(tmp_path: Path) -> None:
    before = written(tmp_path / "j")
    journal = Journal(tmp_path / "j")
    journal.append({"kind": "note", "text": "second opening"})
    journal.close()
    assert (tmp_path / "j").read_bytes().startswith(before)
    assert read_journal(tmp_path / "j") == [*RECORDS, {"kind": "note", "text": "second opening"}]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_is_refused_and_nothing_is_written(tmp_path: Path, value: float) -> None:
    before = written(tmp_path / "j")
    journal = Journal(tmp_path / "j")
    with pytest.raises(ValueError, match="not JSON compliant"):
        journal.append({"kind": "metrics", "step": 1, "loss": value})
    journal.close()
    assert (tmp_path / "j").read_bytes() == before


def test_a_tail_torn_at_any_byte_is_left_out_then_cut_with_a_note(tmp_path: Path) -> None:
    data = written(tmp_path / "whole")
    last = len(encode(RECORDS[-1]))
    path = tmp_path / "torn"
    for kept in range(1, last - 1):  # at last - 1 only the line's end is missing: the record itself is whole
        path.write_bytes(data[: len(data) - last + kept])
        assert read_journal(path) == RECORDS[:-1]
        journal = Journal(path)
        journal.append(RECORDS[-1])
        journal.close()
        note = {"kind": "note", "text": f"a torn record of {kept} bytes was cut off"}
        assert read_journal(path) == [*RECORDS[:-1], note, RECORDS[-1]]


@pytest.mark.parametrize("line", range(1, len(RECORDS) + 1))
def test_a_changed_digit_is_named_with_its_line(tmp_path: Path, line: int) -> None:
    lines = written(tmp_path / "j").splitlines(keepends=True)
    at = lines[line - 1].rindex(b'"') - 1
    lines[line - 1] = lines[line - 1][:at] + b"#" + lines[line - 1][at + 1 :]
    (tmp_path / "j").write_bytes(b"".join(lines))
    with pytest.raises(JournalDamaged) as caught:
        read_journal(tmp_path / "j")
    assert (caught.value.path, caught.value.line) == (tmp_path / "j", line)


def test_a_lost_line_end_in_the_middle_is_damage(tmp_path: Path) -> None:
    lines = written(tmp_path / "j").splitlines(keepends=True)
    (tmp_path / "j").write_bytes(lines[0] + lines[1][:-7] + b"".join(lines[2:]))
    with pytest.raises(JournalDamaged, match=":2: "):
        read_journal(tmp_path / "j")


def test_no_flipped_bit_changes_a_record(tmp_path: Path) -> None:
    """Every bit before the last line's end: read as damaged, or (in the frame around a record) read unchanged."""
    data = written(tmp_path / "j")
    path = tmp_path / "flipped"
    bits = random.Random(0).sample(range(8 * (len(data) - 1)), 600)
    damaged = 0
    for bit in bits:
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        try:
            assert read_journal(path) == RECORDS, bit
        except JournalDamaged:
            damaged += 1
    assert damaged > 400
