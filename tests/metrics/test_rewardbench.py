"""RewardBench's scores against an independent computation on planted answers, and through `harness diagnose`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from harness.cli import run as command
from harness.metrics.rewardbench import SECTIONS, SUBSETS_2, bench_scores, score_1, score_2
from tests.evaluation import reward_models
from tests.models.families import write


def test_version_1_by_hand() -> None:
    """Chat: 2 of 4 easy (weight 100) and 1 of 1 hard (95); Reasoning: math 1 of 2, python 1 of 1; a tie is wrong."""
    subset = ["alpacaeval-easy"] * 4 + ["alpacaeval-hard", "math-prm", "math-prm", "hep-python"]
    good, bad = np.array([1.0, 2, 0, 1, 5, 1, 1, 0]), np.array([0.0, 1, 1, 1, 4, 0, 2, -1])
    found = score_1(subset, good, bad)
    assert found.subsets == {"alpacaeval-easy": 0.5, "alpacaeval-hard": 1.0, "math-prm": 0.5, "hep-python": 1.0}
    chat, reasoning = (0.5 * 100 + 95) / 195, (0.5 * 984 + 164) / (984 + 164)
    assert found.sections == pytest.approx({"Chat": chat, "Reasoning": reasoning})
    assert found.total == pytest.approx((chat + reasoning) / 2)
    assert found.n["alpacaeval-easy"] == 4 and "donotanswer" in found.missing and "math-prm" not in found.missing


def test_the_weights_are_the_published_sizes() -> None:
    sizes = {name: weight for part in SECTIONS.values() for name, weight in part.items()}
    assert len(sizes) == 23 and sum(sizes.values()) == 2985 + 984 - 447


def published_2(rows: list[tuple[str, str, list[float], list[float]]]) -> dict[str, float]:
    """As the authors' `reroll_and_score_dataset` and `process_single_model` compute it, from scores in lists."""
    out: dict[str, list[float]] = {}
    stats: dict[str, dict[int, tuple[bool, float, float]]] = {"ref": {}, "tied": {}}
    for part, name, right, wrong in rows:
        if part == "Ties":
            gap = min(right) - max(wrong)
            kind, number = name.split(":")
            stats[kind][int(number)] = (gap > 0, max(right) - min(right), gap)
            continue
        scores = np.array([*right, *wrong])
        out.setdefault(part, []).append(1 / np.sum(scores == scores.max()) if scores[0] == scores.max() else 0.0)
    found = {part: float(np.mean(values)) for part, values in out.items()}
    both = sorted(stats["ref"].keys() & stats["tied"].keys())
    spread, tied, ref = (np.array([stats[k][i][j] for i in both]) for k, j in (("tied", 1), ("tied", 2), ("ref", 2)))
    least = np.minimum(ref, tied)
    with np.errstate(divide="ignore", invalid="ignore"):
        margin = np.nan_to_num(np.tanh(least / spread - 1), nan=0.0)
    means = [np.mean([s[0] for s in stats[kind].values()]) for kind in ("tied", "ref")]
    found["Ties"] = float(
        0.3 * means[0] + 0.3 * means[1] + 0.2 * np.mean(tied > spread) + 0.2 * np.mean(least > spread)
        + 0.01 * np.mean(margin)
    )  # fmt: skip
    return found


@pytest.mark.parametrize("seed", range(8))
def test_version_2_equals_the_published_computation(seed: int) -> None:
    """Scores of few values, so that ties and spreads of 0 are common."""
    draw = np.random.default_rng(seed)
    value = lambda n: draw.integers(0, 4, n).astype(float).tolist()  # noqa: E731
    rows = [(part, f"{part}{i}", value(1), value(3)) for part in SUBSETS_2[:-1] for i in range(6)]
    rows += [("Ties", f"ref:{i}", value(1), value(4)) for i in range(12)]
    rows += [("Ties", f"tied:{i}", value(3), value(4)) for i in range(10)]
    pairs = [(part, name, a, b) for part, name, right, wrong in rows for a in right for b in wrong]
    part, name, good, bad = zip(*pairs, strict=True)
    found = score_2(part, name, np.array(good), np.array(bad))
    expected = published_2(rows)
    assert found.subsets == pytest.approx(expected) and found.missing == ()
    assert found.total == pytest.approx(sum(expected.values()) / 6)
    assert found.n["Ties"] == 22 and found.n["Math"] == 6


def test_other_pairs_have_no_score() -> None:
    assert bench_scores({"subset": np.array(["mine"], dtype=object)}, True) == {}
    assert bench_scores({}, False) == {}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write("llama", folder / "base", 0)
    write("llama", folder / "policy", 1)
    return folder


def diagnosed(models: Path, data: Path, version: int, out: Path) -> dict[str, object]:
    words = ["diagnose", "--policy", str(models / "policy"), "--reference", str(models / "base"), "--data", str(data)]
    assert command([*words, "--rewardbench", str(version), "--out", str(out), "--track"]) == 0
    found: dict[str, object] = json.loads((out / "diagnosis.json").read_text())["policies"][0]["rewardbench"]
    assert "RewardBench" in (out / "report.md").read_text() and "RewardBench" in (out / "index.html").read_text()
    return found


def test_diagnose_scores_version_1(models: Path, tmp_path: Path) -> None:
    rows = [
        {"prompt": f"how are you {i}", "chosen": f"yes the cat {i}", "rejected": "no", "subset": name, "id": i}
        for i, name in enumerate(["alpacaeval-easy", "alpacaeval-easy", "donotanswer", "hep-go"])
    ]
    (tmp_path / "rb.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = diagnosed(models, tmp_path / "rb.jsonl", 1, tmp_path / "out")
    assert set(found) == {"implicit", "mean log-prob", "summed log-prob"}
    one = found["implicit"]
    assert isinstance(one, dict)
    assert one["n"] == {"alpacaeval-easy": 2, "donotanswer": 1, "hep-go": 1} and set(one["sections"]) == {
        "Chat", "Safety", "Reasoning",
    }  # fmt: skip
    again = tmp_path / "again"
    assert command(["diagnose", "--logps", str(tmp_path / "out" / "pairs.parquet"), "--out", str(again)]) == 0
    assert json.loads((again / "diagnosis.json").read_text())["policies"][0]["rewardbench"] == found


def test_diagnose_scores_version_2(models: Path, tmp_path: Path) -> None:
    wrong = ["no", "not so", "maybe"]
    rows = [
        {"id": "a1", "prompt": "how is the cat", "chosen": ["yes the cat"], "rejected": wrong, "subset": "Focus"},
        {"id": "ref:1", "prompt": "how is the mat", "chosen": ["so"], "rejected": wrong, "subset": "Ties"},
        {"id": "tied:1", "prompt": "how is the dog", "chosen": ["so", "yes"], "rejected": wrong, "subset": "Ties"},
    ]
    (tmp_path / "rb2.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    one = diagnosed(models, tmp_path / "rb2.jsonl", 2, tmp_path / "out")["implicit"]
    assert isinstance(one, dict) and one["n"] == {"Focus": 1, "Ties": 2}
    assert one["missing"] == ["Factuality", "Precise IF", "Math", "Safety"]


def test_reward_models_are_scored_by_the_same_formulas(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Against transformers' own logits of each answer, counted here."""
    model = reward_models.save(tmp_path / "rm", seed=4)
    names = ["alpacaeval-easy", "alpacaeval-easy", "donotanswer", "hep-go", "hep-go"]
    first = [
        {"prompt": f"how are you {i}", "chosen": f"yes the cat {i}", "rejected": f"no {i}", "subset": name, "id": i}
        for i, name in enumerate(names)
    ]
    wrong = ["no", "not so", "maybe"]
    second = [
        {"id": f"a{i}", "prompt": f"how is cat {i}", "chosen": ["yes"], "rejected": wrong, "subset": part}
        for i, part in enumerate(("Focus", "Focus", "Math"))
    ] + [
        {"id": "ref:1", "prompt": "how is the mat", "chosen": ["so"], "rejected": wrong, "subset": "Ties"},
        {"id": "tied:1", "prompt": "how is the dog", "chosen": ["so", "yes"], "rejected": wrong, "subset": "Ties"},
    ]
    found = []
    for version, rows in ((1, first), (2, second)):
        path = tmp_path / f"rb{version}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        words = ["gold", "--data", str(path), "--rewardbench", str(version), "--reward-model", str(model)]
        words += ["--cache", str(tmp_path / "cache")]
        assert command([*words, "--device", "cpu", "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out)["rm"])
        assert command([*words, "--device", "cpu"]) == 0
        assert f"rm: RewardBench{' 2' * (version == 2)} {100 * found[-1]['total']:.1f}" in capsys.readouterr().out
    scores = scored_by_transformers(model)
    right = [scores(row["prompt"], row["chosen"]) > scores(row["prompt"], row["rejected"]) for row in first]
    expected = {
        "alpacaeval-easy": (right[0] + right[1]) / 2,
        "donotanswer": float(right[2]),
        "hep-go": sum(right[3:]) / 2,
    }
    assert found[0]["subsets"] == pytest.approx(expected) and len(set(expected.values())) > 1
    assert found[0]["total"] == pytest.approx(sum(expected.values()) / 3) and "hep-js" in found[0]["missing"]
    asked = [
        (
            row["subset"],
            row["id"],
            *([scores(row["prompt"], text) for text in row[side]] for side in ("chosen", "rejected")),
        )
        for row in second
    ]
    assert found[1]["subsets"] == pytest.approx(published_2(asked), abs=1e-6)
    assert (
        command(["gold", "--data", str(tmp_path / "rb1.jsonl"), "--rewardbench", "2", "--reward-model", str(model)])
        == 2
    )
    assert command(["gold", "--data", str(tmp_path / "rb1.jsonl"), "--reward-model", str(model)]) == 2


def scored_by_transformers(folder: Path) -> Callable[[str, str], float]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()

    @torch.no_grad()
    def score(prompt: str, answer: str) -> float:
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        text = tokenizer.apply_chat_template(turns, tokenize=False)
        return float(model(**tokenizer(text, add_special_tokens=False, return_tensors="pt")).logits[0, 0])

    return score
