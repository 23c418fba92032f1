"""Texts that are not ours: which page may quote a pair or an answer, and what stands there instead."""

from __future__ import annotations

import html
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from harness.cli import run
from harness.report.page import write_report
from harness.report.texts import Texts, short_hash
from harness.storage.plan_file import PRIVATE, uploaded
from harness.types import TEXTS
from tests.report.fixture import grid, write_sweep

GALLERY = Path(__file__).resolve().parents[2] / "reports"
PAGES = sorted(GALLERY.rglob("*.html"))
WORD = "quokka"  # in every planted text and nowhere else
PLANTED = {"prompt": f"why does the {WORD} smile ?", "response": f"a {WORD} has no choice . " + "it smiles " * 20}


class Page(HTMLParser):
    """What a page says of its texts: the policy it records, its sections, the fields that quote."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.policy = ""
        self.sections: set[str] = set()
        self.quotes = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "body":
            self.policy = given.get("data-texts") or ""
        elif tag == "section":
            self.sections.add(given.get("id") or "")
        self.quotes += "quote" in (given.get("class") or "").split()


def public_problems(page: str) -> list[str]:
    """What a page that anybody may read must not hold where its sweep is on `data`."""
    found = Page(page)
    if "data" not in found.sections:
        return []
    problems = [] if found.policy in ("none", "ids") else [f"records texts: {found.policy or 'nothing'}"]
    return problems + ([f"{found.quotes} fields quote a text"] if found.quotes else [])


@pytest.fixture(scope="module")
def on_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = grid(("dpo", "ipo"), betas=1, dials=None, rates=(0.0, 0.4), seeds=2)
    return write_sweep(tmp_path_factory.mktemp("data") / "sweep", runs, text=PLANTED)


@pytest.fixture(scope="module")
def in_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = grid(("dpo", "ipo"), betas=1, dials=(0.75,), rates=(0.0, 0.4), seeds=2)
    return write_sweep(tmp_path_factory.mktemp("world") / "sweep", runs, text=PLANTED)


def reported(source: Path, place: Path, **options: str) -> Path:
    """The report folder of a copy of a sweep."""
    shutil.copytree(source, place)
    write_report(place, **options)
    return place / "report"


def holding(folder: Path, word: str = WORD) -> set[str]:
    """The files that hold a word."""
    return {path.name for path in folder.rglob("*") if path.is_file() and word.encode() in path.read_bytes()}


@pytest.mark.parametrize("policy", ["", *TEXTS])
def test_quotes_of_data_stand_on_the_private_page_alone(on_data: Path, tmp_path: Path, policy: str) -> None:
    folder = reported(on_data, tmp_path / "s", texts=policy)
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert holding(folder) == ({PRIVATE} if policy in ("short", "full") else set())
    assert public_problems(page) == [] and Page(page).policy == ("none" if policy == "none" else "ids")
    assert [path.name for path in uploaded(folder, texts=False)].count(PRIVATE) == 0
    assert holding(folder.parent) - {PRIVATE} == {"samples.parquet", "worst.parquet"}, "the runs keep their own texts"


@pytest.mark.parametrize("policy", ["", *TEXTS])
def test_texts_of_the_world_are_ours(in_world: Path, tmp_path: Path, policy: str) -> None:
    folder = reported(in_world, tmp_path / "s", texts=policy)
    page = Page((folder / "index.html").read_text(encoding="utf-8"))
    quotes = policy not in ("none", "ids")
    assert holding(folder) == ({"index.html", "report.md"} if quotes else set())
    assert (page.policy, bool(page.quotes)) == (policy or "full", quotes)


def test_the_private_page_says_what_it_is_and_goes_with_the_next_report(on_data: Path, tmp_path: Path) -> None:
    folder = reported(on_data, tmp_path / "s", texts="full")
    page = (folder / PRIVATE).read_text(encoding="utf-8")
    assert "Private: this page quotes rows of a data set" in page and Page(page).sections == {"worst", "behaviour"}
    assert public_problems(page.replace('id="worst"', 'id="data"')), "the check of public pages sees quotes"
    assert html.escape(PLANTED["response"].strip()) in page
    assert "quoted in private.html beside this page" in (folder / "index.html").read_text(encoding="utf-8")
    write_report(folder.parent, texts="short")
    short = (folder / PRIVATE).read_text(encoding="utf-8")
    cut = re.search(rf">(a {WORD} has [^<]*)<", short)
    assert cut is not None and len(cut[1]) == 80 and cut[1].endswith("\u2026")
    write_report(folder.parent)
    assert not (folder / PRIVATE).exists()


def test_ids_name_the_row_its_hash_and_lengths(on_data: Path, tmp_path: Path) -> None:
    page = (reported(on_data, tmp_path / "s") / "index.html").read_text(encoding="utf-8")
    assert re.search(r"<th scope=\"row\">row 41<small>[0-9a-f]{12}</small></th>", page)
    assert f"{len(PLANTED['response'])} characters" in page
    assert "Row, id hash" in page and "Row, prompt hash" in page
    assert "the reference is wrong by" in page, "margin and reason stay"


def test_none_leaves_no_table_of_single_pairs(on_data: Path, tmp_path: Path) -> None:
    page = (reported(on_data, tmp_path / "s", texts="none") / "index.html").read_text(encoding="utf-8")
    assert "worst" not in Page(page).sections and "The same prompts" not in page and "behaviour" in Page(page).sections


def test_the_plan_decides_and_the_flag_overrides_it(on_data: Path, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "s"
    shutil.copytree(on_data, folder)
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))

    def made(texts: str, *flags: str) -> int:
        (folder / "plan.json").write_text(json.dumps(plan | {"report": {"texts": texts}}), encoding="utf-8")
        return run(["report", str(folder), *flags])

    assert made("full") == 0 and (folder / "report" / PRIVATE).exists()
    assert made("full", "--texts", "ids") == 0 and not (folder / "report" / PRIVATE).exists()
    assert made("ids", "--texts", "short") == 0 and (folder / "report" / PRIVATE).exists()
    capsys.readouterr()
    assert made("all") == 2 and "report.texts is none of none, ids, short, full" in capsys.readouterr().err
    assert made("ids", "--texts", "all") == 2


def test_an_id_that_may_be_a_text_is_hashed() -> None:
    own = "0123456789abcdef" * 4
    assert short_hash(own) == short_hash(f"{own}-2") == short_hash(f"{own}#copy2") == "0123456789ab"
    assert re.fullmatch("[0-9a-f]{12}", short_hash(PLANTED["prompt"]))
    place, length = Texts("ids", public=True).pair(PLANTED["prompt"], PLANTED["prompt"], None, "harmless")
    assert WORD not in f"{place} {length}" and place.sub == "harmless"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(GALLERY)))
def test_no_committed_page_quotes_data(path: Path) -> None:
    assert path.name != PRIVATE
    page = path.read_text(encoding="utf-8")
    assert public_problems(page) == []
    if "data" in Page(page).sections:
        text = path.with_name("report.md").read_text(encoding="utf-8")
        assert re.search(r"^- Texts of pairs and answers: (none|ids) ", text, re.MULTILINE)
        assert not re.search(r"^\| Prompt \|", text, re.MULTILINE), "a table whose rows begin with a prompt"


def test_the_gallery_has_a_page_on_data() -> None:
    assert [path for path in PAGES if "data" in Page(path.read_text(encoding="utf-8")).sections]
