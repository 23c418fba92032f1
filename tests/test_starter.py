"""`harness init`: what it writes is a spec that plans as it stands, and it never overwrites."""

import json

import pytest

from harness.cli import run
from harness.commands.init import starter
from harness.config.load import load_sweep

ROWS = [{"prompt": f"Question {i}?", "chosen": "A good answer.", "rejected": "A bad one."} for i in range(40)]


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "elsewhere" / "prefs: mine.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_the_embedded_world(tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    assert run(["init", str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [f"harness plan {path}", f"harness sweep {path}"]
    sweep = load_sweep(path)
    assert sweep.name == "mine" and len(sweep.runs) == 72
    assert run(["plan", str(path), "--out", str(tmp_path)]) == 0


def test_own_pairs_are_found_from_the_specs_folder(tmp_path, pairs):
    path = tmp_path / "specs" / "mine.yaml"
    assert run(["init", str(path), "--data", str(pairs)]) == 0
    sweep = load_sweep(path)
    assert {run.data.path for run in sweep.runs} == {str(pairs)} or sweep.runs[0].data.path.endswith(pairs.name)
    assert run(["plan", str(path), "--out", str(tmp_path)]) == 0


def test_a_folder_of_pairs_will_do(tmp_path, pairs):
    path = tmp_path / "mine.yaml"
    assert run(["init", str(path), "--data", str(pairs.parent)]) == 0
    assert {run.data.path for run in load_sweep(path).runs} == {str(pairs.parent)}


def test_nothing_is_overwritten(tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text("precious")
    assert run(["init", str(path)]) == 2
    assert "exists already" in capsys.readouterr().err and path.read_text() == "precious"


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["mine.txt"], "ends in .yaml"),
        (["-mine.yaml"], "No such option"),
        (["sp ace.yaml"], "cannot name a sweep"),
        (["cache.yaml"], "cannot name a sweep"),
        (["mine.yaml", "--data", "absent.jsonl"], "no such file"),
        (["mine.yaml", "--model", "folder"], "needs --data"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(tmp_path, monkeypatch, capsys, arguments, fragment):
    monkeypatch.chdir(tmp_path)
    assert run(["init", *arguments]) == 2
    assert fragment in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_every_line_is_commented_or_needed():
    text = starter("mine")
    assert text.count("#") >= 10 and max(map(len, text.splitlines())) <= 120 and "@" not in text


def test_what_stands_in_the_data_is_written_down(tmp_path):
    for split in ("train", "test"):
        rows = [
            {
                "prompt": f"\n\nHuman: {split} {i}?\n\nAssistant: ",
                "answers": [{"answer": f"a{r}", "rank": r} for r in (1, 2)],
            }
            for i in range(20)
        ]
        path = tmp_path / "set" / "default" / split / "0000.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(rows))
    spec = tmp_path / "mine.yaml"
    assert run(["init", str(spec), "--data", str(tmp_path / "set")]) == 0
    data = load_sweep(spec).runs[0].data
    assert (data.format, data.pairs, data.split, data.heldout_split) == ("nectar", "best_worst", "train", "test")
    assert "read as nectar" in spec.read_text() and "(`slices: [...]`)" in spec.read_text()
    assert run(["plan", str(spec), "--out", str(tmp_path)]) == 0


def test_data_that_is_not_certain_leaves_the_line_to_complete(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"context": "Where?", "chosen": "Here.", "rejected": "No."}) + "\n")
    spec = tmp_path / "mine.yaml"
    assert run(["init", str(spec), "--data", str(path)]) == 0
    assert "not certain where the prompt stands (context?)" in spec.read_text()
    assert load_sweep(spec).runs[0].data.format == ""
