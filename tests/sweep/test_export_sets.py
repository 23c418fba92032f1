"""`harness corrupt --spec`: the files hold the pairs and labels that the sweep's runs train on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from harness import api, corrupt_sets
from harness.cli import run
from harness.config.load import load_sweep
from harness.corruptions.ledger import read_ledger
from harness.data.splits import read_text
from harness.storage import failpoints

WORLD: dict[str, Any] = {
    "kind": "mythworld", "version": 1, "misaligned": 0.5, "labels": ["hard", "bradley_terry"], "pairs": 48,
    "pretrain_steps": 4, "pretrain_batch": 8, "sft_steps": 3, "sft_batch": 8,
}  # fmt: skip
NOISE: list[dict[str, Any]] = [
    {"kind": "none"},
    {"kind": "truncate", "rate": 0.25},
    {"sequence": [{"kind": "uniform_flip", "rate": 0.25}, {"kind": "curate_drop", "rate": 0.25}]},
]
SPEC: dict[str, Any] = {
    "name": "sets", "objectives": [{"name": "dpo", "beta": [0.5, 1]}], "corruptions": NOISE, "seeds": 2,
    "training": {"steps": 2, "batch_size": 4}, "device": "cpu",
    "evaluation": {"checkpoints": 2, "heldout": 8, "probe": 8, "ood": 4, "samples": 0},
}  # fmt: skip


def write(folder: Path, **more: Any) -> Path:
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump({**SPEC, **more}), encoding="utf-8")
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_sets_of_the_world_are_those_that_its_runs_trained_on(tmp_path: Path) -> None:
    spec, runs = write(tmp_path, world=WORLD), tmp_path / "runs"
    assert api.sweep(spec, out=runs, engine="inline", quiet=True).ok
    written = corrupt_sets(spec, tmp_path / "sets", models=runs, quiet=True)
    assert len(written) == 12 == len({one.out for one in written})  # labels x corruptions x seeds; beta makes no set
    ledgers = {}
    for folder in (runs / "sets").glob("*/"):
        if (folder / "ledger.parquet").exists():
            ledger = read_ledger(folder / "ledger.parquet")
            manifest = ledger.attrs["manifest"]
            ledgers[manifest["before_hash"], manifest["after_hash"]] = ledger
    for one in written:
        clean = one.out.name.startswith("clean")
        own = read_ledger(one.ledger)
        manifest = own.attrs["manifest"]
        assert len(rows(one.out)) == manifest["n_after"] == (36 if "drop" in one.out.name else 48)
        if not clean:
            assert ledgers.pop((manifest["before_hash"], manifest["after_hash"])).equals(own)
        assert "of sweep sets" not in one.card.read_text() and "sweep sets" in one.card.read_text()
    assert not ledgers
    # A flipped pair has its gold margin the other way round; places in the ledger are those of the clean file.
    clean = rows(tmp_path / "sets" / "clean-labels-hard-s0.jsonl")
    assert all(row["gold_margin"] > 0 for row in clean)
    name = "flip-0.25-curate_drop-0.25-labels-hard-s0"
    ledger = pq.read_table(tmp_path / "sets" / f"{name}.ledger.parquet").to_pylist()
    expected = dict(enumerate(clean, 1))
    for line in ledger:
        row = expected[line["row"]]
        if line["action"] == "drop":
            del expected[line["row"]]
            continue
        sides = {a: row[b] for a, b in (("chosen", "rejected"), ("rejected", "chosen"))}
        scores = {f"score_{a}": row[f"score_{b}"] for a, b in (("chosen", "rejected"), ("rejected", "chosen"))}
        expected[line["row"]] = {**row, **sides, **scores, "gold_margin": -row["gold_margin"]}
    assert rows(tmp_path / "sets" / f"{name}.jsonl") == list(expected.values())


def turns(count: int = 40) -> list[dict[str, Any]]:
    return [
        {
            "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Where is thing {i}?"}],
            "chosen": [{"role": "assistant", "content": f"It is on shelf {i} over there."}],
            "rejected": [{"role": "assistant", "content": f"No idea where {i} may be."}],
            "gold_margin": 0.25 * (i + 1),
        }
        for i in range(count)
    ]


def test_conversations_stay_conversations_and_are_the_training_split(tmp_path: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in turns()), encoding="utf-8")
    noise = [{"kind": "none"}, {"kind": "uniform_flip", "rate": 0.5}, {"kind": "length_biased"}]
    spec = write(tmp_path, data={"path": str(data)}, model={"vocab_size": 300}, corruptions=noise, seeds=1)
    out = tmp_path / "sets"
    assert run(["corrupt", "--spec", str(spec), "--out", str(out)]) == 0
    first = load_sweep(spec).runs[0]
    assert first.data is not None and first.model is not None
    text = read_text(first.data, first.model, 0)
    train = [pair.meta["row"] for pair in text.train]
    assert rows(out / "clean-s0.jsonl") == [turns()[row - 1] for row in train] and 20 < len(train) < 40
    ledger = pq.read_table(out / "flip-0.5-s0.ledger.parquet").to_pylist()
    turned = {line["row"] for line in ledger}
    assert len(turned) == len(ledger) == round(len(train) / 2) and turned <= set(train)
    swapped = [
        {**row, "chosen": row["rejected"], "rejected": row["chosen"], "gold_margin": -row["gold_margin"]}
        for row in turns()
    ]
    assert rows(out / "flip-0.5-s0.jsonl") == [(swapped if row in turned else turns())[row - 1] for row in train]
    assert len(list(out.glob("length_biased*.jsonl"))) == 1
    # What stands there is kept, and nothing is written beside it.
    (out / "clean-s0.jsonl").unlink()
    before = sorted(path.name for path in out.iterdir())
    assert run(["corrupt", "--spec", str(spec), "--out", str(out)]) == 2
    assert sorted(path.name for path in out.iterdir()) == before


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--spec", "spec.yaml", "--kind", "none"], "--kind: stands in the spec"),
        (["--data", "own.jsonl"], "expected --data FILE with --kind KIND, or --spec YAML"),
        (["--data", "own.jsonl", "--kind", "none", "--parquet"], "--parquet: goes with --spec"),
        (["--spec", "absent.yaml"], "absent.yaml"),
    ],
)
def test_options_that_do_not_go_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], more: list[str], line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, world=WORLD)
    assert run(["corrupt", *more, "--out", "x.jsonl"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert line in said and not (tmp_path / "x.jsonl").exists()


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_full_disk_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], nth: int
) -> None:
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in turns()), encoding="utf-8")
    words = [
        "corrupt",
        "--data",
        str(data),
        "--kind",
        "uniform_flip",
        "--rate",
        "0.5",
        "--out",
        str(tmp_path / "n.jsonl"),
    ]
    monkeypatch.setattr(failpoints, "_armed", {"write.begin": ("full", nth)})
    monkeypatch.setattr(failpoints, "_hits", {})
    assert run(words) == 1
    assert "no room left to write" in capsys.readouterr().err and list(tmp_path.iterdir()) == [data]
    monkeypatch.setattr(failpoints, "_armed", {})
    assert run(words) == 0
    old = {path: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(failpoints, "_armed", {"write.begin": ("full", nth)})
    monkeypatch.setattr(failpoints, "_hits", {})
    assert run([*words, "--seed", "1", "--force"]) == 1
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == old
