"""Report pages in headless Chromium: nothing injected runs, filter and script work, axe finds no violation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.audit.asked import Asked
from harness.audit.cards import cards as audit_cards
from harness.audit.page import build_page as audit_page
from harness.diagnose.page import build_page as diagnosis_page
from harness.report.compare.page import build_page as comparison_page
from harness.report.page import write_report
from harness.report.sections.row import write_page
from harness.report.study.page import write_study_report
from tests.audit.test_audit_cards import PAIRS, audited
from tests.browser.devtools import Page, open_page
from tests.diagnose.planted_logps import diagnosed, joined
from tests.diagnose.test_diagnose_cards import stuck
from tests.report.fixture import grid, write_sweep
from tests.report.test_compare import compared, flat, level, planted, runs_of
from tests.report.test_study_page import plant

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[2]
AXE = ROOT / ".nox" / "axe" / "axe_playwright_python" / "axe.min.js"  # `nox -s browser` puts it there
GALLERY = ("quick", "rlhf", "reversal", "study", "truthful", "audit", "diagnosis", "cleaning", "beta", "corruption")
HOSTILE = "<script>window.owned=1</script><img src=x onerror=window.owned=2><svg onload=window.owned=3>"
VIOLATIONS = """axe.run(document).then(found => JSON.stringify(found.violations.map(
one => [one.id, one.nodes.map(node => node.target.join(' '))])))"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The five kinds of page, with hostile texts everywhere a text can stand."""
    out = tmp_path_factory.mktemp("pages")
    runs = grid(objectives=("dpo", "cpo_smooth"), betas=2, rates=(0.0, 0.2), seeds=6, items=48)
    texts = {"group": HOSTILE, "prompt": HOSTILE, "response": HOSTILE}
    sweep = write_sweep(out / "sweep", runs, question=HOSTILE, notes=[HOSTILE], text=texts)
    study = plant(out / "study", gold=0.6, question=HOSTILE)
    audit, rows = audited(0.2, 4.0, HOSTILE), np.arange(PAIRS)
    audited_page = audit_page(audit, audit_cards(audit, rows, Asked(HOSTILE, out)), rows, [HOSTILE] * PAIRS, HOSTILE)
    diagnosis = diagnosed(joined(stuck(step=1), stuck(step=2)) | {"kind": [HOSTILE] * 720, "policy": [HOSTILE] * 720})
    rng = np.random.default_rng(0)
    comparison = compared(level(HOSTILE, runs_of(), flat, rng), level("b", runs_of(), planted, rng))
    return {
        "sweep": write_report(sweep),
        "study": write_study_report(study),
        "audit": write_page(out / "audit", audited_page),
        "diagnosis": write_page(out / "diagnosis", diagnosis_page(diagnosis, HOSTILE)),
        "comparison": write_page(out / "comparison", comparison_page(comparison)),
    }


@contextmanager
def opened(path: Path, profile: Path, dark: bool = False, trusted: bool = False) -> Iterator[Page]:
    """A page from its file; `trusted` lets the test's own scripts past the page's policy."""
    with open_page(profile, width=1280, height=900) as page:
        scheme = "dark" if dark else "light"
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        if trusted:
            page.call("Page.setBypassCSP", enabled=True)
        page.call("Page.navigate", url=path.as_uri())
        assert page.wait("document.readyState === 'complete'")
        yield page


def test_what_is_injected_is_shown_and_does_not_run(pages: dict[str, Path], tmp_path: Path) -> None:
    for name, path in pages.items():
        with opened(path, tmp_path / name) as page:
            assert HOSTILE in page.evaluate("document.querySelector('header').textContent")
            assert page.errors == [] and page.evaluate("typeof window.owned") == "undefined"
            page.evaluate(
                "document.body.append(Object.assign(document.createElement('script'), {text: 'window.owned = 4'}))"
            )
            assert page.evaluate("typeof window.owned") == "undefined", "the policy refuses a script that gets in"
            assert any("Content Security Policy" in error for error in page.errors)


def test_the_filter_leaves_one_case_by_keyboard_and_all_on_paper(pages: dict[str, Path], tmp_path: Path) -> None:
    rows = "[...document.querySelectorAll('#cases tbody tr')].filter(row => row.offsetParent).map(row => row.innerText)"
    columns = "[...document.querySelectorAll('#heat thead th')].filter(head => head.offsetParent).map(h => h.innerText)"
    with opened(pages["sweep"], tmp_path / "profile") as page:
        assert len(page.evaluate(rows)) == 4
        page.evaluate("document.getElementById('case-n').focus()")
        for _ in range(2):  # all, clean labels, 20 % flips
            page.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowDown", windowsVirtualKeyCode=40)
            page.call("Input.dispatchKeyEvent", type="keyUp", key="ArrowDown", windowsVirtualKeyCode=40)
        assert page.evaluate("document.activeElement.parentElement.innerText").strip() == "20\u00a0% flips"
        assert len(page.evaluate(rows)) == 2 and all("20\u00a0% flips" in row for row in page.evaluate(rows))
        assert [head for head in page.evaluate(columns) if "labels" in head] == []
        page.evaluate("document.getElementById('case-w1').click()")
        [left] = page.evaluate(rows)
        assert "reference" in left
        page.call("Emulation.setEmulatedMedia", media="print")
        assert len(page.evaluate(rows)) == 4, "on paper nothing is hidden"


def test_the_script_sorts_copies_and_keeps_the_filter_in_the_address(pages: dict[str, Path], tmp_path: Path) -> None:
    column = """[...document.querySelectorAll('#heat tbody tr')].map(row => row.cells[1].innerText)"""
    sort = "document.querySelectorAll('#heat thead .sort')[1].click()"
    with opened(pages["sweep"], tmp_path / "profile") as page:
        for sign in (-1, 1):
            page.evaluate(sort)
            shown = [float(text.split("\u00a0")[0]) for text in page.evaluate(column)[:4]]
            assert shown == sorted(shown, key=lambda value: sign * value)
        page.call("Emulation.setFocusEmulationEnabled", enabled=True)  # a window in the background may not copy
        page.call("Runtime.evaluate", expression="document.querySelector('#cases .tool').click()", userGesture=True)
        assert page.evaluate("document.querySelector('#cases .tool').textContent") == "Copied"
        page.evaluate("document.getElementById('case-n1').click()")
        address = page.evaluate("location.href")
        assert address.endswith("#case=w+n1")
        page.call("Page.navigate", url="about:blank")
        page.call("Page.navigate", url=address)
        assert page.wait("document.readyState === 'complete' && document.getElementById('case-n1')?.checked")
        assert page.errors == []


def test_the_page_says_the_same_without_its_script(pages: dict[str, Path], tmp_path: Path) -> None:
    text = "[...document.querySelectorAll('h1, h2, h3, p, td, th, li, dt, dd')].map(one => one.textContent).join('|')"
    with opened(pages["sweep"], tmp_path / "with") as page:
        scripted = page.evaluate(text)
    bare = write_report(pages["sweep"].parents[1], script=False)
    with opened(bare, tmp_path / "without") as page:
        assert page.evaluate("document.scripts.length") == 0
        assert page.evaluate(text) == scripted
        page.evaluate("document.getElementById('case-n1').click()")
        assert (
            page.evaluate("[...document.querySelectorAll('#cases tbody tr')].filter(r => r.offsetParent).length") == 2
        )
    write_report(pages["sweep"].parents[1])


@pytest.mark.skipif(not AXE.is_file(), reason="axe is not here: run nox -s browser")
@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_no_violation(pages: dict[str, Path], tmp_path: Path, dark: bool) -> None:
    for name, path in pages.items():
        assert violations(path, tmp_path / name, dark) == [], name


@pytest.mark.skipif(not AXE.is_file(), reason="axe is not here: run nox -s browser")
@pytest.mark.parametrize("name", GALLERY)
def test_axe_finds_no_violation_in_the_gallery(name: str, tmp_path: Path) -> None:
    assert violations(ROOT / "reports" / name / "index.html", tmp_path / name, dark=False) == []


def violations(path: Path, scratch: Path, dark: bool) -> list[Any]:
    """What axe finds on a page with all its folds open: rule and elements."""
    with opened(path, scratch, dark=dark, trusted=True) as page:
        page.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
        page.evaluate(f"{AXE.read_text(encoding='utf-8')};0")
        return list(json.loads(page.evaluate(VIOLATIONS)))
