"""A sweep on a Ray of two nodes: what is lost is run again, what is committed stands once, numbers are inline's."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from harness.storage.runs import load_result
from tests.cluster.fleet import ROOT, begun, command, committed, ended, ray_of_two, wait_for, workers_of

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(find_spec("ray") is None, reason="the extra `cluster` is not installed"),
]

# Long enough that a pack is still in training when its worker is killed.
SPEC = ("experiments/smoke.yaml", "--set", "training.steps=500", "--checkpoint-every", "0.5")
NOWHERE = "http://127.0.0.1:9"  # the discard port: a tracking server that is down


@pytest.fixture(scope="module")
def inline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The undisturbed sweep."""
    out = tmp_path_factory.mktemp("inline")
    ended(command("sweep", *SPEC, "--engine", "inline", "--out", str(out)))
    return out / "smoke"


@pytest.fixture(scope="module")
def ray_nodes() -> Iterator[tuple[Any, Any]]:
    with ray_of_two() as nodes:
        yield nodes


def test_driver_dies_and_is_started_again(inline: Path, ray_nodes: tuple[Any, Any], tmp_path: Path) -> None:
    """SIGKILL of the driver with a run committed: the same command goes on and leaves that run alone."""
    cluster, _ = ray_nodes
    shutil.copytree(inline.parent / "cache", tmp_path / "cache")
    arguments = ("sweep", *SPEC, "--engine", "ray", "--address", cluster.address, "--out", str(tmp_path))
    sweep = tmp_path / "smoke"
    first = command(*arguments)
    try:
        early = wait_for(lambda: committed(sweep), "a first run committed", first)
        second = command(*arguments)
        assert "is running this sweep" in ended(second, 2)
    finally:
        first.kill()
        first.wait()
    ended(command(*arguments))
    now = committed(sweep)
    assert {name: now[name] for name in early} == early
    check(sweep, inline)


def test_worker_and_node_lost_with_tracking_down(inline: Path, ray_nodes: tuple[Any, Any], tmp_path: Path) -> None:
    """A worker is killed, then a node removed, while the tracking server is down: nothing is lost, nothing twice."""
    cluster, node = ray_nodes
    sweep = tmp_path / "smoke"
    arguments = ("sweep", *SPEC, "--engine", "ray", "--address", cluster.address, "--out", str(tmp_path))
    driver = command(*arguments, MLFLOW_TRACKING_URI=NOWHERE)
    try:
        both = lambda: workers_of(cluster.head_node) and workers_of(node)  # noqa: E731
        wait_for(lambda: len(begun(sweep)) > 3 and both(), "packs in training on both nodes", driver)
        for pid in workers_of(cluster.head_node):
            os.kill(pid, signal.SIGKILL)
        wait_for(both, "the lost pack in training again", driver)
        cluster.remove_node(node, allow_graceful=False)
        text = ended(driver)
    finally:
        driver.kill()
    assert "points waiting, run harness sync" in text
    attempts = check(sweep, inline)
    print(f"5 runs, attempts {attempts}")
    assert max(attempts) > 1


OWN = """
import os, subprocess, sys
from harness.sweep.engines import Cluster
from harness.sweep.engines.ray import connect, slots
ray = connect(Cluster())
assert os.environ["RAY_AUTH_MODE"] == "token" and len(os.environ["RAY_AUTH_TOKEN"]) == 64
address = ray.get_runtime_context().gcs_address
stranger = (
    "from harness.sweep.engines import Cluster; from harness.sweep.engines.ray import connect\\n"
    f"connect(Cluster(address={address!r}))"
)
env = {**os.environ, "RAY_AUTH_TOKEN": "0" * 64}
refused = subprocess.run([sys.executable, "-c", stranger], env=env, capture_output=True, text=True, timeout=200)
print(address, slots(Cluster(), 1) > 0, refused.returncode, "cannot join this Ray cluster" in refused.stderr)
"""


def test_a_ray_of_its_own_is_on_loopback_and_asks_for_its_token() -> None:
    """Started without an address: bound to this machine, and whoever comes with another token is refused."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", OWN], cwd=ROOT, env={**env, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    address, *said = done.stdout.split()[-4:]
    assert address.startswith("127.0.0.1:") and said == ["True", "1", "True"]


def check(sweep: Path, inline: Path) -> list[int]:
    """The table is inline's byte for byte, every run is committed once; attempts of each."""
    assert (sweep / "results.csv").read_bytes() == (inline / "results.csv").read_bytes()
    results = [load_result(sweep / name) for name in committed(sweep)]
    assert [result is not None and result["status"] for result in results] == ["done"] * 5
    assert not (sweep / ".attempts").exists()
    assert not list(sweep.glob(".driver-*"))
    return [result["attempt"] for result in results if result is not None]
