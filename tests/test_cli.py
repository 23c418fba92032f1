"""The command line: what it prints, what it exits with, and what it does not import."""

import importlib
import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

from harness.cli import run

ROOT = Path(__file__).parents[1]
QUICK = str(ROOT / "experiments" / "quick.yaml")
SMOKE = str(ROOT / "experiments" / "smoke.yaml")
HEAVY = "{'torch', 'mlflow', 'pandas', 'transformers', 'optuna', 'matplotlib'}"


def command(*arguments, **options):
    options = {"capture_output": True, "text": True, "encoding": "utf-8", "timeout": 60, **options}
    return subprocess.run([sys.executable, "-m", "harness", *arguments], cwd=ROOT, **options)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["plan", "--help"], 0),
        (["plan", QUICK, "--out", "no-such-runs"], 0),
        (["plan", QUICK, "--set", "objectives.0.bet=1"], 2),
        (["sweep", "absent.yaml"], 2),
        (["list", "objectives"], 0),
        (["list", "corruptions", "--json"], 0),
        (["list", "metrics"], 0),
    ],
)
def test_light_commands_import_no_heavy_library(arguments, code):
    script = (
        "import sys; from harness.cli import run; code = run(sys.argv[1:]);"
        f"heavy = sorted({HEAVY} & set(sys.modules)); print(heavy, file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == code, done.stderr
    assert done.stderr.splitlines()[-1] == "[]"


def test_help_loads_neither_pydantic_nor_yaml():
    script = "import sys, harness.cli; print(sorted({'pydantic', 'yaml', 'numpy', 'rich'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_lists_the_verbs(capsys):
    assert run(["--help"]) == 0
    out = capsys.readouterr().out
    for verb in ("plan", "sweep", "status", "report", "dashboard", "list", "sync", "verify"):
        assert f"\n  {verb} " in out


def test_plan(capsys, tmp_path):
    assert run(["plan", QUICK, "--out", str(tmp_path)]) == 0
    assert "480 (0 done, 480 to do)" in capsys.readouterr().out
    assert run(["plan", QUICK, "--json", "--set", "seeds=1", "--out", str(tmp_path)]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["runs"] == len(plan["run_keys"]) == 80
    assert not list(tmp_path.iterdir())


def test_plan_takes_max_runs(capsys, tmp_path):
    out = ["--out", str(tmp_path)]
    assert run(["plan", SMOKE, "--max-runs", "4", *out]) == 2
    assert "the grid has 5 runs, more than --max-runs 4" in capsys.readouterr().err
    assert run(["plan", SMOKE, "--set", "seeds=2001", *out]) == 2
    assert run(["plan", SMOKE, "--set", "seeds=2001", "--max-runs", "10005", *out]) == 0


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["plan"], "Missing argument 'SPEC'"),
        (["plan", SMOKE, "--frob"], "No such option: --frob"),
        (["plan", SMOKE, "--out"], "requires an argument"),
        (["plan", SMOKE, "--out", "a", "--out", "b"], "--out: given twice"),
        (["plan", SMOKE, "--json", "--json"], "--json: given twice"),
        (["plan", SMOKE, "--max-runs", "0"], "--max-runs"),
        (["sweep", SMOKE, "--workers", "0"], "--workers"),
        (["sweep", SMOKE, "--workers", "two"], "--workers"),
        (["list", "nonsense"], "nonsense"),
        (["status", "absent"], "absent: no such folder"),
        (["report", "absent"], "no such folder"),
        (["verify", "absent"], "no such folder"),
        (["sync", "absent"], "no such folder"),
        (["dashboard", "--out", "absent"], "no such folder"),
    ],
)
def test_usage_errors_exit_2(capsys, monkeypatch, tmp_path, arguments, fragment):
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert fragment in err and "Traceback" not in err and out == ""
    assert not list(tmp_path.iterdir())


def test_out_that_is_a_file(capsys, tmp_path):
    (tmp_path / "taken").write_text("x")
    assert run(["sweep", SMOKE, "--out", str(tmp_path / "taken" / "runs")]) == 2
    assert "is a file; expected a folder" in capsys.readouterr().err


def test_list_objectives(capsys):
    assert run(["list", "objectives", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert {"dpo", "ipo", "robust_dpo", "simpo", "hypo", "cpo_smooth"} <= set(rows)
    assert "nll" not in rows
    assert rows["dpo"]["parameters"]["beta"]["default"] == 0.1
    assert run(["list", "objectives"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines if line[0] != " "} == {"name", *rows}
    assert max(map(len, lines)) <= 120


def test_list_one_family_and_one_row(capsys):
    assert run(["list", "objectives", "--family", "token"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("tdpo") for line in lines) and not any(line.startswith("dpo ") for line in lines)
    assert run(["list", "objectives", "dpo"]) == 0
    assert "beta: 0.1" in capsys.readouterr().out
    assert run(["list", "objectives", "dpoo"]) == 2
    wrong = capsys.readouterr().err
    assert wrong == "unknown objective 'dpoo'; did you mean 'dpo'?\n"
    assert run(["list", "objectives", "--family", "tokens"]) == 2
    assert "expected one of batch, pair, rl, token" in capsys.readouterr().err


def test_version(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("preference-harness ")


def test_status_leaves_out_what_there_is_not(capsys, monkeypatch, tmp_path):
    facts = {"sweep": "x", "folder": str(tmp_path), "runs": 1, "states": {"done": 1}, "running": None, "failed": []}
    api = importlib.import_module("harness.api")
    monkeypatch.setattr(api, "status", lambda folder: types.SimpleNamespace(facts=facts))
    assert run(["status", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "done 1" in out and "None" not in out and "failed" not in out


@pytest.mark.parametrize(("what", "name"), [("corruptions", "uniform_flip"), ("metrics", "ranking_accuracy")])
def test_list_others(capsys, what, name):
    assert run(["list", what, "--json"]) == 0
    assert name in {row["name"] for row in json.loads(capsys.readouterr().out)}
    assert run(["list", what]) == 0
    assert f"{name} " in capsys.readouterr().out


def test_verify_prints_what_is_damaged(capsys, monkeypatch, tmp_path):
    checks = importlib.import_module("harness.sweep.verify")
    monkeypatch.setattr(checks, "check", lambda folder: (["abc examples.parquet: differs"], []))
    assert run(["verify", str(tmp_path)]) == 1
    assert capsys.readouterr().out == "abc examples.parquet: differs\n"
    monkeypatch.setattr(checks, "check", lambda folder: ([], ["incomplete: 1 of 2"]))
    assert run(["verify", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "ok: all files match their checksums\nincomplete: 1 of 2\n"


def test_sweep_hands_on_and_returns_the_exit_code(capsys, monkeypatch, tmp_path):
    module = importlib.import_module("harness.sweep.run")
    seen = []
    monkeypatch.setattr(module, "run_sweep", lambda *arguments, **options: seen.append(arguments) or 1)
    assert run(["sweep", SMOKE, "--out", str(tmp_path), "--set", "seeds=2", "--workers", "1"]) == 1
    ((loaded, out, workers),) = seen
    assert (len(loaded.runs), out, workers) == (10, tmp_path, 1)
    monkeypatch.setattr(module, "run_sweep", lambda *arguments, **options: (_ for _ in ()).throw(KeyboardInterrupt))
    assert run(["sweep", SMOKE, "--out", str(tmp_path)]) == 130


def test_messages_survive_a_plain_c_locale(tmp_path):
    spec = tmp_path / "s.yaml"
    spec.write_text("name: t\nquestion: größer?\nworld: {}\nobjectives: [{name: dpo}]\n", encoding="utf-8")
    environment = {"LANG": "C", "LC_ALL": "C", "PATH": "/usr/bin", "PYTHONPATH": str(ROOT), "PYTHONUTF8": "0"}
    done = command("plan", str(spec), "--out", str(tmp_path), env=environment)
    assert done.returncode == 0 and "größer?" in done.stdout


def test_a_closed_pipe_is_quiet(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", "plan", QUICK, "--json", "--out", str(tmp_path)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=60) == 0
