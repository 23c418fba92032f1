"""The README is short and true: links, spec and commands exist; docs/reference.md matches the code."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from harness.commands.listing import listing
from harness.config.load import STUDY_KEYS, TOP_KEYS, load_sweep
from tests.readme import README, REFERENCE, TOP, reference

ROOT = README.parent
TEXT = README.read_text(encoding="utf-8")


def test_the_readme_is_short_and_starts_with_the_question():
    lines = TEXT.splitlines()
    assert len(lines) <= 200
    screen = "\n".join(lines[:40])
    assert "Is the model getting better?" in screen and screen.count("![") == 1
    assert "pip install nox && nox -s sweep" in screen and "nox -s tests" in screen


def test_the_reference_is_current():
    assert reference() == REFERENCE.read_text(encoding="utf-8"), "run `python -m tests.readme`"


def test_the_registries_stand_in_the_reference_alone():
    for row in ("| `dpo` | pair, sum |", "| `uniform_flip` | fixed |"):
        assert reference().count(row) == 1 and row not in TEXT


def test_the_readme_counts_the_registries():
    listed = {what: len(listing(what)) for what in ("objectives", "corruptions")}
    assert listed == {what: int(n) for n, what in re.findall(r"[Aa]ll (\d+)\s+\[(\w+)\]", TEXT)}


def test_every_key_has_a_meaning():
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in reference().splitlines()]
    tables = [row for row in rows if len(row) in (4, 5) and set(row[0]) != {"-"}]
    assert len(tables) > 300
    assert [row for row in tables if not row[-1] or not row[-2]] == []


def test_the_top_level_has_every_key():
    assert set(TOP) == {*TOP_KEYS, *STUDY_KEYS}


def test_links_and_pictures_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_the_spec_in_the_readme_loads(tmp_path):
    text = TEXT.split("```yaml\n")[1].split("```")[0]
    assert yaml.safe_load(text)["name"] == "my-noise"
    path: Path = tmp_path / "spec.yaml"
    path.write_text(text, encoding="utf-8")
    assert len(load_sweep(path).runs) == 2 * 4 * 5 * 10


def test_named_sessions_exist():
    sessions = set(re.findall(r"^@nox.session.*\ndef (\w+)", (ROOT / "noxfile.py").read_text("utf-8"), re.MULTILINE))
    assert set(re.findall(r"nox -s (\w+)", TEXT)) <= sessions
