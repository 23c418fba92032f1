"""`harness formats`, and what `harness plan` says of the form of a file and of its first pair."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.cli import run
from harness.data.formats.registry import COLUMNS, FORMATS

SPEC: dict[str, Any] = {"name": "t", "objectives": [{"name": "dpo", "beta": 0.1}], "model": {"vocab_size": 300}}
ROWS = [
    {"prompt": f"Question {i}?", "response_1": f"yes {i}", "response_2": "no", "preference_strength": -2, "part": i % 2}
    for i in range(20)
]


def spec(folder: Path, rows: Any, **data: Any) -> str:
    (folder / "p.json").write_text(json.dumps(rows))
    (folder / "s.yaml").write_text(yaml.safe_dump({**SPEC, "data": {"path": "p.json", **data}}))
    return str(folder / "s.yaml")


def test_all_forms_are_listed_with_columns_and_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["formats"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(FORMATS)
    assert run(["formats", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(FORMATS)
    for row in rows:
        assert row["example"] and row["doc"] and {n for one in row["needs"] for n in one.split("|")} <= COLUMNS.keys()


def test_listing_imports_no_torch() -> None:
    code = (
        "import sys; from harness.cli import run; run(['formats']); print({'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_the_plan_names_the_form_and_shows_the_first_pair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = spec(tmp_path, ROWS, slices=["part"])
    assert run(["plan", path, "--out", str(tmp_path)]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert f"note      read as helpsteer2: {FORMATS['helpsteer2'].doc}" in lines
    assert "note      20 rows read, 0 dropped, 20 usable pairs" in lines
    at = next(i for i, line in enumerate(lines) if line.startswith("pair      row "))
    number = int(lines[at].split()[2].rstrip(",")) - 1
    assert lines[at].endswith(", as it is trained on") and lines[at + 1 : at + 4] == [
        f"prompt   '<bos>\\n\\nHuman: Question {number}?\\n\\nAssistant:'",
        f"chosen   ' yes {number}<eos>'",
        "rejected ' no<eos>'",
    ]
    assert run(["plan", path, "--json", "--out", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["first_pair"]["rejected"] == " no<eos>"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"format": "helpsteer"}, "column"),
        (
            {"format": "helpster2"},
            "data.format: 'helpster2'; expected a form that `harness formats` lists; did you mean",
        ),
        ({"pairs": "best"}, "data.pairs: 'best'; expected one of best_worst, all, adjacent"),
        ({"slices": ["part", "part"]}, "data.slices: 'part'; expected column names without a comma, each once"),
        ({"slices": ["topic"]}, "data.slices: "),
        ({"pairs_per_prompt": -1}, "data.pairs_per_prompt"),
    ],
)
def test_mistakes_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: dict[str, Any], message: str
) -> None:
    assert run(["plan", spec(tmp_path, ROWS, **data), "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said


def test_the_new_keys_enter_the_run_key_only_where_they_are_set(tmp_path: Path) -> None:
    from harness.config.load import load_sweep
    from harness.identity import run_key

    def key(**data: Any) -> str:
        return run_key(load_sweep(spec(tmp_path, ROWS, **data)).runs[0])

    assert key() == key(pairs="best_worst", pairs_per_prompt=0, slices=[])
    assert len({key(), key(pairs="all"), key(pairs_per_prompt=1), key(format="helpsteer2")}) == 4


def test_the_page_of_formats_is_current() -> None:
    from tests.formats_page import PAGE, page

    assert page() == PAGE.read_text(encoding="utf-8"), "run `python -m tests.formats_page`"
