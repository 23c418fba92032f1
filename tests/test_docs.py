"""The pages are true: links resolve, specs load, commands, keys and folders exist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from harness.cli import app
from harness.config.load import TOP_KEYS, load_sweep
from harness.config.study import load_study
from tests import api_page, modules_page

ROOT = Path(__file__).parents[1]
LISTED = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
PAGES = sorted({ROOT / name for name in LISTED.split()} or {*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")})
VERBS = set(get_command(app).commands)  # type: ignore[attr-defined]


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(text: str) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower().strip()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", text):
        if target.startswith(("http", "mailto", "data:")):
            continue
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), f"{named(page)}: {target}"
        if anchor and there.suffix == ".md":
            assert anchor in anchors(there.read_text(encoding="utf-8")), f"{named(page)}: {target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    sessions = set(re.findall(r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text("utf-8"), re.MULTILINE))
    code = "\n".join(re.findall(r"`([^`\n]+)`", text) + re.findall(r"```\w*\n(.*?)```", text, re.DOTALL))
    for verb in re.findall(r"(?:^|[\s/])harness ([a-z][a-z-]+)\b(?! has)", code, re.MULTILINE):
        assert verb in VERBS or verb in ("import",), f"{named(page)}: harness {verb}"
    for session in re.findall(r"nox -s (\w+)", code):
        assert session in sessions, f"{named(page)}: nox -s {session}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_whole_specs_load(page: Path, tmp_path: Path) -> None:
    for block in re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        held = yaml.safe_load(block)
        if not isinstance(held, dict) or "name" not in held or "world" not in held:
            continue  # a fragment, or on data that is not here
        path = tmp_path / "spec.yaml"
        path.write_text(block, encoding="utf-8")
        assert (load_study(path) if "trials" in held else load_sweep(path)).name == held["name"]


def test_every_top_level_key_is_explained() -> None:
    text = (ROOT / "docs" / "specs.md").read_text(encoding="utf-8")
    assert [key for key in TOP_KEYS if not re.search(rf"\b{key}\b", text)] == []


def test_contributing_names_every_folder() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## How the code is laid out")[2]
    folders = {path.parent.name for path in (ROOT / "harness").glob("*/__init__.py")}
    assert set(re.findall(r"^\| `(\w+)/`", text, re.MULTILINE)) == folders


def test_the_page_of_modules_is_current_and_each_line_is_a_sentence() -> None:
    assert modules_page.page() == modules_page.PAGE.read_text(encoding="utf-8"), "run `python -m tests.modules_page`"
    said = {path: modules_page.said(path) for path in modules_page.PACKAGE.rglob("*.py")}
    assert [str(path) for path, line in said.items() if not line.endswith((".", "?"))] == []
    files = re.findall(r"`(\w+/[\w/]+\.py)`", modules_page.HEAD)
    assert len(files) > 25 and [name for name in files if not (modules_page.PACKAGE / name).exists()] == []


def test_the_api_page_is_current() -> None:
    assert api_page.page() == api_page.PAGE.read_text(encoding="utf-8"), "run `python -m tests.api_page`"
