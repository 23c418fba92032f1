"""`harness corrupt`: every form reads as the same pairs once converted; the ledger explains every row that differs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from harness.cli import run
from harness.corruptions.ledger import read_ledger
from harness.data.formats.registry import FORMATS
from harness.data.pairs import read_pairs
from harness.types import DataSpec

SPEC: dict[str, Any] = {"name": "t", "objectives": [{"name": "dpo"}], "model": {"vocab_size": 300}}
CALL = {"type": "function", "function": {"name": "look", "arguments": {"where": "drawer"}}}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return rows
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def corrupt(data: Path, out: Path, kind: str = "none", *more: str) -> list[dict[str, Any]]:
    assert run(["corrupt", "--data", str(data), "--kind", kind, "--out", str(out), *more]) == 0
    return read(out)


def pairs_of(path: Path, **options: Any) -> list[tuple[Any, ...]]:
    scores = ("score_chosen", "score_rejected")
    read_as = read_pairs(DataSpec(str(path), **options)).pairs
    return [(p.prompt, p.chosen, p.rejected, p.gold_margin, *(p.meta.get(n) for n in scores)) for p in read_as]


def texts(count: int = 24) -> list[dict[str, Any]]:
    return [
        {"prompt": f"Question {i}?", "chosen": f" yes {i} and\nmore", "rejected": f" no {i}", "score_chosen": i / 2,
         "score_rejected": 0.25, "topic": "ab"[i % 2]}
        for i in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("form", FORMATS)
def test_every_form_reads_as_the_same_pairs_when_converted(tmp_path: Path, form: str, ending: str) -> None:
    data = write(tmp_path / "own.jsonl", list(FORMATS[form].example))
    rows = corrupt(data, tmp_path / f"new.{ending}", "none", "--set", f"data.format={form}")
    assert list(rows[0])[:3] == ["prompt", "chosen", "rejected"]
    assert pairs_of(tmp_path / f"new.{ending}") == pairs_of(data, format=form) != []
    assert len(read_ledger(tmp_path / "new.ledger.parquet")) == 0


def test_conversations_stay_conversations(tmp_path: Path) -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Where is\n\nAssistant: the key?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": 'a "key"\nhere', "name": "look"},
    ]
    rows = [
        {
            "prompt": turns if i % 2 else turns[:2],
            "chosen": [{"role": "assistant", "content": f"There {i}."}],
            "rejected": [{"role": "assistant", "content": f" Nowhere {i}. "}],
        }
        for i in range(10)
    ]
    data = write(tmp_path / "own.jsonl", rows)
    assert corrupt(data, tmp_path / "new.jsonl") == rows
    flipped = corrupt(data, tmp_path / "noisy.jsonl", "uniform_flip", "--rate", "0.5", "--seed", "3")
    swapped = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]
    at = [int(row) - 1 for row in pq.read_table(tmp_path / "noisy.ledger.parquet")["row"].to_pylist()]
    assert flipped == [swapped[i] if i in at else row for i, row in enumerate(rows)] and len(at) == 5
    cut = corrupt(data, tmp_path / "cut.jsonl", "truncate", "--rate", "1", "--set", "side=rejected")
    assert [row["rejected"][0]["content"] for row in cut] == [" Nowhere"] * 10
    assert [row["prompt"] for row in cut] == [row["prompt"] for row in rows]


RATE = ("--rate", "0.25")
STEPS = "steps=[{kind: uniform_flip, rate: 0.5}, {kind: truncate, rate: 0.5}, {kind: contradictory_dup, rate: 0.2}]"


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("uniform_flip", ["--rate", "0.25"]),
        ("bt_flip", ["--set", "temperature=3", "--set", "gold_from=scores"]),
        ("identical", ["--rate", "0.25"]),
        ("off_policy", ["--rate", "0.25"]),
        ("contradictory_dup", ["--rate", "0.25"]),
        ("prompt_clustered", ["--rate", "0.25"]),
        ("length_biased", ["--set", "unit=words", "--set", "temperature=9"]),
        ("uniform_flip", ["--set", "severity=severe"]),
        ("sequence", ["--set", STEPS]),
    ],
)
def test_the_ledger_explains_every_row_that_differs(tmp_path: Path, kind: str, more: list[str]) -> None:
    own = texts()
    data = write(tmp_path / "own.jsonl", own)
    rows = corrupt(data, tmp_path / "noisy.jsonl", kind, *more)
    expected = [(row["prompt"], row["chosen"], row["rejected"]) for row in own]
    ledger = pq.read_table(tmp_path / "noisy.ledger.parquet").to_pylist()
    assert ledger and read_ledger(tmp_path / "noisy.ledger.parquet").attrs["manifest"]["kind"] == kind
    added: dict[int, tuple[str, str, str]] = {}
    for line in ledger:  # texts and order of `own` are kept by these kinds: added rows stand behind
        prompt, chosen, rejected = expected[line["row"] - 1]
        if line["action"] == "append":
            added[line["out_row"]] = (prompt, line["new_chosen"], line["new_rejected"])
            continue
        sides = (rejected, chosen) if line["action"] == "flip" else (line["new_chosen"], line["new_rejected"])
        expected[line["row"] - 1] = (prompt, *sides) if line["action"] != "relabel_same" else (prompt, chosen, rejected)
        assert line["out_row"] == line["row"]
    expected += [added[place] for place in range(25, 25 + len(added))]
    assert [(row["prompt"], row["chosen"], row["rejected"]) for row in rows] == expected
    assert expected != [(row["prompt"], row["chosen"], row["rejected"]) for row in own]
    scores = {row[side]: row[f"score_{side}"] for row in own for side in ("chosen", "rejected")}
    for row in rows:  # a score goes with its answer, or is not there
        for side in ("chosen", "rejected"):
            assert row.get(f"score_{side}") in (None, scores.get(row[side]))
    card = (tmp_path / "noisy.md").read_text(encoding="utf-8")
    assert f"| kind | {kind} |" in card and "| rows read, usable pairs | 24, 24 |" in card and "own.jsonl" in card


def test_columns_hold_facts_and_slices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{**row, "delta_ref": i - 12.5} for i, row in enumerate(texts())]
    data = write(tmp_path / "own.jsonl", rows)
    kept = corrupt(data, tmp_path / "kept.jsonl", "curate_drop", *RATE, "--set", "data.slices=[topic]")
    assert 0 < len(kept) < 24 and {row["topic"] for row in kept} == {"a", "b"} and "delta_ref" not in kept[0]
    ledger = pq.read_table(tmp_path / "kept.ledger.parquet").to_pylist()
    assert {line["action"] for line in ledger} == {"drop"} and {line["out_row"] for line in ledger} == {None}
    gone = {line["row"] - 1 for line in ledger}
    assert [row["prompt"] for row in kept] == [row["prompt"] for i, row in enumerate(rows) if i not in gone]
    del rows[6]["delta_ref"]
    rows[8]["delta_ref"] = "much"
    capsys.readouterr()
    again = ["corrupt", "--data", str(data), "--kind", "curate_drop", *RATE, "--out", str(tmp_path / "x.jsonl")]
    assert run([*again[:2], str(write(data, rows)), *again[3:]]) == 2
    assert "row 9: delta_ref: expected a number, got 'much'" in capsys.readouterr().err
    rows[8]["delta_ref"] = 1
    assert run([*again[:2], str(write(data, rows)), *again[3:]]) == 2
    assert "needs delta_ref; 1 of 24 pairs have none, the first in row 7." in capsys.readouterr().err
    assert not (tmp_path / "x.jsonl").exists()


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--kind", "ref_shift"], "needs delta_ref; .* lacks such a column, from row 1 on"),
        (["--kind", "bt_flip", "--set", "data.columns={score_chosen: topic}"], "no usable pair|needs gold_margin"),
        (["--kind", "uniform_flip"], "needs 'rate'"),
        (["--kind", "none", "--rate", "0.2"], "takes no rate"),
        (["--kind", "uniform_flop", "--rate", "0.2"], "did you mean 'uniform_flip'"),
        (["--kind", "uniform_flip", "--set", "rate=0.2"], "--set rate: give it as --rate"),
        (["--kind", "none", "--set", "data.heldout=0.1"], "--set data.heldout: does not change what is written"),
        (["--kind", "none", "--set", "data.path=x"], "--set data: give the file with --data"),
        (["--kind", "none", "--set", "data.format=payrs"], "did you mean 'pairs'"),
        (["--kind", "none", "--set", "colour=red"], "has no parameter 'colour'"),
        (["--kind", "none", "--out", "x.csv"], "expected a name that ends in .jsonl or .parquet"),
        (["--kind", "none", "--out", "own.jsonl", "--force"], "is the file that is read"),
        (["--kind", "none", "--out", "there.jsonl"], "there.md exists; choose another name, or add --force"),
    ],
)
def test_mistakes_cost_a_line_and_write_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], more: list[str], line: str
) -> None:
    import re

    monkeypatch.chdir(tmp_path)
    write(tmp_path / "own.jsonl", texts())
    (tmp_path / "there.md").write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert run(["corrupt", "--data", "own.jsonl", *(() if "--out" in more else ("--out", "new.jsonl")), *more]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert re.search(line, said), said
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_text_beside_conversations_and_calls_in_parquet_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = [{"role": "assistant", "content": "yes"}]
    rows: list[dict[str, Any]] = [{"prompt": "a", "completion": "no", "label": False}]
    rows += [{"prompt": "a", "completion": "yes", "label": True}]
    rows += [{"prompt": [{"role": "user", "content": "b"}], "completion": said, "label": True}]
    rows += [{**rows[-1], "completion": [{"role": "assistant", "content": "no"}], "label": False}]
    arguments = ["corrupt", "--data", str(write(tmp_path / "kto.jsonl", rows)), "--kind", "none"]
    assert run([*arguments, "--out", str(tmp_path / "x.jsonl")]) == 2
    assert "row 3 is a conversation, row 2 is text" in capsys.readouterr().err
    turns = [{"role": "user", "content": "b"}, {"role": "assistant", "content": "", "tool_calls": [CALL]}]
    turns += [{"role": "tool", "content": "here"}]
    rows = [{"prompt": turns, "chosen": said, "rejected": [{"role": "assistant", "content": "no"}]}]
    arguments = ["corrupt", "--data", str(write(tmp_path / "tool.jsonl", rows)), "--kind", "none"]
    assert run([*arguments, "--out", str(tmp_path / "x.parquet")]) == 2
    assert "tool calls, which Parquet does not keep; write .jsonl" in capsys.readouterr().err


def test_the_plan_shows_the_same_pair_and_force_replaces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"prompt": f"Question {i}?", "response_1": f"yes {i}", "response_2": "no", "preference_strength": -2}
        for i in range(20)
    ]
    data = write(tmp_path / "own.jsonl", rows)
    corrupt(data, tmp_path / "new.parquet", "uniform_flip", "--rate", "0.5")
    corrupt(data, tmp_path / "new.parquet", "none", "--force")
    shown = []
    for path in (data, tmp_path / "new.parquet"):
        (tmp_path / "s.yaml").write_text(yaml.safe_dump({**SPEC, "data": {"path": str(path)}}))
        capsys.readouterr()
        assert run(["plan", str(tmp_path / "s.yaml"), "--out", str(tmp_path)]) == 0
        lines = capsys.readouterr().out.splitlines()
        at = next(i for i, line in enumerate(lines) if line.startswith("pair "))
        shown.append(lines[at : at + 4])
    assert shown[0] == shown[1]


def test_it_imports_no_torch(tmp_path: Path) -> None:
    data = write(tmp_path / "own.jsonl", texts())
    code = "import sys; from harness.cli import run; run(sys.argv[1:]); print({'torch'} & set(sys.modules))"
    words = ["corrupt", "--data", data, "--kind", "uniform_flip", "--rate", "0.2", "--out", tmp_path / "new.parquet"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
