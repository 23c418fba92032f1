"""The verbs as functions: typed results, exceptions in place of exit codes, the same files as the command line's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness import InputError, corrupt_file, diagnose, plan, report, status, sweep
from tests.commands import harness as command
from tests.diagnose.planted_logps import columns, margins, written
from tests.sweep.test_end_to_end import TINY, write

ROOT = Path(__file__).parents[1]
SMALL = {**TINY, "objectives": [{"name": "dpo", "beta": 1}], "seeds": 1, "world": {**TINY["world"], "misaligned": 0.5}}
# A notebook's cells one after another, the last expression of each shown as a notebook would.
RUN_CELLS = """
import ast, json, sys
import matplotlib
matplotlib.use("agg")
names = {"__name__": "__main__"}
for cell in json.load(open(sys.argv[1]))["cells"]:
    if cell["cell_type"] == "code":
        body = ast.parse("".join(cell["source"])).body
        last = body.pop() if isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), "cell", "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
            if value is not None:
                print(getattr(value, "_repr_svg_", lambda: repr(value))())
"""


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("api")
    write(root, SMALL)
    result = sweep(root / "spec.yaml", out=root / "python", engine="inline", quiet=True)
    assert result.ok and result.name == "tiny" and result.folder == root / "python" / "tiny"
    return root


def test_python_and_the_command_line_write_the_same(swept: Path) -> None:
    done = command("sweep", swept / "spec.yaml", "--out", swept / "shell")
    assert done.returncode == 0, done.stdout + done.stderr
    for file in ("results.csv", "sweep.yaml", "report/cells.csv", "report/contrasts.csv"):
        first, second = (swept / place / "tiny" / file for place in ("python", "shell"))
        assert first.read_bytes() == second.read_bytes(), file


def test_results_are_typed_and_print_what_the_command_prints(swept: Path) -> None:
    spec, folder = swept / "spec.yaml", swept / "python" / "tiny"
    found = plan(spec, out=swept / "python", overrides={"training.learning_rate": 1e-5, "seeds": [0, 1]})
    assert (found.runs, found.done, found.to_do) == (4, 0, 4) and len(found.run_keys) == 4 and found.fit
    printed = command(
        "plan", spec, "--out", swept / "python", "--set", "training.learning_rate=1.0e-5", "--set", "seeds=2"
    )
    assert printed.stdout == f"{found}\n" and json.loads(json.dumps(dict(found.facts)))["name"] == found.name
    now = status(folder)
    assert now.states["done"] == now.runs == 2 and now.running is None and repr(now) == "tiny: 2 done"
    written = report(str(folder), texts="none")
    assert written.page == folder / "report" / "index.html" and str(written) == str(written.page)
    assert written.figures and all(figure._repr_svg_().startswith("<") for figure in written.figures.values())
    assert 'href="' in written._repr_html_()


def test_a_result_leads_to_its_tables_and_report(swept: Path) -> None:
    again = sweep(swept / "spec.yaml", out=swept / "python", engine="inline", quiet=True)
    assert again.ok and list(again.tables.runs.status) == ["done", "done"]
    assert repr(again) == f"tiny: 2 done\nreport {again.folder / 'report' / 'index.html'}"


def test_a_diagnosis_is_what_the_command_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stuck = written(tmp_path / "logps.parquet", columns(margins(0.6), 1.0), beta=10.0)
    found = diagnose(logps=stuck, out=tmp_path / "python", quiet=True)
    assert capsys.readouterr().err == "" and list(found.verdicts.values()) == ["premature_convergence"]
    done = command("diagnose", "--logps", stuck, "--out", tmp_path / "shell")
    assert done.returncode == 0, done.stderr
    for file in ("diagnosis.json", "index.html"):
        assert (tmp_path / "python" / file).read_bytes() == (tmp_path / "shell" / file).read_bytes()
    assert done.stdout == f"{found!r}\n".replace(str(tmp_path / "python"), str(tmp_path / "shell"))
    assert found.facts == json.loads((tmp_path / "python" / "diagnosis.json").read_text("utf-8"))
    assert "margins" in found.report.figures and found._repr_html_().startswith("<p>policy: ")
    with pytest.raises(InputError, match="--data with --policy, or --logps"):
        diagnose(out=tmp_path / "nothing")


def test_a_file_is_corrupted_as_by_the_command(tmp_path: Path) -> None:
    rows = [{"prompt": f"Question {i}?", "chosen": f"yes {i}", "rejected": f"no {i}"} for i in range(20)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    parts = {"kind": "uniform_flip", "rate": 0.25, "seed": 3, "overrides": {"data.limit": 12}}
    done = corrupt_file(tmp_path / "pairs.jsonl", tmp_path / "python.jsonl", **parts)
    words = ("--kind", "uniform_flip", "--rate", 0.25, "--seed", 3, "--set", "data.limit=12")
    shell = command("corrupt", "--data", tmp_path / "pairs.jsonl", *words, "--out", tmp_path / "shell.jsonl")
    assert shell.returncode == 0, shell.stderr
    assert shell.stdout == f"{done}\n".replace("python.", "shell.")
    assert (done.pairs, done.touched) == (12, 3) and done.ledger.is_file() and done.card.is_file()
    assert (tmp_path / "python.jsonl").read_bytes() == (tmp_path / "shell.jsonl").read_bytes()
    with pytest.raises(InputError, match="exists; choose another name"):
        corrupt_file(tmp_path / "pairs.jsonl", done.out)
    with pytest.raises(InputError, match=r"data\.steps"):
        corrupt_file(tmp_path / "pairs.jsonl", tmp_path / "new.jsonl", overrides={"data.steps": 3})


def test_mistakes_are_exceptions(tmp_path: Path) -> None:
    path = write(tmp_path, SMALL)
    with pytest.raises(InputError, match="did you mean 'steps'"):
        plan(path, overrides={"training.step": 3})
    with pytest.raises(InputError, match="no such folder"):
        status(tmp_path / "nothing")
    with pytest.raises(InputError, match="texts: 'all'; expected one of none, ids"):
        report(tmp_path, texts="all")
    with pytest.raises(InputError, match="is a file; expected a folder"):
        sweep(path, out=path)


def test_the_process_keeps_its_umask(swept: Path) -> None:
    before = os.umask(0o022)
    try:
        sweep(swept / "spec.yaml", out=swept / "python", engine="inline", quiet=True)
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
    assert (swept / "python" / "tiny" / "results.csv").stat().st_mode & 0o077 == 0


def test_functions_stay_where_packages_have_their_names() -> None:
    import harness.report.page
    import harness.study.run
    import harness.sweep.run
    from harness import study
    from harness import sweep as again

    assert again is sweep is harness.sweep and harness.report is report and harness.study is study
    assert sys.modules["harness.sweep"].run.run_sweep is not None
    assert {harness.sweep.__module__, harness.plan.__module__} == {"harness.api"}


def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    book = tmp_path / "docs" / "notebook.ipynb"
    for name in ("docs/notebook.ipynb", "experiments/smoke.yaml"):
        (tmp_path / name).parent.mkdir()
        shutil.copy(ROOT / name, tmp_path / name)
    assert not any(cell.get("outputs") for cell in json.loads(book.read_text())["cells"])
    done = subprocess.run(
        [sys.executable, "-c", RUN_CELLS, str(book)], cwd=book.parent, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "5 done" in done.stdout and "<svg" in done.stdout and "did you mean 'steps'?" in done.stdout
