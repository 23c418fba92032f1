"""`harness audit` on small files with a rule that a tiny model learns: files, cleaned sets, resuming, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from harness.audit import reading, train_folds
from harness.audit import run as runs
from harness.audit.asked import Asked
from harness.audit.duplicates import contradicted, near_duplicates
from harness.audit.train_folds import folds_by_prompt
from harness.cli import run
from harness.data.pairs import read_pairs
from harness.metrics.suspicion import auroc
from harness.types import DataSpec, ModelSpec, PreferencePair
from tests.models import families

COLOURS = ("red", "blue", "green", "grey", "white", "black")
THINGS = ("door", "lamp", "car", "shoe", "bird", "boat", "roof", "wall", "tree", "fish")


def rows(count: int, wrong: int = 0) -> list[dict[str, Any]]:
    """The polite answer is the better one; the last `wrong` rows are labelled the other way."""
    found = []
    for i in range(count):
        what = f"{COLOURS[i % 6]} {THINGS[i // 6 % 10]} {i}"
        sides = (f"please take the {what}", f"get lost with the {what}")
        good, bad = sides[::-1] if i >= count - wrong else sides
        found.append({"prompt": f"Where is the {what}?", "chosen": good, "rejected": bad, "kind": "ab"[i % 2]})
    return found


def write(path: Path, made: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    return path


QUICK = {"--folds": "2", "--steps": "60", "--max-length": "64", "--device": "cpu"}


def audit(data: Path, out: Path, *more: str) -> int:
    quick = [word for option, value in QUICK.items() if option not in more for word in (option, value)]
    return run(["audit", "--data", str(data), "--out", str(out), *quick, *more])


def test_an_audit_from_pairs_to_cleaned_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:  # type: ignore[no-untyped-def]
    data, out = write(tmp_path / "pairs.jsonl", rows(160, 24)), tmp_path / "audit"
    assert audit(data, out, "--slices", "kind", "--json", "--write", str(tmp_path / "less.jsonl"), "--drop", "20") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts == json.loads((out / "audit.json").read_text("utf-8"))
    assert facts["advice"]["action"] in ("none", "drop", "relabel", "cannot_audit") and facts["pairs"] == 160
    table = pq.read_table(out / "audit.parquet").to_pydict()
    wrong = np.array(table["row"]) > 160 - 24
    assert table["row"] == list(range(1, 161)) and auroc(np.array(table["suspicion"]), wrong) > 0.9
    assert facts["answer"] in (out / "report.md").read_text("utf-8").replace("\\", "")
    page = (out / "index.html").read_text("utf-8")
    assert "please take" not in page and "Audit" in page

    # Twenty rows are gone, the ledger names them, all others are as they were.
    ledger = pq.read_table(tmp_path / "less.ledger.parquet").to_pydict()
    suspects = {row for _, row in sorted(zip(table["suspicion"], table["row"], strict=True), reverse=True)[:20]}
    assert set(ledger["row"]) == suspects and set(ledger["action"]) == {"drop"}
    before, after = (read_pairs(DataSpec(str(path))).pairs for path in (data, tmp_path / "less.jsonl"))
    kept = [(p.prompt, p.chosen, p.rejected) for p in before if p.meta["row"] not in suspects]
    assert [(p.prompt, p.chosen, p.rejected) for p in after] == kept

    # The same call again trains nothing, and relabels from the same evidence.
    monkeypatch.setattr(train_folds, "start", None)
    monkeypatch.setattr(reading, "fit", None)
    assert (
        audit(data, out, "--slices", "kind", "--force", "--write", str(tmp_path / "turned.parquet"), "--relabel", "20")
        == 0
    )
    turned = read_pairs(DataSpec(str(tmp_path / "turned.parquet"))).pairs
    differ = {
        p.meta["row"] for p, q in zip(before, turned, strict=True) if (p.chosen, p.rejected) != (q.chosen, q.rejected)
    }
    assert differ == suspects


def test_a_model_of_ones_own_is_read_once_and_linear_heads_judge(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A random model, whose hidden states tell the polite answer from the other all the same."""
    data, model = write(tmp_path / "pairs.jsonl", rows(120, 18)), families.write("llama", tmp_path / "model")
    words = ["audit", "--data", str(data), "--model", str(model), "--out", str(tmp_path / "audit"), "--json"]
    monkeypatch.setattr(train_folds, "start", None)  # nothing is trained
    assert run([*words, "--device", "cpu", "--max-length", "64", "--folds", "3"]) == 0
    audited = json.loads(capsys.readouterr().out)["audited"]
    assert audited["evidence"] == ["head"] and audited["model"] == "model"
    for name in ("audit.json", "index.html", "report.md"):
        assert str(tmp_path) not in (tmp_path / "audit" / name).read_text("utf-8")
    table = pq.read_table(tmp_path / "audit" / "audit.parquet").to_pydict()
    assert auroc(np.array(table["suspicion"]), np.array(table["row"]) > 120 - 18) > 0.9


def test_heads_are_judged_by_prompts_they_did_not_see() -> None:
    draw = np.random.default_rng(0)
    hidden, fold = draw.normal(size=(90, 12)), np.arange(90) % 3
    hidden[:, 0] = np.abs(hidden[:, 0]) + 1
    no = np.zeros(90, dtype=bool)
    assert (train_folds.head_margins(hidden, no, fold) > 0).mean() > 0.9
    one = no.copy()
    one[4] = True  # its own label does not enter its margin
    both = [train_folds.head_margins(hidden, flipped, fold)[4] for flipped in (no, one)]
    assert both[0] == pytest.approx(-both[1])
    noise = draw.normal(size=(90, 12))  # a head that had seen the labels would agree with them
    assert (train_folds.head_margins(noise, no, fold) > 0).mean() < 0.7


@pytest.mark.parametrize("stop", [1, 4])
def test_an_interrupted_audit_goes_on_where_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    """60 updates of two packs, shown at 20 and 40: it is stopped in the reward models, or in DPO, and ends the same."""
    data, small = write(tmp_path / "pairs.jsonl", rows(40, 6)), ModelSpec("tiny", 300, 16, 1, 2, 16, sft_steps=5)
    monkeypatch.setattr(reading, "_model", lambda asked: small)
    assert audit(data, tmp_path / "whole" / "audit", "--json") == 0
    whole = json.loads(capsys.readouterr().out)
    own, calls, updates = train_folds.train, [], []

    def until_stopped(run: Any, until: int | None = None) -> Any:
        calls.append(until)
        if len(calls) == stop + 1:
            raise KeyboardInterrupt
        before = run.step
        yield from own(run, until)
        updates.append(run.step - before)

    monkeypatch.setattr(train_folds, "train", until_stopped)
    monkeypatch.setattr(train_folds, "SAVE_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        runs.run(Asked(str(data), tmp_path / "audit", folds=2, steps=60, max_length=64, device="cpu"), lambda _: None)
    done = sum(updates)
    monkeypatch.setattr(reading, "fit", None)  # the tiny model is there
    monkeypatch.setattr(train_folds, "score", None)  # and so are the reference's log-probs
    calls.extend([None] * 99)
    assert audit(data, tmp_path / "audit", "--json") == 0
    assert json.loads(capsys.readouterr().out) == whole
    assert done == {1: 20, 4: 80}[stop] and sum(updates) == 120  # two packs of 60, nothing twice
    assert not list((tmp_path / "audit" / "scores").glob("*.part"))


BAD = (
    (rows(20), ("--write", "c.jsonl"), "--drop K"),
    (rows(20), ("--drop", "3"), "--write FILE"),
    (rows(20), ("--drop", "3", "--relabel", "2", "--write", "c.jsonl"), "give one of them"),
    (rows(20), ("--drop", "20", "--write", "c.jsonl"), "expected fewer"),
    (rows(20), ("--drop", "0", "--write", "c.jsonl"), "at least 1"),
    (rows(20), ("--write", "pairs.jsonl", "--advice"), "is the file that is read"),
    (rows(20), ("--write", "c.csv", "--advice"), "ends in .jsonl or .parquet"),
    (rows(20), ("--model", "absent"), "--model"),
    (rows(20), ("--steps", "5"), "--steps 5: expected at least 10"),
    (rows(20), ("--slices", "colour"), "no column colour"),
    (rows(1), (), "prompts"),
    ([row | {"prompt": "one"} for row in rows(20)], (), "1 prompts; 2 folds"),
    ([row | {"rejected": row["chosen"]} for row in rows(20)], (), "no usable pair"),
    ([row | {"score_chosen": 1, "score_rejected": 2} for row in rows(20)], (), "exchanged"),
)


@pytest.mark.parametrize(("made", "more", "told"), BAD, ids=[told for *_, told in BAD])
def test_bad_input_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, made: Any, more: Any, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train_folds, "start", None)  # nothing is trained before it is told
    monkeypatch.setattr(reading, "fit", None)
    assert audit(write(tmp_path / "pairs.jsonl", made), tmp_path / "audit", *more) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert told in said[-1] and not (tmp_path / "audit").exists(), said


def test_what_exists_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "audit"
    out.mkdir()
    (out / runs.JSON).write_text("{}")
    assert audit(write(tmp_path / "pairs.jsonl", rows(20)), out) == 2
    assert "--force" in capsys.readouterr().err and (out / runs.JSON).read_text() == "{}"


def test_folds_keep_prompts_together_and_are_even() -> None:
    prompts = [f"p{i // 3}" for i in range(90)]
    folds = folds_by_prompt(prompts, 5, 0)
    assert all(len({fold for fold, p in zip(folds, prompts, strict=True) if p == one}) == 1 for one in prompts)
    assert np.bincount(folds).tolist() == [18] * 5


def test_contradictions_and_near_duplicates() -> None:
    long = "the cat sat on the mat and looked at the moon for a long while before it went to sleep in the barn"
    pairs = [
        PreferencePair("a", "p", long, "no"),
        PreferencePair("b", "p", "no", long),
        PreferencePair("c", "p", long + " again", "no"),
        PreferencePair("d", "q", "something else entirely", "no"),
    ]
    assert contradicted(pairs).tolist() == [True, True, False, False]
    assert near_duplicates(pairs).tolist() == [-1, 0, 0, -1]


def test_the_worked_example_is_the_page_in_the_gallery() -> None:
    root = Path(__file__).parents[2]
    quoted = [
        line[2:] for line in (root / "docs" / "audit.md").read_text("utf-8").splitlines() if line.startswith("> ")
    ]
    assert (
        len(quoted) == 1 and quoted[0] == json.loads((root / "reports/audit/audit.json").read_text("utf-8"))["answer"]
    )
    assert quoted[0] in (root / "reports/audit/report.md").read_text("utf-8").replace("\\", "")
