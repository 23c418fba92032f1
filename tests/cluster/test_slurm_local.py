"""A sweep through submitit, its local executor in Slurm's place: preempted, requeued, and the numbers are inline's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from harness.storage.runs import load_result
from tests.cluster.fleet import ROOT, begun, command, committed, ended, processes, wait_for

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(find_spec("submitit") is None, reason="the extra `slurm` is not installed"),
]
SPEC = ROOT / "experiments/smoke.yaml"
STEPS = 500
DRIVER = f"""
import sys
from pathlib import Path
from harness.config.load import load_sweep
from harness.sweep.engines import Cluster
from harness.sweep.run import SweepOptions, run_sweep
sweep = load_sweep(Path({str(SPEC)!r}), ["training.steps={STEPS}"])
options = SweepOptions("slurm", 0.5, cluster=Cluster(scheduler="local", minutes=60))
sys.exit(run_sweep(sweep, Path(sys.argv[1]), 2, options=options))
"""


def kept(sweep: Path) -> list[Path]:
    return sorted(sweep.glob(".attempts/*/*/ckpt/step-*/MANIFEST.json"))


def test_a_preempted_job_is_requeued_and_goes_on(tmp_path: Path) -> None:
    """The signal ahead of preemption: runs are kept at a boundary, the job is requeued once and ends with them."""
    inline = tmp_path / "inline"
    ended(command("sweep", str(SPEC), "--set", f"training.steps={STEPS}", "--engine", "inline", "--out", str(inline)))
    sweep = tmp_path / "slurm" / "smoke"
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tmp_path / "slurm")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_for(lambda: begun(sweep), "a pack in training", driver)
        wait_for(lambda: kept(sweep), "a checkpoint", driver)
        told = [pid for pid in processes("submitit.core._submit") if str(sweep) in command_line(pid)]
        for pid in told:
            os.kill(pid, signal.SIGUSR2)
        ended(driver)
    finally:
        driver.kill()
    assert (sweep / "results.csv").read_bytes() == (inline / "smoke" / "results.csv").read_bytes()
    results = [load_result(sweep / name) for name in committed(sweep)]
    attempts = [result["attempt"] for result in results if result is not None and result["status"] == "done"]
    requeued = [path for path in (sweep / ".slurm").glob("*log*") if "Requeued job" in path.read_text()]
    print(f"{len(attempts)} runs, attempts {attempts}, {len(requeued)} of {len(told)} jobs requeued")
    assert len(attempts) == 5 and max(attempts) == 2
    assert len(requeued) == len(told) > 0
    assert not list((sweep / ".slurm").glob("*.pkl"))


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def test_the_dry_run_prints_the_array_script(tmp_path: Path) -> None:
    """Nothing is written, no Slurm is needed."""
    arguments = ("--engine", "slurm", "--partition", "gpu", "--time", "90", "--gpus-per-pack", "0.5", "--workers", "4")
    text = ended(command("sweep", str(SPEC), "--dry-run", *arguments, "--out", str(tmp_path / "runs")))
    for line in ("--array=0-3%4", "--partition=gpu", "--time=90", "--gpus-per-node=1", "--requeue", "--signal=USR2@90"):
        assert f"#SBATCH {line}\n" in text
    assert not (tmp_path / "runs").exists()
    refused = ended(command("sweep", str(SPEC), "--dry-run", "--out", str(tmp_path / "runs")), 2)
    assert "--engine slurm" in refused
