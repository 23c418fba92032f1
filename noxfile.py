"""Every way to run the project: `nox -s sweep -- SPEC` trains and reports, `nox -s tests` proves, `nox -l` lists all.

All sessions share one virtual environment, `.venv`: one each would be 2 GB each. It is filled once, and again only
when what it is made from changes; the stamp inside it, written last, says what that was.

Long because nox reads one file.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import platform
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import nox
from filelock import FileLock  # always beside nox: its own dependency virtualenv needs it
from nox.command import CommandFailed

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["sweep"]

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
STAMP = VENV / "harness-stamp.json"
INSTALLING = VENV / "harness-installing"  # there while pip works; left behind only by a killed install
ENVIRONMENT_VERSION = 1  # bump when the way the environment is made changes
OLDEST_PYTHON = (3, 11)

DEFAULT_SPEC = "experiments/quick.yaml"
DEFAULT_STUDY = "experiments/study.yaml"
DEFAULT_TESTS = ["-n", "2", "--dist", "loadfile", "-m", "not oracle and not slow and not cluster"]

DOCS_TESTS = ["tests/test_readme.py", "tests/test_docs.py", "tests/test_recipes.py", "tests/test_walks.py"]
# What meets the libraries: spec, data, engine, tracking, a sweep from end to end, a study, the report.
MINIMUM_TESTS = [
    *("tests/test_spec.py", "tests/data", "tests/models", "tests/training", "tests/tracking", "tests/report"),
    *("tests/sweep/test_end_to_end.py", "tests/sweep/test_study_end_to_end.py", "-m", "not browser and not slow"),
]

# Versions with advisories for many years: an index that names none of them cannot speak for the pins either.
KNOWN_BAD = ["jinja2==2.10", "urllib3==1.24.1"]
# Advisories of pins that nothing here can meet, and why.
HARMLESS = {
    "PYSEC-2026-1939": "sqlitedict unpickles its own file; lm-eval opens one only with use_cache, never set here",
    "GHSA-g4r7-86gm-pgqc": "the same by another name",
}

PRIVATE = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
# Two test workers with two torch threads each would fight over two cores.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def recipe() -> str:
    """SHA-256 of all that decides what the environment holds: the two files, the Python, this folder, the version."""
    parts = [str(ENVIRONMENT_VERSION), platform.python_version(), str(ROOT)]
    parts += [hashlib.sha256((ROOT / name).read_bytes()).hexdigest() for name in ("pyproject.toml", "constraints.txt")]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def stamped() -> tuple[str, set[str]]:
    """Recipe and dependency groups of the finished environment; an empty recipe where there is none."""
    try:
        stamp = json.loads(STAMP.read_text("utf-8"))
        return str(stamp["recipe"]), set(stamp["groups"])
    except (FileNotFoundError, json.JSONDecodeError, KeyError):
        return "", set()  # no readable stamp means not finished: the caller installs


def made_by_this_python() -> bool:
    """Whether `.venv` exists, whole, with the Python that runs nox."""
    config = VENV / "pyvenv.cfg"
    if INSTALLING.exists() or not PYTHON.exists() or not config.exists():
        return False
    settings = dict(line.split("=", 1) for line in config.read_text("utf-8").splitlines() if "=" in line)
    version = {key.strip(): value.strip() for key, value in settings.items()}.get("version", "")
    has_pip = subprocess.run([PYTHON, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0
    return version == platform.python_version() and has_pip


def create(session: nox.Session) -> None:
    """An empty `.venv` in place of whatever stands there."""
    # Debian packs ensurepip apart from Python; virtualenv, which nox brings, does without it.
    maker = "venv" if importlib.util.find_spec("ensurepip") else "virtualenv"
    session.run(sys.executable, "-m", maker, "--clear", str(VENV), external=True, log=False)


def environment(session: nox.Session, *groups: str) -> None:
    """Make sure `.venv` holds the project, its dev group and `groups`; costs milliseconds where it does already."""
    if sys.version_info < OLDEST_PYTHON:
        session.error(
            f"nox runs on Python {platform.python_version()}, the project needs 3.11 or newer: "
            "use `python3.11 -m pip install nox`, then `python3.11 -m nox`"
        )
    lock = ROOT / ".nox" / "environment.lock"  # two sessions started together must not both install
    lock.parent.mkdir(exist_ok=True)
    with FileLock(lock):
        done, held = stamped()
        wanted = {"dev", *groups}
        if PYTHON.exists() and not INSTALLING.exists() and done == recipe() and wanted <= held:
            return
        if not made_by_this_python():
            create(session)
            held = set()
        install(session, sorted(wanted | held))


def install(session: nox.Session, groups: Sequence[str]) -> None:
    """Install the project and `groups` at the versions of constraints.txt, then write the stamp."""
    session.log(
        f"installing torch, transformers, mlflow and what they need ({', '.join(groups)}) into .venv: about 2 GB, "
        "so minutes the first time; later runs skip this until pyproject.toml or constraints.txt changes"
    )
    requirements = nox.project.dependency_groups(nox.project.load_toml(ROOT / "pyproject.toml"), *groups)
    INSTALLING.touch()
    pip = [str(PYTHON), "-m", "pip", "install", "-qq", "--no-input", "--disable-pip-version-check"]
    try:
        session.run(*pip, "-c", "constraints.txt", "-e", ".", *requirements, external=True, log=False)
    except CommandFailed:
        INSTALLING.unlink()  # pip itself put back what it had changed; the missing stamp makes the next run try again
        raise
    fresh = STAMP.with_suffix(".new")
    fresh.write_text(json.dumps({"recipe": recipe(), "groups": list(groups)}), "utf-8")
    fresh.replace(STAMP)
    INSTALLING.unlink()


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


def names_a_path(posargs: Iterable[str]) -> bool:
    """Whether one of `posargs` is a test file or folder, or one test in it (`tests/test_x.py::test_y`)."""
    return any(not arg.startswith("-") and (ROOT / arg.split("::")[0]).exists() for arg in posargs)


@nox.session(venv_backend="none")
def sweep(session: nox.Session) -> None:
    """Train and report a spec: nox -s sweep -- experiments/quick.yaml [options of `harness sweep`]."""
    environment(session)
    spec = [] if session.posargs and not session.posargs[0].startswith("-") else [DEFAULT_SPEC]
    python(session, "-m", "harness", "sweep", *spec, *session.posargs)


@nox.session(venv_backend="none")
def study(session: nox.Session) -> None:
    """Search settings under equal budgets: nox -s study -- experiments/study.yaml [options of `harness study`]."""
    environment(session)
    spec = [] if session.posargs and not session.posargs[0].startswith("-") else [DEFAULT_STUDY]
    python(session, "-m", "harness", "study", *spec, *session.posargs)


@nox.session(venv_backend="none")
def report(session: nox.Session) -> None:
    """Write a sweep's report again: nox -s report -- runs/quick."""
    environment(session)
    python(session, "-m", "harness", "report", *session.posargs)


@nox.session(venv_backend="none")
def dashboard(session: nox.Session) -> None:
    """Serve MLflow on loopback and print the addresses of its views; Ctrl-C ends it."""
    environment(session)
    python(session, "-m", "harness", "dashboard", *session.posargs)


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """Run the tests; options are added, a path replaces them all: nox -s tests -- tests/test_spec.py."""
    environment(session)
    chosen = session.posargs if names_a_path(session.posargs) else [*DEFAULT_TESTS, *session.posargs]
    python(session, "-m", "pytest", *chosen, **ONE_THREAD)


@nox.session(venv_backend="none")
def slow(session: nox.Session) -> None:
    """Run the long tests: every step of a resume, every signal, killed studies, 10,000 fuzzed specs."""
    environment(session)
    python(session, "-m", "pytest", "-m", "slow", *session.posargs, **ONE_THREAD)


@nox.session(venv_backend="none")
def faults(session: nox.Session) -> None:
    """Kill, damage, starve and stop small sweeps some 550 times, and count what was lost or made twice (7 min)."""
    environment(session)
    python(session, "-m", "tests.faults", *session.posargs, **ONE_THREAD)


@nox.session(venv_backend="none")
def scale(session: nox.Session) -> None:
    """Rehearse 10,000 runs that train nothing, some killed; prints how long plan, status and report take."""
    environment(session)
    python(session, "-m", "tests.faults.scale", *session.posargs, **ONE_THREAD)


@nox.session(venv_backend="virtualenv")
def audit(session: nox.Session) -> None:
    """Ask the advisory database about every pinned version; skipped where it says nothing of single versions."""
    session.install("--quiet", "pip-audit>=2.9,<3")
    known = Path(session.create_tmp()) / "known.txt"
    known.write_text("\n".join(KNOWN_BAD), "utf-8")
    if not all(advisories(session, known).values()):
        session.skip(
            f"the package index in use names no advisory of {' and '.join(KNOWN_BAD)}, which have some; mirrors often "
            "know packages only, and pip-audit reports no vulnerability of a version that it could not ask about"
        )
    found = advisories(session, ROOT / "constraints.txt")
    unheard = [name for name, ids in found.items() if ids is None]
    if unheard:
        session.error(f"no answer about {', '.join(unheard)}: run it again")
    bad = {name: sorted(set(ids) - set(HARMLESS)) for name, ids in found.items() if ids}
    for name, ids in bad.items():
        session.log(f"{name}: {', '.join(ids) or 'only what HARMLESS explains'}")
    if any(bad.values()):
        session.error("pins with advisories; each page is https://osv.dev/vulnerability/<id>")
    session.log(f"{len(found)} pins, none with an advisory that matters here")


def advisories(session: nox.Session, requirements: Path) -> dict[str, list[str] | None]:
    """Ids of the advisories of each pin of a file by `name==version`; None where nobody could be asked about it."""
    report = Path(session.create_tmp()) / "advisories.json"
    report.unlink(missing_ok=True)
    quiet = ["--progress-spinner", "off", "--format", "json", "--output", str(report)]
    # No dependencies: every one is pinned itself. Exit code 1 says that some have advisories, or that nobody answered.
    asked = ["--requirement", str(requirements), "--no-deps", "--disable-pip", *quiet]
    session.run("pip-audit", *asked, success_codes=[0, 1], silent=True, log=False)
    if not report.exists():
        session.skip("the advisory database cannot be reached")
    pins = json.loads(report.read_text("utf-8"))["dependencies"]
    return {
        f"{pin['name']}=={pin['version']}" if "version" in pin else pin["name"]: (
            None if "skip_reason" in pin else [one["id"] for one in pin["vulns"]]
        )
        for pin in pins
    }


@nox.session(venv_backend="none")
def browser(session: nox.Session) -> None:
    """Open report and dashboard in headless Chromium, every view; skipped where none is installed."""
    environment(session)
    python(session, "-m", "pytest", "-m", "browser", "-rs", *session.posargs, **ONE_THREAD)


@nox.session(venv_backend="none")
def oracle(session: nox.Session) -> None:
    """Compare losses and training with TRL's own code (installs TRL beside the rest)."""
    environment(session, "oracle")
    python(session, "-m", "pytest", "-m", "oracle", *session.posargs, **ONE_THREAD)


@nox.session(venv_backend="none")
def cluster(session: nox.Session) -> None:
    """Lose workers, nodes, drivers and jobs on Ray and Slurm's stand-in; eight writers on PostgreSQL; two processes a
    model. Installs Ray, submitit and psycopg2; skips what PostgreSQL's server is missing for. Some 10 minutes."""
    environment(session, "cluster")
    python(session, "-m", "pytest", "-m", "cluster", "-rs", "-s", *session.posargs, **ONE_THREAD)


@nox.session(venv_backend="none")
def bench(session: nox.Session) -> None:
    """Time packs against single runs and TRL: nox -s bench -- --sizes S --json FILE."""
    environment(session, "oracle")
    python(session, "-m", "tests.benchmarks", *session.posargs, **ONE_THREAD)


@nox.session(venv_backend="none")
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


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Check style (ruff) and types (mypy --strict)."""
    environment(session)
    python(session, "-m", "ruff", "check", ".")
    python(session, "-m", "ruff", "format", "--check", ".")
    python(session, "-m", "mypy")
