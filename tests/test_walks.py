"""The three first walks, typed as a newcomer would from the README: a noise question, an own model, a contribution.

The third, adding to the registries, is `test_recipes.py`. Sizes are cut by `--set`, as the README says one can.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.commands import harness
from tests.models.families import write

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SMALL = (
    *("--set", "seeds=2", "--set", "world.misaligned=0.5", "--set", "world.pretrain_steps=60"),
    *("--set", "world.sft_steps=20", "--set", "world.pairs=128", "--set", "training.steps=20"),
    *("--set", "evaluation={checkpoints: 3, heldout: 64, probe: 64, ood: 16, samples: 16}"),
    *("--set", "corruptions=[{kind: none}, {kind: uniform_flip, rate: 0.4}]"),
)


def typed(folder: Path, *words: object, code: int = 0) -> str:
    """What a command typed in `folder` prints."""
    with contextlib.chdir(folder):
        done = harness(*words)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def started(folder: Path, *words: object) -> None:
    """The same as a program of its own, whose workers are processes."""
    done = subprocess.run(
        [sys.executable, "-m", "harness", *map(str, words)], cwd=folder, capture_output=True, text=True, timeout=600,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_researcher_with_a_noise_question_and_a_laptop(tmp_path: Path) -> None:
    spec = README.split("```yaml\n")[1].split("```")[0]
    (tmp_path / "my-noise.yaml").write_text(spec, encoding="utf-8")
    assert "400 runs" in (plan := typed(tmp_path, "plan", "my-noise.yaml")) or "runs      400" in plan
    said = typed(tmp_path, "sweep", "my-noise.yaml", *SMALL)
    page = tmp_path / "runs" / "my-noise" / "report" / "index.html"
    assert str(page.relative_to(tmp_path)) in said and page.exists()
    results = pd.read_csv(tmp_path / "runs" / "my-noise" / "results.csv")
    assert set(results.status) == {"done"} and set(results.objective) == {"dpo", "robust_dpo", "cpo_smooth"}
    words = page.with_name("report.md").read_text(encoding="utf-8")
    assert "Up to which flip rate" in words and "2 seeds" in words, "the question, and that two seeds show nothing"
    again = typed(tmp_path, "sweep", "my-noise.yaml", *SMALL)
    assert f"{len(results)} already done" in again
    assert "done" in typed(tmp_path, "status", "runs/my-noise") and "ok" in typed(tmp_path, "verify", "runs/my-noise")
    assert "did you mean 'beta'" in typed(tmp_path, "plan", "my-noise.yaml", "--set", "objectives.0.bet=1", code=2)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with a model, as `save_pretrained` leaves it, and a file of pairs."""
    write("llama", tmp_path / "model")
    draw = random.Random(0)
    words = "the cat sat on a mat dog is not yes no maybe so user how are you today it".split()  # noqa: SIM905

    def text(low: int, high: int) -> str:
        return " ".join(draw.choice(words) for _ in range(draw.randint(low, high)))

    rows = [{"prompt": text(3, 6), "chosen": text(3, 6) + " yes", "rejected": text(3, 6) + " no"} for _ in range(80)]
    (tmp_path / "prefs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return tmp_path


def test_an_engineer_with_a_model_and_a_file_of_pairs(own: Path) -> None:
    typed(own, "init", "mine.yaml", "--data", "prefs.jsonl", "--model", "model")
    small = (
        *("--set", "seeds=1", "--set", "training.steps=4", "--set", "data.max_length=40", "--set", "device=cpu"),
        *("--set", "data.max_prompt_length=20", "--set", "corruptions=[{kind: uniform_flip, rate: 0.4}]"),
        *("--set", "objectives=[{name: dpo, beta: 0.1}, {name: ipo, beta: 0.1}]"),
        *("--set", "evaluation={checkpoints: 2, heldout: 16, probe: 16, samples: 4}"),
    )
    told = typed(own, "plan", "mine.yaml", "--preflight", *small)
    assert re.search(r"runs\s+2 ", told), told
    started(own, "sweep", "mine.yaml", *small)
    results = pd.read_csv(own / "runs" / "mine" / "results.csv")
    assert set(results.status) == {"done"} and len(results) == 2
    [run] = (path for path in (own / "runs" / "mine").glob("*dpo*") if path.is_dir())
    typed(own, "export", run, "--to", "exported")
    assert (own / "exported" / "adapter_config.json").exists() and (own / "exported" / "README.md").exists()
    typed(own, "eval", run)
    told = typed(own, "eval", run, "--json")  # what was evaluated already is printed at once
    numbers = json.loads(told[told.index("{") : told.rindex("}") + 1])
    assert 0 <= numbers["lm_eval/preference/acc"] <= 1
