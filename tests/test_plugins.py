"""Rows of other packages: the template of docs/ is built, installed and used; broken and clashing ones are named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from harness.plugins import check_same, short
from harness.types import InputError
from tests.sweep.test_end_to_end import TINY

ROOT = Path(__file__).parents[1]
TEMPLATE = ROOT / "docs" / "plugin-template"
NAME = "preference-template"
ROWS = {
    "objectives": "squared_hinge",
    "corruptions": "long_prompt_flip",
    "metrics": "near_tie_rate",
    "formats": "votes",
    "sections": "ties",
}
SPEC = {
    **TINY,
    "name": "plugged",
    "world": {**TINY["world"], "misaligned": 0.5},
    "objectives": [{"name": "dpo", "beta": 1}, {"name": "squared_hinge", "beta": 1}],
    "corruptions": [{"kind": "none"}, {"kind": "long_prompt_flip", "rate": 0.3}],
    "seeds": 1,
}
# Several commands in one process: a start of Python costs more than most of them.
SCRIPT = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from harness.cli import run
answers = []
for words in json.loads(sys.argv[1]):
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = run(words)
    answers.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(answers))
"""
Answer = tuple[int, str, str]


def harness(site: Path | None, *commands: list[object]) -> list[Answer]:
    """What commands answer (exit code, output, errors) where only the packages of `site` are installed besides."""
    path = os.pathsep.join(str(place) for place in (site, ROOT) if place is not None)
    words = json.dumps([[str(word) for word in command] for command in commands])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, words], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return [tuple(answer) for answer in json.loads(done.stdout)]


def built(source: Path, target: Path) -> Path:
    """A package built and installed below `target`, without a network."""
    quiet = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--no-index")
    subprocess.run([sys.executable, "-m", "pip", "install", *quiet, "--target", target, source], check=True)
    return target


def written(folder: Path, name: str, code: str, group: str = "objectives") -> Path:
    """An installed distribution of one module, as pip leaves it; its entry point is `ROWS`."""
    module = name.replace("-", "_")
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[preference_harness.{group}]\nthese = {module}:ROWS\n")
    (folder / f"{module}.py").write_text(code)
    return folder


def spec(folder: Path, **changes: Any) -> Path:
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump({**SPEC, **changes}))
    return path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plugin")
    shutil.copytree(TEMPLATE, root / "source")
    return built(root / "source", root / "site")


@pytest.fixture(scope="module")
def swept(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with the template's objective and corruption, trained in a worker process."""
    root = tmp_path_factory.mktemp("swept")
    words = ["sweep", spec(root), "--out", root / "runs", "--engine", "process", "--workers", "1"]
    [(code, out, err)] = harness(site, words)
    assert code == 0, out + err
    return root / "runs" / "plugged"


def test_every_row_is_listed_with_its_origin(site: Path) -> None:
    answers = harness(
        site, *(["list", group, "--json"] for group in ROWS), ["formats", "--json"], ["list", "objectives"]
    )
    for (code, out, err), name in zip(answers, (*ROWS.values(), "votes"), strict=False):
        origins = {row["name"]: row["origin"] for row in json.loads(out)}
        assert (code, err) == (0, "") and origins.pop(name).startswith(f"{NAME} 0.1.0 ")
        assert set(origins.values()) == {"built in"}
    words = " ".join(answers[-1][1].split())
    assert f"({NAME} 0.1.0 " in words[words.index("squared_hinge ") :]


def test_the_template_passes_its_check(site: Path, swept: Path) -> None:
    [(code, out, err), unknown] = harness(
        site, ["check-plugin", "Preference_Template", "--sweep", swept], ["check-plugin", "preference-templat"]
    )
    assert (code, err) == (0, "") and out.splitlines()[-1] == "5 rows checked, 0 problems"
    assert [line.split(":")[0] for line in out.splitlines()[:-1]] == [f"{group} {name}" for group, name in ROWS.items()]
    assert unknown[0] == 2 and f"did you mean '{NAME}'?" in unknown[2]


def test_a_row_that_breaks_its_laws_is_named(tmp_path: Path) -> None:
    code = (
        "import dataclasses\nfrom harness.corruptions.flips import UNIFORM_FLIP, uniform_flip\n"
        "def first(view):\n    hits = uniform_flip(view)\n"
        "    return dataclasses.replace(hits, index=hits.index[:1], ranked=False, columns={}, target=1)\n"
        "ROWS = [dataclasses.replace(UNIFORM_FLIP, name='first', function=first, laws='CN')]\n"
    )
    [(exit_code, out, _)] = harness(written(tmp_path, "lawless", code, "corruptions"), ["check-plugin", "lawless"])
    assert exit_code == 1 and "corruptions first: counts_are_exact: " in out


def test_the_sweep_and_its_report_have_the_rows(swept: Path) -> None:
    results = pd.read_csv(swept / "results.csv")
    assert set(results.status) == {"done"} and len(results) == 4
    assert set(results.objective) == {"dpo", "squared_hinge"} and "long_prompt_flip" in set(results.corruption)
    page = (swept / "report" / "report.md").read_text("utf-8")
    assert "How many pairs are all but tied?" in page and "Plug-in: objective squared_hinge is" in page


def test_uninstalled_old_results_still_render_and_say_what_is_missing(swept: Path, site: Path) -> None:
    before = (swept / "results.csv").read_bytes()
    key = pd.read_csv(swept / "results.csv").query("objective == 'squared_hinge'").run_key.iloc[0]
    run = next(swept.glob(f"{key[:8]}*"))
    report, status, verify, again, sweep = harness(
        None, ["report", swept], ["status", swept], ["verify", swept], ["verify", run, "--rerun"],
        ["sweep", swept.parents[1] / "spec.yaml", "--out", swept.parent],
    )  # fmt: skip
    assert (report[0], status[0], verify[0]) == (0, 0, 0), report[2] + status[2] + verify[1]
    assert (swept / "results.csv").read_bytes() == before
    page = (swept / "report" / "report.md").read_text("utf-8")
    assert f"objective squared_hinge came from plug-in {NAME} 0.1.0" in page and "not installed here" in page
    assert "all but tied" not in page
    assert f"section Near ties came from plug-in {NAME} 0.1.0" in page and "left out" in page
    assert again[0] == 2 and "planned with preference-template 0.1.0" in again[2]
    assert sweep[0] == 2 and "unknown objective 'squared_hinge'" in sweep[2]
    assert harness(site, ["report", swept])[0][0] == 0
    assert "not installed" not in (swept / "report" / "report.md").read_text("utf-8")


def test_a_study_trains_the_templates_objective_and_renders_without_it(site: Path, tmp_path: Path) -> None:
    aims = [{"measure": "near_tie_rate", "direction": "minimize", "split": "validation_clean"}]
    objectives = [{"name": "dpo", "beta": "search"}, {"name": "squared_hinge", "beta": "search"}]
    kinds = [{"kind": "long_prompt_flip", "rate": 0.3}]
    path = spec(
        tmp_path, objectives=objectives, corruptions=kinds, targets=aims, trials=1, seeds=1, fresh_seeds=2, name="tuned"
    )
    [(code, out, err)] = harness(site, ["study", path, "--out", tmp_path / "runs"])
    assert code == 0, out + err
    folder = tmp_path / "runs" / "tuned"
    about, page = (folder / "study.json").read_text("utf-8"), folder / "report" / "report.md"
    assert [trial["state"] for trial in json.loads(about)["trials"]] == ["COMPLETE", "COMPLETE"]
    assert json.loads(about)["plugins"]["measure near_tie_rate"].startswith(f"{NAME} 0.1.0 ")
    shown = page.read_text("utf-8")
    assert "squared_hinge" in shown and "near_tie_rate" in shown and "not installed" not in shown
    tuned = (folder / "report" / "tuned.csv").read_bytes()
    report, again = harness(None, ["report", folder], ["study", path, "--out", tmp_path / "runs"])
    assert report[0] == 0, report[2]
    assert (folder / "report" / "tuned.csv").read_bytes() == tuned
    for what in ("objective squared_hinge", "corruption long_prompt_flip", "measure near_tie_rate"):
        assert f"{what} came from plug-in {NAME} 0.1.0" in page.read_text("utf-8").replace("\\", "")
    assert again[0] == 2 and "unknown objective 'squared_hinge'" in again[2]


def test_pip_installs_and_uninstalls_it_in_a_fresh_environment(tmp_path: Path) -> None:
    home = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    python = home / "bin" / "python"
    own = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    libraries = sysconfig.get_path("purelib")  # what the harness needs, and the harness itself
    (Path(own) / "libraries.pth").write_text(f"{libraries}\n{ROOT}\n", encoding="utf-8")
    shutil.copytree(TEMPLATE, tmp_path / "source")

    def pip(*words: object) -> None:
        command = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", *words, "--quiet"]
        subprocess.run([str(word) for word in command], check=True, capture_output=True)

    def listed() -> set[str]:
        code = "import sys; from harness.cli import run; sys.exit(run(sys.argv[1:]))"
        names = set()
        for group in ("objectives", "corruptions", "metrics", "sections"):
            command = [str(python), "-c", code, "list", group, "--json"]
            done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PATH": "/usr/bin:/bin"})
            names |= {row["name"] for row in json.loads(done.stdout) if row["origin"].startswith(f"{NAME} 0.1.0 ")}
        return names

    pip("install", "--no-deps", "--no-build-isolation", "--no-index", tmp_path / "source")
    assert listed() == {name for group, name in ROWS.items() if group != "formats"}
    pip("uninstall", "--yes", NAME)
    assert listed() == set()


def test_run_keys_hold_version_and_source_of_what_they_use_and_nothing_else(site: Path, tmp_path: Path) -> None:
    edited = shutil.copytree(site, tmp_path / "edited")
    source = edited / "preference_template" / "corruptions.py"
    source.write_text(source.read_text() + "# another source\n")
    plain = spec(tmp_path, objectives=[{"name": "dpo", "beta": 1}], corruptions=[{"kind": "none"}])
    path = shutil.copy(spec(tmp_path), tmp_path / "used.yaml")
    plain = spec(tmp_path, objectives=[{"name": "dpo", "beta": 1}], corruptions=[{"kind": "none"}])
    asked = (["plan", path, "--json"], ["plan", plain, "--json"])
    (used, alone), (changed, again) = (
        [json.loads(out)["run_keys"] for _, out, _ in harness(place, *asked)] for place in (site, edited)
    )
    assert alone == again and alone[0] in used and alone[0] in changed
    assert len(used) == 4 and set(used) & set(changed) == set(alone)


def test_a_plugins_format_is_read_where_it_is_named(site: Path, tmp_path: Path) -> None:
    rows = [{"question": f"q{i}?", "answer_a": "yes", "answer_b": "no", "votes_a": i, "votes_b": 4} for i in range(20)]
    (tmp_path / "votes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    parts = {"name": "voted", "model": {"vocab_size": 300}, "objectives": [{"name": "dpo", "beta": 1}]}
    named, guessed = tmp_path / "named.yaml", tmp_path / "guessed.yaml"
    named.write_text(yaml.safe_dump({**parts, "data": {"path": "votes.jsonl", "format": "votes"}}))
    guessed.write_text(yaml.safe_dump({**parts, "data": {"path": "votes.jsonl"}}))
    first, second = harness(site, ["plan", named, "--json"], ["plan", guessed])
    assert first[0] == 0, first[2]
    assert "20 rows read, 1 dropped, 19 usable pairs" in " ".join(json.loads(first[1])["notes"])
    assert second[0] == 2 and "harness formats lists all" in second[2]


def test_a_study_aims_at_the_metric(site: Path, tmp_path: Path) -> None:
    aims = [{"measure": "near_tie_rate", "direction": "minimize", "split": "validation_clean"}]
    searched = {"objectives": [{"name": "squared_hinge", "beta": "search"}], "corruptions": [{"kind": "none"}]}
    path = spec(tmp_path, **searched, trials=2, seeds=1, fresh_seeds=2, targets=aims)
    script = (
        "import sys; from harness.config.study import load_study; s = load_study(sys.argv[1]);"
        "print(s.key, *s.arms[0].space)"
    )
    keys = []
    for extra in ("", "# another source\n"):
        place = shutil.copytree(site, tmp_path / f"site{len(extra)}")
        with (place / "preference_template" / "metrics.py").open("a") as file:
            file.write(extra)
        done = subprocess.run(
            [sys.executable, "-c", script, path], env={**os.environ, "PYTHONPATH": f"{place}{os.pathsep}{ROOT}"},
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        keys.append(done.stdout.split())
    assert keys[0][1:] == ["beta"] and keys[0][0] != keys[1][0]


def test_a_broken_plugin_is_one_line_unless_the_spec_needs_it(tmp_path: Path) -> None:
    place = written(tmp_path / "site", "half-built", "raise RuntimeError('no\\nlicence')\n")
    plain = spec(tmp_path, objectives=[{"name": "dpo", "beta": 1}], corruptions=[{"kind": "none"}])
    missing = tmp_path / "missing.yaml"
    missing.write_text(plain.read_text().replace("dpo", "half"))
    listed, planned, refused = harness(place, ["list", "objectives"], ["plan", plain], ["plan", missing])
    line = "plug-in half-built: entry 'these' of preference_harness.objectives left out: RuntimeError: no licence"
    assert listed[0] == 0 and listed[2].splitlines() == [line]
    assert planned[0] == 0, planned[2]
    assert refused[0] == 2 and line in refused[2] and "unknown objective 'half'" in refused[2]


def test_a_name_that_is_taken_is_refused_by_name(tmp_path: Path) -> None:
    code = "from harness.objectives import OBJECTIVES\nROWS = [OBJECTIVES['dpo']]\n"
    listed, planned, checked = harness(
        written(tmp_path / "site", "second-dpo", code), ["list", "objectives", "--json"],
        ["plan", spec(tmp_path, corruptions=[{"kind": "none"}], objectives=[{"name": "dpo"}])],
        ["check-plugin", "second-dpo"],
    )  # fmt: skip
    line = "objectives: the name 'dpo' is taken twice, by the harness itself and by second-dpo 1.0"
    assert listed[0] == 0 and line in listed[2]
    assert {row["origin"] for row in json.loads(listed[1])} == {"built in"}
    assert planned[0] == 2 and line in planned[2]
    assert checked[0] == 1 and line in checked[1]


def test_rows_of_another_type_are_refused(tmp_path: Path) -> None:
    code = "from harness.metrics import METRICS\nROWS = METRICS['kl']\n"
    [(_, _, err)] = harness(written(tmp_path, "mixed-up", code), ["list", "objectives"])
    assert "TypeError" in err and "mixed-up" in err and len(err.splitlines()) == 1


def test_help_and_built_in_names_look_for_no_plugin(site: Path) -> None:
    script = (
        "import sys; from harness.cli import run; run(['--help']); run(['formats', '--help']);"
        "from harness import OBJECTIVES, METRICS; OBJECTIVES['dpo'], METRICS['kl'];"
        "assert not [name for name in sys.modules if name.startswith('preference_template')];"
        "OBJECTIVES['squared_hinge'].loss; assert 'preference_template.metrics' not in sys.modules;"
        "assert 'torch' not in sys.modules"
    )
    path = f"{site}{os.pathsep}{ROOT}"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def test_another_version_than_the_planned_one_is_refused() -> None:
    one, two = (f"mine {version} {digit * 64}" for version, digit in (("1.0", "a"), ("1.1", "b")))
    check_same("objective 'x'", one, one)
    with pytest.raises(InputError, match=r"objective 'x': planned with mine 1.0 a{12}, found mine 1.1 b{12} here"):
        check_same("objective 'x'", one, two)
    assert short(f"{one}; {two}") == f"mine 1.0 {'a' * 12}; mine 1.1 {'b' * 12}" and short("") == ""
