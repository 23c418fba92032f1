"""A second call into one `--out`: it goes on from the scores that are there, and no other diagnosis is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.cli import run as command
from harness.diagnose import scoring
from harness.diagnose.run import run
from harness.storage.logps_file import read_logps, write_logps
from harness.types import InputError
from tests.diagnose.test_diagnose_models import asked, quiet, write_pairs
from tests.models.families import write


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("base", "checkpoint-10", "checkpoint-200")):
        write("llama", folder / name, seed)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("data") / "pairs.jsonl", "kind")


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pairs each call of the scorer was given."""
    own, calls = scoring.score_responses, []

    def counted(architecture: Any, weights: Any, pairs: Any, device: Any, ladder: bool) -> Any:
        calls.append(len(pairs))
        return own(architecture, weights, pairs, device, ladder)

    monkeypatch.setattr(scoring, "score_responses", counted)
    return calls


def test_another_diagnosis_is_refused_before_anything_is_scored(
    models: Path, data: Path, tmp_path: Path, scored: list[int]
) -> None:
    out, other = tmp_path / "out", {"policies": [str(models / "checkpoint-200")]}
    run(asked(out, data, models), quiet)
    before, first = (out / "pairs.parquet").read_bytes(), len(scored)
    for more in (
        other,
        {"reference": str(models / "checkpoint-200")},
        {"reference": "none"},
        {"tokens": "cpo"},
        {"limit": 8},
        {"dtype": "bfloat16"},
    ):
        with pytest.raises(
            InputError, match=r"--out .*: holds the diagnosis of other .* add --force to replace it"
        ) as e:
            run(asked(out, data, models, **more), quiet)
        assert len(e.value.problems) == 1
    assert (out / "pairs.parquet").read_bytes() == before and len(scored) == first
    run(asked(out, data, models, **other, force=True), quiet)
    assert scored[first:] == [24]  # the reference's scores are there
    run(asked(out, data, models, force=True), quiet)
    assert scored[first:] == [24]  # and so are those of the first policy
    assert (out / "pairs.parquet").read_bytes() == before


def test_one_that_holds_as_much_replaces_it(models: Path, data: Path, tmp_path: Path, scored: list[int]) -> None:
    """More pairs, more policies, another beta: nothing is lost, and what is scored is not scored again."""
    run(asked(tmp_path, data, models, limit=8), quiet)
    run(asked(tmp_path, data, models), quiet)
    both = [str(models / "checkpoint-10"), str(models / "checkpoint-200")]
    run(asked(tmp_path, data, models, policies=both), quiet)
    assert scored == [8, 8, 16, 16, 24]
    found = run(asked(tmp_path, data, models, policies=both, beta=1.0, slices=["length"]), quiet)
    assert len(scored) == 5 and len(found.policies) == 2


def test_a_log_of_a_training_run_may_grow_and_is_never_lost(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def log(name: str, steps: int, shift: float = 0.0) -> Path:
        n = 20 * steps
        columns: dict[str, Any] = {
            "id": [f"p{i % 20}" for i in range(n)],
            "prompt_id": [f"q{i % 20}" for i in range(n)],
            "chosen_len": [4] * n,
            "rejected_len": [5] * n,
            "step": [10 * (i // 20) for i in range(n)],
        }
        for at, side in enumerate(("policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected")):
            columns[side] = -20 + 0.1 * ((np.arange(n) * (at + 3)) % 17) + shift * (at < 2)
        write_logps(tmp_path / name, columns)
        return tmp_path / name

    def diagnosed(path: Path, *more: str) -> int:
        return command(["diagnose", "--logps", str(path), "--out", str(out), "--beta", "0.1", *more])

    assert diagnosed(log("run.parquet", 2)) == 0
    assert diagnosed(log("run.parquet", 3)) == 0
    assert set(read_logps(out / "pairs.parquet").columns["step"].tolist()) == {0, 10, 20}
    assert diagnosed(out / "pairs.parquet") == 0
    before = (out / "pairs.parquet").read_bytes()
    assert diagnosed(log("other.parquet", 3, shift=0.5)) == 2
    assert (out / "pairs.parquet").read_bytes() == before
    assert diagnosed(tmp_path / "other.parquet", "--force") == 0


def test_two_calls_at_once_keep_each_others_scores(
    models: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = scoring.score_responses

    def beside(architecture: Any, weights: Any, pairs: Any, device: Any, ladder: bool) -> Any:
        for path in (tmp_path / "scores").glob("*.parquet"):
            scoring._write_scores(path, {**scoring._read_scores(path), "of the other call": -1.0})
        return own(architecture, weights, pairs, device, ladder)

    monkeypatch.setattr(scoring, "BLOCK", 8)
    monkeypatch.setattr(scoring, "SAVED", 0.0)
    monkeypatch.setattr(scoring, "score_responses", beside)
    run(asked(tmp_path, data, models), quiet)
    for path in (tmp_path / "scores").glob("*.parquet"):
        assert "of the other call" in scoring._read_scores(path)


def test_pages_and_figures_of_something_else_stay(
    models: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "figures").mkdir()
    mine = tmp_path / "figures" / "mine.svg"
    mine.write_text("<svg/>")
    models_of = ["--policy", str(models / "checkpoint-10"), "--reference", str(models / "base"), "--device", "cpu"]
    for words in (["diagnose", *models_of], ["audit", "--force", "--device", "cpu"]):
        assert command([*words, "--data", str(data), "--out", str(tmp_path)]) == 2
        assert "figures/mine.svg is there and no " in capsys.readouterr().err
    assert mine.read_text() == "<svg/>" and not (tmp_path / "index.html").exists()
