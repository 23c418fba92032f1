"""Every example of docs/diagnose.md runs as it stands, in a folder that has what it names."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from harness.cli import run as command
from harness.data.rows import response_key, token_key
from tests.diagnose.test_diagnose_models import adapter, write_pairs
from tests.models.families import write

PAGE = (Path(__file__).parents[2] / "docs" / "diagnose.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("base", "out/checkpoint-100", "out/checkpoint-500", "other")):
        write("llama", tmp_path / name, seed)
    adapter(tmp_path / "base", tmp_path / "adapter")
    write_pairs(tmp_path / "prefs.jsonl", "category")
    write_pairs(tmp_path / "train.jsonl", "category", seed=1)
    return tmp_path


def test_every_example_runs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for code in blocks("python"):
        scope: dict[str, object] = {}
        exec(code, scope)
        if "token_key" in scope:
            assert scope["response_key"]([1, 2], [3]) == response_key([1, 2], [3])  # type: ignore[operator]
            assert scope["token_key"]([1], [2], [3, 4]) == token_key([1], [2], [3, 4])  # type: ignore[operator]
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    assert len(lines) == 7
    for line in lines:
        name, *words = shlex.split(line)
        assert name == "harness"
        assert command(words) == 0, line
    said = capsys.readouterr().out
    assert "satisfied too early" in said
    for folder in ("diagnosis", "trajectory", "compared", "memory", "simpo", "scored"):
        assert (here / folder / "index.html").is_file(), folder


def test_the_worked_example_is_the_page_in_the_gallery() -> None:
    page = Path(__file__).parents[2] / "reports" / "diagnosis" / "report.md"
    quoted = " ".join(line.removeprefix("> ") for line in PAGE.splitlines() if line.startswith("> "))
    assert quoted in page.read_text(encoding="utf-8").replace("\\", "")
