"""Every verb under bad input, in one process without torch: exit code 0, 1 (damage) or 2, lines, never a traceback.

The table of specs is that of `test_bad_input`; here it goes through the command line, with what only verbs can meet.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_bad_input import BASE, ONE_PROBLEM, PAIR

ROOT = Path(__file__).parents[1]

# What stands in the folder that the verbs meet, by its name.
FOLDERS = {
    "empty": {},
    "cut": {"plan.json": '{"name": "cut", "runs": ['},
    "list": {"plan.json": "[1, 2]"},
    "number": {"plan.json": "7"},
    "bare": {"plan.json": "{}"},
    "norun": {"plan.json": '{"name": "norun", "question": "", "notes": [], "runs": []}'},
    "odd": {"plan.json": '{"name": "odd", "question": "", "notes": [], "runs": [5]}'},
    "keyless": {"plan.json": '{"name": "k", "question": "", "notes": [], "runs": [{"name": "x"}]}'},
    "bytes": {"plan.json": b"\xff\xfe\x00bad"},
    "deep": {"plan.json": "[" * 100_000},
}
VERBS = (["status"], ["status", "--json"], ["report"], ["verify"], ["sync"], ["clean"])
# (arguments, exit code, a fragment of the message); {odd} folders are made by the test.
USAGE = (
    (["plan"], 2, "SPEC"),
    (["plan", "absent.yaml"], 2, "absent.yaml: no such file"),
    (["plan", "."], 2, "is a directory"),
    (["plan", "good.yaml", "--set", "seeds"], 2, "expected key=value"),
    (["plan", "good.yaml", "--set", "seedz=2"], 2, "did you mean 'seeds'?"),
    (["plan", "good.yaml", "--set", "seeds=0"], 2, "a count from 1"),
    (["plan", "good.yaml", "--set", "seeds=1000000000"], 2, "--max-runs"),
    (["plan", "good.yaml", "--max-runs", "0"], 2, "--max-runs"),
    (["plan", "good.yaml", "--max-runs", "many"], 2, "--max-runs"),
    (["plan", "good.yaml", "--json", "--json"], 2, "given twice"),
    (["plan", "good.yaml", "extra"], 2, "extra"),
    (["sweep", "good.yaml", "--out", "p.jsonl"], 2, "is a file"),
    (["sweep", "good.yaml", "--out", "p.jsonl/deeper"], 2, "is a file"),
    (["sweep", "good.yaml", "--workers", "0"], 2, "--workers"),
    (["sweep", "good.yaml", "--workers", "-1"], 2, "--workers"),
    (["sweep", "good.yaml", "--workers", "1.5"], 2, "--workers"),
    (["sweep", "good.yaml", "--engine", "cloud"], 2, "--engine"),
    (["sweep", "good.yaml", "--checkpoint-every", "-1"], 2, "--checkpoint-every"),
    (["sweep", "good.yaml", "--allow-pickle"], 2, "No such option"),
    (["sweep", "good.yaml", "--trust-remote-code"], 2, "No such option"),
    (["study", "good.yaml"], 2, "targets"),
    (["study", "absent.yaml"], 2, "no such file"),
    (["status"], 2, "FOLDER"),
    (["report", "absent"], 2, "no such folder"),
    (["verify", "absent"], 2, "no such folder"),
    (["clean", "absent"], 2, "no such folder"),
    (["sync", "absent"], 2, "no such folder"),
    (["dashboard", "--out", "absent"], 2, "no such folder"),
    (["dashboard", "--out", "empty"], 2, "mlflow.db"),
    (["dashboard", "--study", "empty"], 2, "empty"),
    (["list"], 2, "objectives|corruptions|metrics"),
    (["list", "models"], 2, "models"),
    (["frobnicate"], 2, "No such command"),
    (["\u202e\x1b[31m"], 2, "No such command"),
    (["plan", "\u202eabsent\x07.yaml"], 2, r"\u202eabsent\x07.yaml"),
)

SCRIPT = """
import contextlib, io, json, sys
from harness.cli import run

out = []
for arguments in json.load(sys.stdin):
    told, said = io.StringIO(), io.StringIO()
    trouble = ""
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(said):
        try:
            code = run(arguments)
        except BaseException as error:
            code, trouble = -1, repr(error)
    out.append([code, told.getvalue(), said.getvalue(), trouble, "torch" in sys.modules])
json.dump(out, sys.stdout)
"""


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory) -> dict[str, list]:
    """What the command line said to every case, all in one process; by the case's arguments as JSON."""
    place = tmp_path_factory.mktemp("bad")
    (place / "p.jsonl").write_text(PAIR, encoding="utf-8")
    (place / "bad.jsonl.gz").write_bytes(b"\x1f\x8b\x08\x00rubbish")
    (place / "good.yaml").write_text(BASE)
    for name, files in FOLDERS.items():
        (place / name).mkdir()
        for file, content in files.items():
            (place / name / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    for number, (text, _, _) in enumerate(ONE_PROBLEM):
        (place / f"{number}.yaml").write_text(text, encoding="utf-8")
    cases = [["plan", f"{number}.yaml"] for number in range(len(ONE_PROBLEM))]
    cases += [[verb[0], name, *verb[1:]] for verb in VERBS for name in FOLDERS]
    cases += [arguments for arguments, _, _ in USAGE]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(place), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=json.dumps(cases), capture_output=True, text=True, cwd=place, timeout=240,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(zip(map(json.dumps, cases), json.loads(done.stdout), strict=True))


def test_there_are_enough_cases(verdicts):
    assert len(verdicts) >= 250


def test_no_case_raises_or_loads_torch(verdicts):
    for case, (code, told, _, trouble, torch) in verdicts.items():
        assert trouble == "" and code in (0, 1, 2), (case, trouble)
        assert "Traceback" not in told and not torch, case


def test_specs_exit_2_with_one_line_that_names_the_key(verdicts):
    for number, (_, key, _) in enumerate(ONE_PROBLEM):
        code, told, said, *_ = verdicts[json.dumps(["plan", f"{number}.yaml"])]
        assert (code, said, len(told.splitlines())) == (2, "", 1), told
        assert f" {key}: " in told


NAMES = [" ".join(arguments).encode("unicode_escape").decode() for arguments, _, _ in USAGE]


@pytest.mark.parametrize(("arguments", "code", "fragment"), USAGE, ids=NAMES)
def test_usage(verdicts, arguments, code, fragment):
    got, told, said, *_ = verdicts[json.dumps(arguments)]
    assert got == code and fragment in told and said == "", told


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
@pytest.mark.parametrize("name", FOLDERS)
def test_folders_that_hold_no_whole_sweep(verdicts, verb, name):
    """A line that names the file and what to do; to `verify` a plan that is no plan is damage."""
    code, told, said, *_ = verdicts[json.dumps([verb[0], name, *verb[1:]])]
    assert code == (1 if verb == ["verify"] and name != "empty" else 2), told
    assert "plan.json" in told + said and len((told + said).splitlines()) == 1
