"""The dashboard in headless Chromium: every main view opens by its address with marks in its charts, and stays here."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from harness.tracking.charts import BY_OBJECTIVE, GEOMETRY, RANKING, ZONE
from tests.browser.conftest import RUNS, Dashboard
from tests.browser.devtools import Page, open_page
from tests.tracking.sweeps import STEPS

pytestmark = pytest.mark.browser

# Title and number of marks of every chart on the page; marks of runs that are drawn twice are one mark.
CARDS = """JSON.stringify(Object.fromEntries([...document.querySelectorAll(
'[data-testid="experiment-view-compare-runs-card"]')].map(card => [card.innerText.split('\\n')[0],
card.querySelectorAll('.points .point').length])))"""
# Charts are drawn when they come into sight: a window this high shows a whole view.
HEIGHT = 3000


def marks(page: Page, expected: int) -> dict[str, int]:
    """Marks by chart title, once `expected` charts are drawn, or when that takes too long."""
    page.wait(f"Object.values(JSON.parse({CARDS})).filter(n => n).length >= {expected}", 150)
    found: dict[str, int] = json.loads(page.evaluate(CARDS))
    return found


def title(chart: Mapping[str, object]) -> str:
    """A chart's title as the page makes it."""
    if chart["type"] != "SCATTER":
        return str(chart["metricKey"])
    x, y = chart["xaxis"], chart["yaxis"]
    assert isinstance(x, Mapping)
    assert isinstance(y, Mapping)
    return f"{x['key']} vs. {y['key']}"


def assert_quiet(page: Page, port: int) -> None:
    """No complaint in the console, and no request to anywhere but the dashboard."""
    assert page.errors == []
    assert page.requests
    for url in page.requests:
        parts = urlsplit(url)
        assert parts.scheme in ("data", "blob", "about") or parts.netloc == f"127.0.0.1:{port}", url


def test_the_comparison_opens_with_a_mark_for_every_run(dashboard: Dashboard, tmp_path: Path) -> None:
    address = dashboard.addresses["tiny"]
    assert re.search(r"/#/experiments/\d+/runs\?\S+viewStateShareKey=comparison$", address)
    with open_page(tmp_path / "profile", height=HEIGHT) as page:
        page.call("Page.navigate", url=address)
        drawn = marks(page, 9)
        lines = ("loss", "geometry/ranking_accuracy", "geometry/undesirable_zone")
        scatters = [f"{x} vs. {y}" for x in ("objective.name", "corruption.rate") for y in (RANKING, ZONE)]
        scatters += [f"final/kl vs. {quality}" for quality in (RANKING, "final/gold_reward")]
        assert drawn == dict.fromkeys(lines, RUNS * len(STEPS)) | dict.fromkeys(scatters, RUNS)
        text = page.evaluate("document.body.innerText")
        assert "dpo b=0.5 r=0.0 s0" in text  # a legend
        assert "Ask questions about your experiments" not in text  # the assistant is folded
        assert_quiet(page, dashboard.port)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "charts"), [("By objective", BY_OBJECTIVE), ("Geometry", GEOMETRY)])
def test_every_chart_of_the_other_views_is_filled(
    dashboard: Dashboard, tmp_path: Path, name: str, charts: tuple[Mapping[str, object], ...]
) -> None:
    wanted = {title(chart): RUNS * (len(STEPS) if chart["type"] == "LINE" else 1) for chart in charts}
    with open_page(tmp_path / "profile", height=HEIGHT) as page:
        page.call("Page.navigate", url=dashboard.addresses[name])
        drawn = marks(page, len(charts))
        assert {title: drawn.get(title) for title in wanted} == wanted
        assert_quiet(page, dashboard.port)


@pytest.mark.slow
def test_the_report_opens_beside_the_runs(dashboard: Dashboard, tmp_path: Path) -> None:
    with open_page(tmp_path / "profile") as page:
        page.call("Page.navigate", url=dashboard.addresses["Report"])
        assert page.wait("[...document.querySelectorAll('iframe')].some(f => f.srcdoc || f.src)")
        assert "report/index.html" in page.evaluate("document.body.innerText")
        assert_quiet(page, dashboard.port)


@pytest.mark.slow
def test_the_table_has_the_chosen_columns_and_data_sets(dashboard: Dashboard, tmp_path: Path) -> None:
    table = dashboard.addresses["tiny"].replace("&compareRunsMode=CHART", "")
    with open_page(tmp_path / "profile", width=2600) as page:
        page.call("Page.navigate", url=table)
        assert page.wait("document.body?.innerText.includes('mythworld uniform_flip')")
        text = page.evaluate("document.body.innerText")
        for column in ("objective.name", "corruption.rate", "final/ranking_accuracy", "final/kl", "Dataset"):
            assert column in text
        assert (
            page.evaluate("document.querySelectorAll('[data-testid=\"experiment-view-table-run-color\"]').length") > 1
        )
        assert_quiet(page, dashboard.port)


def test_pages_of_other_sites_and_other_machines_are_kept_apart(dashboard: Dashboard, tmp_path: Path) -> None:
    """Names that are resolved to this machine, pages of other ports here, and the page itself calling elsewhere."""
    assert status(dashboard.port, {}) == 200
    for header, value in (
        ("Host", "evil.example"),
        ("Host", "192.168.1.5"),
        ("Origin", "http://evil.example"),
        ("Origin", "http://localhost:3000"),
        ("Origin", "null"),
    ):
        assert status(dashboard.port, {header: value}) == 403, (header, value)
    with open_page(tmp_path / "profile") as page:
        page.call("Page.navigate", url=f"http://127.0.0.1:{dashboard.port}/")
        page.wait("document.readyState == 'complete'")
        refused = "new Promise(done => { document.addEventListener('securitypolicyviolation', e => done(e.blockedURI));"
        refused += " fetch('http://127.0.0.2:9/').catch(() => setTimeout(() => done(''), 2000)) })"
        assert str(page.evaluate(refused)).startswith("http://127.0.0.2:9")


def status(port: int, headers: Mapping[str, str]) -> int:
    """The status of a request for the list of experiments."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/api/2.0/mlflow/experiments/search?max_results=1", headers=dict(headers))
    return connection.getresponse().status
