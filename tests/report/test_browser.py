"""In headless Chromium: the page never scrolls sideways, prints whole figures, and asks for nothing it may not have."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.report.page import write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--allow-file-access-from-files",
    "--virtual-time-budget=3000", "--window-size=1400,900", "--dump-dom",
)  # fmt: skip
# The report allows no scripts: the page around it measures. Chromium's own window cannot be as narrow as a phone.
WRAPPER = """<!doctype html><iframe id=f src="report/index.html" style="width:{width}px;height:800px;border:0"></iframe>
<p id=out></p><script>onload=()=>{{const d=document.getElementById('f').contentDocument;
const e=d.scrollingElement;let s=0;d.querySelectorAll('.scroll').forEach(x=>s+=x.scrollWidth>x.clientWidth+1);
document.getElementById('out').textContent=`MEASURED ${{e.scrollWidth}} ${{e.clientWidth}} ${{s}} `
+`${{d.querySelector('.card').getBoundingClientRect().bottom}} `
+`${{d.querySelector('.heroes .drawing').getBoundingClientRect().top}} `
+`${{e.scrollHeight}}`}}</script>"""


@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="no Chromium installed")
def test_no_sideways_scroll_the_answer_above_the_fold_and_five_screens(pristine: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pristine"
    shutil.copytree(pristine, folder)
    write_report(folder)
    for width in (1280, 400):
        wrapper = folder / f"wrapper{width}.html"
        wrapper.write_text(WRAPPER.format(width=width), encoding="utf-8")
        command = [str(BROWSER), *FLAGS, f"--user-data-dir={tmp_path / f'profile{width}'}", wrapper.as_uri()]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=400, check=True).stdout
        measured = re.search(r"MEASURED (\d+) (\d+) (\d+) ([\d.]+) ([\d.]+) (\d+)", shown)
        assert measured is not None, "the wrapper could not read the page"
        content, window, scrolling, bottom, figure, height = (float(value) for value in measured.groups())
        assert content <= window, f"{width} px: the page is {content} px wide in a window of {window} px"
        assert bottom < 780, f"{width} px: the first card ends at {bottom} px"
        assert width < 1000 or figure < 700, f"the first figure begins at {figure} px"
        assert width < 1000 or height < 5 * 900, f"what is open fills {height / 900:.1f} screens"
        assert width > 1000 or scrolling > 0, "wide tables scroll in their own container on a phone"


@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="no Chromium installed")
def test_prints_with_no_word_on_the_console(pristine: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pristine"
    shutil.copytree(pristine, folder)
    page = write_report(folder)
    printed = tmp_path / "page.pdf"
    flags = [flag for flag in FLAGS if flag not in ("--dump-dom", "--allow-file-access-from-files")]
    more = [f"--print-to-pdf={printed}", "--no-pdf-header-footer", "--enable-logging=stderr", "--log-level=0"]
    command = [str(BROWSER), *flags, *more, f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=True)
    assert "CONSOLE" not in done.stderr, "nothing is refused by the page's own policy, nothing fails to load"
    sheets = len(re.findall(rb"/Type\s*/Page\b", printed.read_bytes()))
    assert 4 <= sheets <= 16, f"{sheets} sheets"


@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="no Chromium installed")
def test_no_figure_is_wider_than_a_sheet(pristine: Path, tmp_path: Path) -> None:
    """The print rules, applied in a frame as wide as an A4 sheet within its margins (703 px)."""
    folder = tmp_path / "pristine"
    shutil.copytree(pristine, folder)
    page = write_report(folder)
    text = page.read_text(encoding="utf-8").replace("@media print{", "@media all{")
    page.write_text(text, encoding="utf-8")
    wrapper = folder / "print.html"
    script = WRAPPER.format(width=703).replace(
        "x.scrollWidth>x.clientWidth+1", "x.scrollWidth>x.clientWidth+1&&!!x.querySelector('svg')"
    )
    wrapper.write_text(script, encoding="utf-8")
    command = [str(BROWSER), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", wrapper.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=400, check=True).stdout
    measured = re.search(r"MEASURED (\d+) (\d+) (\d+)", shown)
    assert measured is not None, "the wrapper could not read the page"
    assert int(measured[3]) == 0, "no figure is cut"
    assert int(measured[1]) <= int(measured[2])
