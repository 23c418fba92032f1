"""Every way to run the project: `nox -s sweep -- SPEC` trains and reports, `nox -s tests` proves, `nox -l` lists all.

All sessions share one virtual environment, `.venv`: one each would be 2 GB each. It is filled once, and again only
when what it is made from changes; the stamp inside it, written last, says what that was.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from pathlib import Path

import nox
from filelock import FileLock  # always beside nox: its own dependency virtualenv needs it
from nox.command import CommandFailed

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["sweep"]
nox.options.default_venv_backend = "none"

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
STAMP = VENV / "harness-stamp.json"

DEFAULT_TESTS = ["-n", "2", "--dist", "loadfile", "-m", "not oracle and not slow and not cluster"]
DOCS_TESTS = [
    *("tests/test_readme.py", "tests/test_docs.py", "tests/test_recipes.py", "tests/test_walks.py"),
    *("tests/test_api.py", "tests/test_plugins.py", "tests/test_first_hour.py"),
]
# What meets the libraries: spec, data, engine, tracking, a sweep from end to end, a study, the report.
MINIMUM_TESTS = [
    *("tests/test_spec.py", "tests/data", "tests/corruptions", "tests/models", "tests/training"),
    *("tests/tracking", "tests/report"),
    *("tests/sweep/test_end_to_end.py", "tests/sweep/test_study_end_to_end.py", "-m", "not browser and not slow"),
]

# A version with advisories for many years: an index that names none of them cannot speak for the pins either.
KNOWN_BAD = "jinja2==2.10"
AXE = "axe-playwright-python==0.1.8"  # holds axe 4.12, which finds what keeps readers out of a page
# Advisories of pins that nothing here can meet: sqlitedict unpickles its own file, which lm-eval opens only with
# use_cache, never set here. Both are names of that one.
HARMLESS = ["PYSEC-2026-1939", "GHSA-g4r7-86gm-pgqc"]

PRIVATE = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
# Two test workers with two torch threads each would fight over two cores.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def environment(session: nox.Session, *groups: str) -> None:
    """Make sure `.venv` holds the project, its dev group and `groups`; costs milliseconds where it does already."""
    lock = ROOT / ".nox" / "environment.lock"  # two sessions started together must not both install
    lock.parent.mkdir(exist_ok=True)
    with FileLock(lock):
        texts = [(ROOT / name).read_text("utf-8") for name in ("pyproject.toml", "constraints.txt")]
        parts = [platform.python_version(), str(ROOT), *texts]
        recipe = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        stamp = json.loads(STAMP.read_text("utf-8")) if STAMP.exists() else {}
        wanted = {"dev", *groups, *stamp.get("groups", ())}
        if stamp.get("recipe") == recipe and wanted <= set(stamp["groups"]):
            return
        session.log("installing into .venv: about 2 GB, so minutes the first time; later only what changed")
        # No stamp, no whole environment. Of another Python: nothing in it can be kept.
        if not stamp or platform.python_version() not in (VENV / "pyvenv.cfg").read_text("utf-8"):
            session.run(sys.executable, "-m", "virtualenv", "--clear", str(VENV), external=True, silent=True)
        STAMP.unlink(missing_ok=True)  # a killed install leaves none
        requirements = nox.project.dependency_groups(nox.project.load_toml(ROOT / "pyproject.toml"), *wanted)
        pip = [str(PYTHON), "-m", "pip", "install", "-qq", "--no-input", "--disable-pip-version-check"]
        try:
            session.run(*pip, "-c", "constraints.txt", "-e", ".", *requirements, external=True, log=False)
        except CommandFailed:
            STAMP.write_text(json.dumps({"groups": []}), "utf-8")  # pip itself put back what it had changed
            raise
        STAMP.write_text(json.dumps({"recipe": recipe, "groups": sorted(wanted)}), "utf-8")


def python(session: nox.Session, *args: str, **env: str) -> None:
    """Run `.venv`'s Python from the repository root; a failure ends nox with the command's own exit code."""
    try:
        # Ctrl-C reaches the command, too: give a sweep the time to close its journals before it is ended.
        session.run(
            str(PYTHON),
            *args,
            env={**PRIVATE, **env},
            external=True,
            stderr=None,  # errors stay on stderr, so that `--json` output can be piped
            interrupt_timeout=60,
            terminate_timeout=10,
        )
    except CommandFailed as failed:
        code = failed.return_code or 1
        raise SystemExit(code if code > 0 else 128 - code) from failed


@nox.session
def sweep(session: nox.Session) -> None:
    """Train and report a spec: nox -s sweep -- experiments/quick.yaml [options of `harness sweep`]."""
    environment(session)
    spec = [] if session.posargs and not session.posargs[0].startswith("-") else ["experiments/quick.yaml"]
    python(session, "-m", "harness", "sweep", *spec, *session.posargs)


@nox.session
def study(session: nox.Session) -> None:
    """Search settings under equal budgets: nox -s study -- experiments/study.yaml [options of `harness study`]."""
    environment(session)
    spec = [] if session.posargs and not session.posargs[0].startswith("-") else ["experiments/study.yaml"]
    python(session, "-m", "harness", "study", *spec, *session.posargs)


@nox.session
def report(session: nox.Session) -> None:
    """Write a sweep's report again: nox -s report -- runs/quick."""
    environment(session)
    python(session, "-m", "harness", "report", *session.posargs)


@nox.session
def dashboard(session: nox.Session) -> None:
    """Serve MLflow on loopback and print the addresses of its views; Ctrl-C ends it."""
    environment(session)
    python(session, "-m", "harness", "dashboard", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests; what is given is added: nox -s tests -- tests/test_spec.py (with -m slow: its slow ones)."""
    environment(session)
    python(session, "-m", "pytest", *DEFAULT_TESTS, *session.posargs, **ONE_THREAD)


@nox.session
def slow(session: nox.Session) -> None:
    """Run the long tests: every step of a resume, every signal, killed studies, 10,000 fuzzed specs, a real server."""
    environment(session, "serve")
    python(session, "-m", "pytest", "-m", "slow", *session.posargs, **ONE_THREAD)


@nox.session
def faults(session: nox.Session) -> None:
    """Kill, damage, starve and stop small sweeps some 550 times, and count what was lost or made twice (7 min)."""
    environment(session)
    python(session, "-m", "tests.faults", *session.posargs, **ONE_THREAD)


@nox.session
def scale(session: nox.Session) -> None:
    """Rehearse 10,000 runs that train nothing, some killed; prints how long plan, status and report take."""
    environment(session)
    python(session, "-m", "tests.faults.scale", *session.posargs, **ONE_THREAD)


@nox.session(venv_backend="virtualenv")
def audit(session: nox.Session) -> None:
    """Ask the advisory database about every pinned version; skipped where it says nothing of single versions."""
    session.install("--quiet", "pip-audit>=2.9,<3")
    # No dependencies: every one is pinned itself.
    ask = ["pip-audit", "--no-deps", "--disable-pip", "--progress-spinner", "off", "--requirement"]
    known = Path(session.create_tmp()) / "known.txt"
    known.write_text(f"{KNOWN_BAD}\n", "utf-8")
    answer = session.run(*ask, str(known), success_codes=[0, 1], silent=True, log=False)
    if "PYSEC-" not in str(answer) and "GHSA-" not in str(answer):
        session.skip(f"no advisory of {KNOWN_BAD}, which has some: offline, or a mirror that knows packages only")
    ignored = [word for name in HARMLESS for word in ("--ignore-vuln", name)]
    session.run(*ask, str(ROOT / "constraints.txt"), "--strict", *ignored)  # strict: unheard of is no clean bill


@nox.session(name="audit-science")
def audit_science(session: nox.Session) -> None:
    """Check that intervals, verdicts and comparisons are as honest as docs/statistics.md says (minutes)."""
    environment(session)
    python(session, "-m", "pytest", "tests/audit_science", "-m", "slow or not slow", *session.posargs, **ONE_THREAD)


@nox.session
def browser(session: nox.Session) -> None:
    """Open report and dashboard in headless Chromium, every view; skipped where none is installed."""
    environment(session)
    place = ROOT / ".nox" / "axe"  # the file alone is wanted: its package would bring a browser of its own
    if not (place / "axe_playwright_python").is_dir():
        pip = [str(PYTHON), "-m", "pip", "install", "-qq", "--no-deps", "--disable-pip-version-check", "--target"]
        session.run(*pip, str(place), AXE, external=True, success_codes=[0, 1])  # offline its tests are skipped
    python(session, "-m", "pytest", "-m", "browser", "-rs", *session.posargs, **ONE_THREAD)


@nox.session
def oracle(session: nox.Session) -> None:
    """Compare losses and training with TRL's own code (installs TRL beside the rest)."""
    environment(session, "oracle")
    python(session, "-m", "pytest", "-m", "oracle", *session.posargs, **ONE_THREAD)


@nox.session(venv_backend="virtualenv")
def trl_callback(session: nox.Session) -> None:
    """Watch TRL's trainers from an environment of theirs: TRL with its dependencies, the product without any."""
    session.install("--quiet", "-c", "constraints.txt", "trl[peft]", "pytest")
    session.install("--quiet", "--no-deps", "-e", ".")
    absent = "assert not [n for n in ('scipy', 'mlflow', 'optuna', 'lm_eval', 'matplotlib') if find_spec(n)]"
    session.run("python", "-c", f"from importlib.util import find_spec; {absent}")
    tests = ("-m", "oracle", "tests/integrations/test_trl_callback.py")
    session.run("python", "-m", "pytest", *tests, *session.posargs, env={**PRIVATE, **ONE_THREAD})


@nox.session
def cluster(session: nox.Session) -> None:
    """Lose workers, nodes, drivers and jobs on Ray and Slurm's stand-in; eight writers on PostgreSQL; two processes a
    model. Installs Ray, submitit and psycopg2; skips what PostgreSQL's server is missing for. Some 10 minutes."""
    environment(session, "cluster")
    python(session, "-m", "pytest", "-m", "cluster", "-rs", "-s", *session.posargs, **ONE_THREAD)


@nox.session
def bench(session: nox.Session) -> None:
    """Time packs against single runs and TRL: nox -s bench -- --sizes S --json FILE; a model of yours: -- --real."""
    environment(session, "oracle")
    python(session, "-m", "tests.benchmarks", *session.posargs, **ONE_THREAD)


@nox.session
def gpu(session: nox.Session) -> None:
    """Look at a GPU in 8 minutes, TRL beside; figures in reports/benchmarks/gpu.md. -- --rehearse: on a CPU, tiny."""
    environment(session, "oracle")
    python(session, "-m", "tests.benchmarks.gpu", *session.posargs, **ONE_THREAD)


@nox.session
def docs(session: nox.Session) -> None:
    """Check what the documentation says: links, tables, examples that load, recipes and walks that work."""
    environment(session)
    python(session, "-m", "pytest", *DOCS_TESTS, *session.posargs, **ONE_THREAD)


@nox.session(venv_backend="virtualenv")
def minimums(session: nox.Session) -> None:
    """Test the oldest versions that pyproject.toml allows, in an environment of their own (some GB, minutes).

    torch stays at its pin unless it is given: its oldest release is a download of several GB with CUDA.
    `nox -s minimums -- torch==2.11.0` takes that one, too. uv resolves, in seconds where pip would try for an hour; it
    reads another index than PyPI from its own variables (`UV_DEFAULT_INDEX`, `UV_FIND_LINKS`).
    """
    pinned = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if "==" in line
    )
    torch = [arg for arg in session.posargs if arg.startswith("torch==")] or [f"torch=={pinned['torch']}"]
    place = Path(session.create_tmp())
    override, oldest = place / "override.txt", place / "oldest.txt"
    override.write_text(f"{torch[0]}\n", "utf-8")
    session.install("--quiet", "uv>=0.8,<1")
    resolve = ("uv", "pip", "compile", "--quiet", "--resolution", "lowest-direct", "--override", str(override))
    session.run(*resolve, "--output-file", str(oldest), str(ROOT / "pyproject.toml"), silent=True)
    session.install("--quiet", "--no-deps", "--requirement", str(oldest))
    tools = [f"{name}=={pinned[name]}" for name in ("pytest", "hypothesis")]
    session.install("--quiet", "--no-deps", "-e", ".")
    session.install("--quiet", *tools)
    session.run("python", "-m", "pip", "check")
    session.run("python", "-m", "pytest", *MINIMUM_TESTS, env={**PRIVATE, **ONE_THREAD})


@nox.session
def lint(session: nox.Session) -> None:
    """Check style (ruff), types (mypy --strict), what imports what (import-linter), and that nothing is unused."""
    environment(session)
    python(session, "-m", "ruff", "check", ".")
    python(session, "-m", "ruff", "format", "--check", ".")
    python(session, "-m", "mypy")
    python(session, "-m", "vulture")
    python(session, "-c", "from importlinter.cli import lint_imports_command as main; main()", "--no-cache")
