"""A sweep on a user's pairs end to end: no sentence of theirs, no answer to them in the report or at the server."""

from __future__ import annotations

import html
import json
import sqlite3
from pathlib import Path

import pandas as pd
import pytest
import yaml
from rich.console import Console

from harness.cli import run
from harness.config.load import load_sweep
from harness.report.render.text import visible
from harness.storage.plan_file import PRIVATE
from harness.sweep.run import SweepOptions, run_sweep

WORDS = ("quokka", "numbat", "bilby")  # in every planted prompt, chosen and rejected response
ROWS = [
    {
        "prompt": f"{i} people ask what the quokka eats",
        "chosen": f"the numbat {i} tells them",
        "rejected": f"{i} times the bilby sleeps",
    }
    for i in range(40)
]
SPEC = {
    "name": "planted",
    "data": {"path": "pairs.jsonl", "heldout": 0.3, "max_length": 64, "max_prompt_length": 40},
    "model": {
        "kind": "tiny", "vocab_size": 300, "hidden_size": 16, "layers": 1, "heads": 2, "intermediate_size": 16,
        "sft_steps": 60, "sft_batch": 8,
    },
    "objectives": [{"name": "dpo", "beta": 0.5}],
    "corruptions": [{"kind": "uniform_flip", "rate": 0.4}, {"kind": "off_policy", "rate": 0.4}],
    "training": {"steps": 4, "batch_size": 8},
    "evaluation": {"checkpoints": 2, "heldout": 8, "probe": 16, "ood": 0, "samples": 8},
    "seeds": 1,
    "device": "cpu",
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder given as --out, after one sweep."""
    root = tmp_path_factory.mktemp("planted")
    (root / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    path = root / "s.yaml"
    path.write_text(yaml.safe_dump(SPEC), encoding="utf-8")
    quiet = Console(file=(root / "said").open("w", encoding="utf-8"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert run_sweep(load_sweep(path), root / "runs", 1, quiet, SweepOptions("inline")) == 0
    return root / "runs"


def shown(folder: Path) -> dict[str, str]:
    """Every file that is shown or uploaded, by its place: reports, tables, artifacts, the database's dump."""
    files = [*folder.glob("planted/report/**/*"), *folder.glob("planted/*.*"), *folder.glob("mlartifacts/**/*")]
    held = {str(path.relative_to(folder)): path.read_bytes() for path in files if path.is_file()}
    found = {name: content.decode("utf-8", "replace") for name, content in held.items()}
    with sqlite3.connect(folder / "mlflow.db") as connection:
        return found | {"mlflow.db": "\n".join(connection.iterdump())}


def answers(folder: Path) -> set[str]:
    """Generated answers, by the policies and the reference, long enough that nothing else reads like them."""
    tables = [pd.read_parquet(path) for path in folder.glob("planted/*/samples.parquet")]
    texts = {visible(text) for table in tables for name in ("response", "reference_response") for text in table[name]}
    return {text for text in texts if len(text) >= 16}


def holders(found: dict[str, str], text: str) -> set[str]:
    return {name for name, held in found.items() if text in held or html.escape(text) in held}


def test_nothing_planted_and_no_answer_leaves_the_runs(runs: Path) -> None:
    found = shown(runs)
    assert {"planted/report/index.html", "planted/report/report.md", "planted/plan.json", "mlflow.db"} <= set(found)
    assert any(name.startswith("mlartifacts") and name.endswith("index.html") for name in found)
    assert answers(runs), "the model says something"
    texts = {*WORDS, *answers(runs)}
    assert {text: held for text in texts if (held := holders(found, text))} == {}
    ledgers = [path for path in runs.glob("planted/*/ledger.parquet") if b"numbat" in path.read_bytes()]
    assert ledgers, "a ledger of changed texts holds them, and stays where it is"


def test_full_quotes_on_the_private_page_and_uploads_it_only_where_asked(runs: Path) -> None:
    sweep, plan = runs / "planted", runs / "planted" / "plan.json"
    before = shown(runs)
    assert run(["report", str(sweep), "--texts", "full"]) == 0 and run(["sync", str(sweep)]) == 0
    found = shown(runs)
    assert {name for word in WORDS for name in holders(found, word)} == {f"planted/report/{PRIVATE}"}
    assert any(holders(found, text) == {f"planted/report/{PRIVATE}"} for text in answers(runs))
    value = json.loads(plan.read_text(encoding="utf-8"))
    plan.write_text(json.dumps(value | {"report": {"texts": "full", "upload_texts": True}}), encoding="utf-8")
    assert run(["sync", str(sweep)]) == 0
    uploaded = {Path(name).name for name in holders(shown(runs), "quokka") if name.startswith("mlartifacts")}
    assert uploaded == {PRIVATE} and f"planted/report/{PRIVATE}" not in before
