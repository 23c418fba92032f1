"""Every direct dependency has one exact pin, inside the range that pyproject.toml promises."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]


def unpinned(wanted: list[str], constraints: str) -> list[str]:
    """Requirements that `constraints` leaves open, pins outside their range, or pins twice."""
    lines = [line for line in constraints.splitlines() if line and not line.startswith("#")]
    pins = [(canonicalize_name(name), version) for name, _, version in (line.partition("==") for line in lines)]
    problems = [f"{name}: pinned twice" for name in {n for n, _ in pins} if sum(n == name for n, _ in pins) > 1]
    for requirement in map(Requirement, wanted):
        version = dict(pins).get(canonicalize_name(requirement.name), "")
        if not version or not requirement.specifier.contains(version):
            problems.append(f"{requirement}: pinned at {version or 'nothing'}")
    return problems


def test_direct_dependencies_are_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wanted = [
        *project["project"]["dependencies"],
        *(line for extra in project["project"]["optional-dependencies"].values() for line in extra),
        *(line for group in project["dependency-groups"].values() for line in group),
    ]
    assert len(wanted) > 20
    assert unpinned(wanted, (ROOT / "constraints.txt").read_text("utf-8")) == []


def test_the_cluster_session_tests_with_what_users_install() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    extras = project["project"]["optional-dependencies"]
    assert project["dependency-groups"]["cluster"] == [*extras["cluster"], *extras["slurm"], *extras["team"]]


def test_check_catches() -> None:
    assert unpinned(["a>=2"], "") == ["a>=2: pinned at nothing"]
    assert unpinned(["a>=2"], "a==1.9") == ["a>=2: pinned at 1.9"]
    assert unpinned(["A_b>=2"], "a-b==2.1\na.b==2.2") == ["a-b: pinned twice"]
    assert unpinned(["a[x]>=2"], "# why\na==2.0") == []
