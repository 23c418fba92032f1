"""docs/first-hour.md typed from top to bottom: every command of the page works on the files that it names."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.commands import harness
from tests.models.families import write
from tests.test_walks import own  # noqa: F401 - a fixture

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "first-hour.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("harness ")
]
TINY = (
    *("--set", "seeds=1", "--set", "training.steps=3", "--set", "data.max_length=40", "--set", "device=cpu"),
    *("--set", "data.max_prompt_length=20", "--set", "corruptions=[{kind: none}, {kind: uniform_flip, rate: 0.4}]"),
    *("--set", "objectives=[{name: dpo, beta: 0.1}, {name: ipo, beta: 0.1}]"),
    *("--set", "evaluation={checkpoints: 2, heldout: 16, probe: 16, samples: 4}"),
)
# The same commands at a size that a test can afford.
SMALL = {
    "audit": ("--folds", "2", "--max-length", "40"),
    "plan": TINY,
    "sweep": TINY,
    "diagnose": ("--max-length", "40"),
}


def typed(folder: Path, *words: str) -> str:
    with contextlib.chdir(folder):
        done = harness(*words, *SMALL.get(words[0], ()))
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.usefixtures("own")
def test_every_command_of_the_first_hour_works(tmp_path: Path) -> None:
    (tmp_path / "model").rename(tmp_path / "base")
    shutil.copy(tmp_path / "prefs.jsonl", tmp_path / "heldout.jsonl")
    write("llama", tmp_path / "out" / "checkpoint-500")
    verbs = []
    for line in COMMANDS:
        words = shlex.split(line)[1:]
        verbs.append(words[0])
        if words[0] == "compare":  # a second sweep stands for the larger model
            larger = (tmp_path / "mine.yaml").read_text(encoding="utf-8").replace("name: mine", "name: larger", 1)
            (tmp_path / "larger.yaml").write_text(larger, encoding="utf-8")
            typed(tmp_path, "sweep", "larger.yaml")
        runs = sorted(path for path in (tmp_path / "runs" / "mine").glob("*dpo*") if path.is_dir())
        typed(tmp_path, *(word.replace("runs/mine/RUN", str(runs[0])) if runs else word for word in words))
    assert verbs == [
        *("doctor", "audit", "diagnose", "init", "plan", "sweep", "status", "export", "diagnose", "compare")
    ]
    for page in ("audit", "diagnosis", "runs/mine/report", "chosen-diagnosis", "comparison"):
        assert (tmp_path / page / "index.html").is_file(), page
