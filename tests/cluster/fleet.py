"""A two-node Ray on this machine, sweeps as commands on it, and the processes that a test may kill."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 900.0  # seconds; two cores, and perhaps not alone


def command(*arguments: str, **env: str) -> subprocess.Popen[str]:
    """`harness ...` as a process of its own, its output readable when it has ended."""
    return subprocess.Popen(
        [sys.executable, "-m", "harness", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    """The output of a command that must end with `code`."""
    try:
        text, _ = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"no end within {PATIENCE:g} s:\n{process.communicate()[0]}") from None
    assert process.returncode == code, f"exit {process.returncode}, not {code}:\n{text}"
    return text


def wait_for(what: Callable[[], Any], why: str, driver: subprocess.Popen[str]) -> Any:
    """What `what` returns once it is true, while `driver` lives."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and driver.poll() is None:
        found = what()
        if found:
            return found
        time.sleep(0.1)
    driver.kill()
    raise AssertionError(f"{why}: not within {PATIENCE:g} s, and the driver said\n{driver.communicate()[0]}")


def processes(part: str) -> dict[int, int]:
    """Pid -> parent of every process whose command line holds `part`."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended while we looked
            if part.encode() in (place / "cmdline").read_bytes():
                found[int(place.name)] = int((place / "stat").read_text().rpartition(")")[2].split()[1])
    return found


def begun(sweep: Path) -> list[Path]:
    """Journals of runs in training, attempts apart."""
    return sorted(sweep.glob(".attempts/*/*/events.jsonl"))


def committed(sweep: Path) -> dict[str, int]:
    """Run folder -> inode of its result."""
    return {path.parent.name: path.stat().st_ino for path in sorted(sweep.glob("*/result.json"))}


@contextlib.contextmanager
def ray_of_two() -> Iterator[tuple[Any, Any]]:
    """A Ray of two nodes with a core each, with token authentication: (cluster, the node that is not the head)."""
    node = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    settings = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ |= settings
    from ray.cluster_utils import Cluster  # reads the mode when it is first imported

    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        yield cluster, cluster.add_node(**node)
    finally:
        cluster.shutdown()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def workers_of(node: Any) -> list[int]:
    """Pids of a node's processes that carry out a task now."""
    raylet = node.all_processes["raylet"][0].process.pid
    return [pid for pid, parent in processes("ray::run_remote_task").items() if parent == raylet]
