"""docs/paper.md typed as it stands: tiny models and a few pairs in the places that its hub ids and its file name."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.cli import run as command
from harness.diagnose import scoring
from tests.models.families import write

PAGE = (Path(__file__).parents[1] / "docs" / "paper.md").read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(line)
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
]
DIAGNOSES = [words for words in COMMANDS if words[:2] == ["harness", "diagnose"]]


def pairs(path: Path) -> None:
    """Rows in the form of princeton-nlp/llama3-ultrafeedback-armorm."""
    rows = []
    for n in range(12):
        texts = [f"yes! cat {n} sat on the mat", f"no. a dog {n}", f"maybe {n}"]
        prompt = f"how is cat {n // 2}?"
        rows.append(
            {
                "prompt_id": f"id-{n // 2}",
                "prompt": prompt,
                "all_generated_responses": texts,
                "all_rm_scores": [0.3, 0.1, 0.2],
                **{
                    side: [{"role": "user", "content": prompt}, {"role": "assistant", "content": text}]
                    for side, text in (("chosen", texts[0]), ("rejected", texts[1]))
                },
            }
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def option(words: list[str], name: str) -> list[str]:
    return [after for word, after in pairwise(words) if word == name]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    named = {word for words in DIAGNOSES for name in ("--reference", "--policy") for word in option(words, name)}
    for seed, place in enumerate(sorted(named)):
        write("llama", tmp_path / place, seed)
    for words in DIAGNOSES:
        [data] = option(words, "--data")
        pairs(tmp_path / data)
    return tmp_path


def test_every_command_of_the_page_works(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [words[:2] for words in COMMANDS] == [["hf", "download"], *[["harness", "diagnose"]] * len(DIAGNOSES)]
    hub = Path(sys.executable).with_name("hf")
    told = subprocess.run([hub, "download", "--help"], capture_output=True, text=True, check=True).stdout
    assert all(word in told for word in COMMANDS[0] if word.startswith("--"))
    ids = {word for line in PAGE.splitlines() if line.startswith("| `") for word in re.findall(r"^\| `(.*?)`", line)}
    for words in DIAGNOSES:
        assert {*option(words, "--policy"), *option(words, "--reference")} <= ids
        assert command([word.replace("cuda", "cpu") for word in words[1:]]) == 0
    # What the page says of a repeated call: another beta scores nothing again.
    monkeypatch.setattr(scoring, "score_responses", None)
    again = [word.replace("cuda", "cpu") for word in DIAGNOSES[0][1:]]
    again[again.index("--beta") + 1] = "0.5"
    assert command(again) == 0


def test_the_facts_stand_where_the_page_says(here: Path) -> None:
    words = [word.replace("cuda", "cpu") for word in DIAGNOSES[0][1:]]
    assert command(words) == 0
    found: dict[str, Any] = json.loads((here / "paper" / "diagnosis.json").read_text())
    assert [one["name"] for one in found["policies"]] == option(words, "--policy")
    for policy in found["policies"]:
        for measure in ("reference_ranking_accuracy", "undesirable_zone", "ranking_accuracy", "reward_accuracy"):
            assert measure in PAGE and set(policy[measure]) == {"estimate", "low", "high"}
    assert "undesirable_zone" in {one["measure"] for one in found["comparisons"]}
    assert len(list((here / "paper" / "scores").iterdir())) == 4
