"""The page: its numbers, its bytes, what it does with hostile text and missing runs."""

from __future__ import annotations

import base64
import hashlib
import html
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from harness.report.page import write_report
from harness.report.render.text import csv_text, markdown, number, visible
from harness.report.sections.registry import SECTIONS
from tests.report.fixture import grid, write_sweep

ROOT = Path(__file__).resolve().parents[2]
PAYLOADS = (
    "<script>alert(1)</script>", "</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>", "<svg><script>alert(1)</script></svg>", "<a href='javascript:alert(1)'>x</a>",
    "<iframe src='https://evil.example'></iframe>", "<iframe srcdoc='<script>1</script>'>", "<body onload=alert(1)>",
    "<link rel=stylesheet href=//evil.example/x.css>", "<meta http-equiv=refresh content='0;url=//evil.example'>",
    "<base href='https://evil.example/'>", "<object data='https://evil.example'>", "<embed src='//evil.example'>",
    "<form action='https://evil.example'><input>", "<video src='//evil.example' onerror=alert(1)>",
    "<details open ontoggle=alert(1)>", "<math><mi xlink:href='javascript:alert(1)'>x</mi></math>",
    "\"><script>alert(1)</script>", "'><img src=x onerror=alert(1)>", "\" onmouseover=\"alert(1)",
    "' onfocus='alert(1)",
    "` onclick=alert(1) `", "--><script>alert(1)</script>", "]]><script>alert(1)</script>",
    "</style><script>alert(1)</script>", "</title><script>alert(1)</script>", "</caption></table><script>1</script>",
    "<style>@import '//evil.example';</style>", "{{ 7*7 }}{% for x in y %}", "${7*7}",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;script&#62;alert(1)", "[x](javascript:alert(1))", "![x](https://evil.example/x.png)", "<https://evil.example>",
    "https://evil.example/x www.evil.example a@evil.example", "| a | b |\n|---|---|\n# h", "`code` **b** ~~s~~ $x$",
    "\u202egnp.exe\u202c \u2066x\u2069 \x1b[31mred\x07 \u200b\ufeff\u2028",
)  # fmt: skip
REMOTE = re.compile(r"(?i)^\s*(?:[a-z][a-z0-9+.-]*:)?//|^\s*(?:javascript|vbscript|https?|file):")


class Nodes(HTMLParser):
    """Collects what must not be there: active tags, event handlers, addresses that leave the page."""

    def __init__(self) -> None:
        super().__init__()
        self.bad: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.scripts: list[str] = []
        self.script = False

    def handle_data(self, data: str) -> None:
        if self.script:
            self.scripts.append(data)

    def handle_endtag(self, tag: str) -> None:
        self.script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.script = tag == "script"
        if tag in {"iframe", "object", "embed", "link", "base", "form", "math", "video", "foreignobject"}:
            self.bad.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if tag == "a" and name == "href":  # only to sections of this page
                self.links.append(value or "")
                continue
            if name.startswith("on") or (
                name in {"src", "href", "xlink:href", "srcset", "action", "data"} and REMOTE.match(value or "")
            ):
                self.bad.append(f"{tag} {name}={value}")


def check(folder: Path) -> str:
    page = write_report(folder).read_text(encoding="utf-8")
    nodes = Nodes()
    nodes.feed(page)
    allowed = [
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in nodes.scripts
    ]
    assert len(allowed) == 1 and f"script-src {allowed[0]};" in page, "the one script that the page's policy names"
    assert not nodes.bad and {"table", "caption", "main", "h1"} <= nodes.tags
    assert len(nodes.ids) == len(set(nodes.ids)) and {link.removeprefix("#") for link in nodes.links} <= set(nodes.ids)
    assert all(link.startswith("#") for link in nodes.links)
    assert "default-src 'none'" in page and page.index("Content-Security-Policy") < page.index("<title>")
    return page


def text_of(page: str, name: str) -> str:
    found = re.search(rf'<(\w+) class="{name}">(.*?)</\1>', page, re.DOTALL)
    assert found is not None
    return html.unescape(found[2]).replace("\u2212", "-")


@pytest.fixture(scope="module")
def reported(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("page") / "pristine"
    shutil.copytree(pristine, copy)
    write_report(copy)
    return copy


def test_the_sentence_says_what_results_csv_says(reported: Path) -> None:
    results = pd.read_csv(reported / "results.csv").query("status == 'done' and misaligned == 0.75 and rate == 0")
    hard = results[results["labels"] == "hard"]
    means = hard.groupby(["objective", "beta"]).mean(numeric_only=True)
    dpo = means.loc["dpo"]
    beta = (dpo["reward_accuracy"] - dpo["ranking_accuracy"]).idxmax()
    sentence = text_of((reported / "report" / "index.html").read_text(), "answer")
    sentence = sentence.split("<p>")[2]
    assert f"the reference wrong on 75\u00a0% of topics and clean labels, dpo at beta {beta:g}" in sentence
    numbers = dict(re.findall(r"(down to|accuracy to|ranks only|right, and) (\d\.\d+)", sentence))
    want = {
        "down to": dpo.loc[beta, "train_loss_last"],
        "accuracy to": dpo.loc[beta, "reward_accuracy"],
        "ranks only": dpo.loc[beta, "ranking_accuracy"],
        "right, and": dpo.loc[beta, "undesirable_zone"],
    }
    assert {k: float(v) for k, v in numbers.items()} == pytest.approx(want, abs=5e-4)
    assert re.search(r"\((satisfied too early in \d of 3 seeds; )?3 seeds, 95 % intervals", sentence)
    gaps = hard.query("objective == 'dpo'").assign(gap=hard["reward_accuracy"] - hard["ranking_accuracy"])
    shown = {
        b: one.mean() >= 0.05 and stats.t.interval(0.95, len(one) - 1, one.mean(), stats.sem(one))[0] > 0
        for b, one in gaps.groupby("beta")["gap"]
    }
    starts = min(b for b, found in shown.items() if found)
    assert f"reward accuracy and ranking part from beta {starts:g} on" in sentence


def test_the_first_sentence_compares_at_matched_kl_and_gives_no_best_at_the_edge_of_a_grid(reported: Path) -> None:
    rows = pd.read_csv(reported / "report" / "contrasts.csv").query(
        "measure == 'ranking_accuracy' and misaligned == 0.75 and rate == 0 and labels == 'hard'"
    )
    at_kl = rows[(rows["matched_on"] == "kl") & (rows["verdict"] == "interval only")]
    most = at_kl[at_kl["n"] == at_kl["n"].max()]
    row = most.loc[most["difference"].abs().idxmax()]
    sentence = text_of((reported / "report" / "index.html").read_text(), "answer").split("<p>")[1]
    assert f"at the same KL of {row['matched_at']:g} nats" in sentence and row["objective"] in sentence
    assert f"{row['difference']:.3f}" in sentence and f"({row['n']} seed" in sentence
    best = rows[(rows["matched_on"] == "best") & (rows["objective"] == row["objective"])].iloc[0]
    assert best["verdict"] == "no best" and f"no best to compare yet ({best['note']})" in sentence


def test_the_page_names_what_is_missing(reported: Path) -> None:
    page = check(reported)
    assert "81 runs: 79 done, 1 diverged, 1 pending" in text_of(page, "kicker")
    assert "incomplete: 2 of 3 seeds done (1 pending)" in page and "2 of 3 seeds done (1 diverged)" in page
    assert "1 run diverged or failed: counted as worst" in page
    assert "2 rows dropped: empty" in page and "fewer than 6 seeds" in page


def test_figures_are_small_and_markdown_links_them(reported: Path) -> None:
    files = {path.name: path.stat().st_size for path in (reported / "report" / "figures").iterdir()}
    names = (
        "hero-accuracy",
        "hero-frontier",
        "frontier-3",
        "frontier-4",
        "survival-uniform-flip",
        "trajectories",
        "curves",
        "plane",
        "displacement",
        "densities",
        "quality",
        "predicted",
    )
    assert set(files) == {f"{name}.svg" for name in names}
    assert max(files.values()) < 60_000
    linked = re.findall(r"\]\(figures/(.*?)\)", (reported / "report" / "report.md").read_text())
    assert sorted(linked) == sorted(files)


def test_bytes_do_not_depend_on_zone_locale_folder_or_row_order(reported: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "pristine"
    shutil.copytree(reported, other, ignore=shutil.ignore_patterns("report"))
    for path in other.glob("*/examples.parquet"):
        table = pd.read_parquet(path)
        table.iloc[::-1].to_parquet(path)
    env = {**os.environ, "TZ": "Pacific/Chatham", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONHASHSEED": "7"}
    code = "import sys; from pathlib import Path; from harness.report.page import write_report\n"
    code += "write_report(Path(sys.argv[1])); assert 'torch' not in sys.modules and 'mlflow' not in sys.modules"
    command = [sys.executable, "-c", code, os.path.relpath(other, tmp_path)]
    subprocess.run(command, check=True, cwd=tmp_path, env={**env, "PYTHONPATH": str(ROOT)})
    names = sorted(str(p.relative_to(reported)) for p in reported.glob("report/**/*.*"))
    assert len(names) == 19
    for name in [*names, "results.csv", "costs.csv"]:
        assert (other / name).read_bytes() == (reported / name).read_bytes(), name


def test_forty_payloads_stay_text(tmp_path: Path) -> None:
    assert len(PAYLOADS) == 40
    runs = grid(objectives=("dpo", "cpo_smooth"), betas=1, dials=(0.75,), rates=(0.0,), seeds=1, items=48)
    for start in range(0, len(PAYLOADS), 10):
        text = PAYLOADS[start : start + 10]
        everything = " ".join(text)
        strings = {"group": everything, "prompt": everything, "response": everything}
        folder = write_sweep(tmp_path / f"s{start}", runs, question=everything, notes=list(text), text=strings)
        page = check(folder)
        seen = html.unescape(re.sub(r"<[^>]*>", "", page))
        for payload in text:
            assert visible(payload) in seen, "shown as text, in full"
        assert not re.search(r"[\u202a-\u202e\u2066-\u2069\u200b\ufeff\u2028\x00-\x09\x0b-\x1f]", page)


def test_markdown_and_csv_payloads() -> None:
    for payload in PAYLOADS:
        escaped = markdown(payload)
        assert "\n" not in escaped
        bare = re.sub(r"\\.", "", escaped)
        assert not re.search(r"[<>\[\]|`*~$&@#]|://|\bwww\.", bare), payload
    assert [csv_text(t) for t in ("=1+1", "+x", "-x", "@x", "ok")] == ["'=1+1", "'+x", "'-x", "'@x", "ok"]
    assert visible("a\u202eb\nc") == "a\\u{202e}b c"
    assert [number(v) for v in (-0.0001, -0.25, None, float("nan"))] == ["0.000", "\u22120.250", "\u2013", "\u2013"]


def anchors(page: str) -> list[str]:
    return re.findall(r'<section id="(.*?)">', page)


def test_sections_stand_in_the_order_of_the_registry_and_only_where_there_is_data(
    reported: Path, tmp_path: Path
) -> None:
    order = list(SECTIONS)
    full = anchors((reported / "report" / "index.html").read_text())
    assert full == [name for name in order if name in full]
    never = {
        "benchmarks",
        "betas",
        "cleaning",
        "damage",
        "data",
        "gold",
        "judge",
        "levels",
        "misspecified",
        "prediction",
        "replicas",
        "rounds",
        "slices",
    }
    assert set(order) - set(full) == never
    runs = grid(objectives=("dpo",), betas=1, dials=None, rates=(0.0,), seeds=1)
    bare = anchors(check(write_sweep(tmp_path / "bare", runs, samples=False)))
    assert bare == [
        name
        for name in order
        if name in {*full, "data"}  # without a dial the pairs are real
        and name
        not in ("cases", "frontier", "survival", "densities", "worst", "behaviour", "quality", "theory", "regret")
    ]


@pytest.mark.parametrize("seeds", [1, 3])
def test_real_data_without_samples(tmp_path: Path, seeds: int) -> None:
    runs = grid(objectives=("dpo", "ipo"), betas=1, dials=None, seeds=seeds)
    page = check(write_sweep(tmp_path / "real", runs, samples=False))
    assert "no gold reward: real data have no known true reward" in first_lines(page)
    assert "misaligned" not in text_of(page, "answer")
    assert ("one seed: no intervals" in page) == (seeds == 1)
    assert not (tmp_path / "real" / "report" / "figures" / "quality.svg").exists()


def test_no_difference_is_said_plainly(tmp_path: Path) -> None:
    runs = grid(objectives=("dpo", "hypo"), betas=1, dials=(0.0,), rates=(0.0,), seeds=3)
    answer = text_of(check(write_sweep(tmp_path / "same", runs)), "answer")
    assert "no difference of hypo to dpo in ranking accuracy is shown" in answer and "could stay hidden" in answer


def test_nothing_finished_yet(tmp_path: Path) -> None:
    runs = grid(objectives=("dpo", "ipo"), betas=1, dials=(0.75,), seeds=2)
    page = check(write_sweep(tmp_path / "pending", runs, skip=range(len(runs))))
    assert f"0 of {len(runs)} runs finished ({len(runs)} pending)" in first_lines(page)
    assert "no answer yet" in text_of(page, "answer")
    assert f"{len(runs)} runs: 0 done, {len(runs)} pending" in page


def test_every_run_diverged(tmp_path: Path) -> None:
    runs = grid(objectives=("dpo", "ipo"), betas=1, dials=(0.75,), seeds=2)
    page = check(write_sweep(tmp_path / "burnt", runs, diverged=range(len(runs))))
    assert f"0 of {len(runs)} runs finished ({len(runs)} diverged)" in first_lines(page)
    assert "Every run diverged or failed" in text_of(page, "answer")


def test_missing_and_damaged_records_are_named_first_and_the_rest_is_drawn(tmp_path: Path) -> None:
    runs = grid(objectives=("dpo", "cpo_smooth"), betas=2, dials=(0.75,), rates=(0.0, 0.2), seeds=2)
    folder = write_sweep(tmp_path / "s", runs)
    records = sorted(folder.glob("*/examples.parquet"))
    records[0].unlink()
    records[1].write_bytes(records[1].read_bytes()[:-40])
    for path, column in zip(records[2:4], ("gold_margin", "policy_chosen"), strict=True):
        pd.read_parquet(path).drop(columns=column).to_parquet(path)
    for path in folder.glob("*/samples.parquet"):
        path.write_bytes(b"no parquet")
    page = check(folder)
    problems = first_lines(page)
    assert f"no per-example records of 1 of 16 finished runs ({records[0].parent.name[:8]})" in problems
    damaged = sorted(path.parent.name[:8] for path in records[1:4])
    assert "records of 3 of 16 finished runs" in problems and all(key in problems for key in damaged)
    assert re.search(r"samples of [1-9]\d* runs cannot be read", problems)
    assert {"verdict", "survival", "trajectories", "plane"} <= set(anchors(page))


def test_above_the_limit_the_page_says_that_it_reads_no_records(tmp_path: Path) -> None:
    runs = grid(objectives=("dpo", "cpo_smooth"), betas=2, dials=(0.75,), rates=(0.0, 0.2), seeds=2)
    folder = write_sweep(tmp_path / "s", runs)
    page = write_report(folder, limit=15).read_text()
    assert "16 runs: above 15 the report reads no per-example records" in first_lines(page)
    assert "plane" not in anchors(page) and {"verdict", "survival", "heat", "claims"} <= set(anchors(page))
    cells = pd.read_csv(folder / "report" / "cells.csv").query("measure == 'ranking_accuracy'")
    whole = cells["mean"] == 1.0  # floors rest on the planned 64 pairs of each of 2 seeds
    assert whole.any() and (cells["low"][whole] < 1 / (1 + 3.84 / 128) + 1e-3).all()


def first_lines(page: str) -> str:
    """What stands before the answer."""
    return html.unescape(page[page.index("<h1>") : page.index('<div class="answer">')])


def test_a_regenerated_report_drops_figures_it_can_no_longer_draw(tmp_path: Path) -> None:
    runs = grid(objectives=("dpo",), betas=1, dials=(0.75,), rates=(0.0,), seeds=1)
    folder = write_sweep(tmp_path / "s", runs)
    stale = folder / "report" / "figures" / "noise-old.svg"
    stale.parent.mkdir(parents=True)
    stale.write_text("<svg/>")
    write_report(folder)
    assert not stale.exists() and stale.parent.joinpath("curves.svg").exists()
