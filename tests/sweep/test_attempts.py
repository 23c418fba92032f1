"""Attempts at a run in folders of their own: the first to finish is published, the next goes on from the last."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from harness.config.load import load_sweep
from harness.identity import run_key
from harness.signals import catching_signals, stop_handler
from harness.storage.atomic import write_atomic
from harness.storage.checkpoints import newest_step, save_checkpoint
from harness.storage.runs import ATTEMPT, RESULT, commit, load_result, open_run, run_result
from harness.storage.verify import verify
from harness.sweep.engines import attempts
from harness.sweep.engines.attempts import ATTEMPTS, publish, remove_attempts, run_attempt, take_over
from harness.sweep.engines.remote_worker import code_hash, create_marker, run_remote_task, with_absolute_paths
from harness.types import PlannedRun, RunStatus
from harness.worker.protocol import BuildTask, Event, FailureKind, PackTask, RunDone, TaskFailed, WorkerConfig

ROOT = Path(__file__).resolve().parents[2]
RUN = load_sweep(ROOT / "experiments/smoke.yaml", []).runs[0]
KEY = run_key(RUN)
NAME = "a-run"
PLANNED = PlannedRun(KEY, NAME, RUN)
PACK = PackTask(3, (PLANNED,))


def config(home: Path) -> WorkerConfig:
    return WorkerConfig(home / "cache", home, "cpu")


def committing(status: RunStatus, mark: str, step: int = 0):
    """A task function that commits its run with `status`, leaving `mark` in a file and a checkpoint at `step`."""

    def run_task(task: PackTask, config: WorkerConfig) -> Iterator[Event]:
        folder, _ = open_run(config.folder, KEY, NAME, keep="ckpt")
        write_atomic(folder / "mark", mark.encode())
        if step:
            save_checkpoint(folder, step, {"state": mark.encode()})
        commit(folder, run_result(PLANNED, folder, status, 1, {}, 0))
        yield RunDone(task.number, KEY, status)

    return run_task


def only(home: Path) -> Path:
    (folder,) = home.glob(f"{KEY[:8]}-*")
    return folder


def test_the_later_of_two_attempts_loses(tmp_path: Path) -> None:
    """The second was begun before the first was done: its work is dropped, and both report the run as done."""
    first = run_attempt(committing(RunStatus.DONE, "first"), PACK, config(tmp_path))
    second = run_attempt(committing(RunStatus.DONE, "second"), PACK, config(tmp_path))
    assert list(first) == [RunDone(3, KEY, RunStatus.DONE)]
    inode = (only(tmp_path) / RESULT).stat().st_ino
    assert list(second) == [RunDone(3, KEY, RunStatus.DONE)]
    assert (only(tmp_path) / "mark").read_text() == "first"
    assert (only(tmp_path) / RESULT).stat().st_ino == inode
    assert verify(tmp_path) == []


def test_a_stopped_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    """Its folder gives way to the finished one; attempts are counted through."""
    list(run_attempt(committing(RunStatus.STOPPED, "half", step=7), PACK, config(tmp_path)))
    assert newest_step(only(tmp_path)) == 7
    seen = []

    def continuing(task: PackTask, config: WorkerConfig) -> Iterator[Event]:
        seen.append(newest_step(only(config.folder)))
        yield from committing(RunStatus.DONE, "whole")(task, config)

    list(run_attempt(continuing, PACK, config(tmp_path)))
    assert seen == [7]
    result = load_result(only(tmp_path))
    assert result is not None and (result["status"], result["attempt"]) == ("done", 2)
    assert {path.name for path in only(tmp_path).iterdir()} == {"mark", RESULT}


def test_the_checkpoints_of_an_attempt_that_died_are_taken_over(tmp_path: Path) -> None:
    """The newest of all attempts; what is damaged is passed over."""
    for number, step in enumerate((5, 9)):
        dead = tmp_path / ATTEMPTS / str(number) / f"{KEY[:8]}-{NAME}"
        dead.mkdir(parents=True)
        save_checkpoint(dead, step, {"state": str(step).encode()})
    place = tmp_path / ATTEMPTS / "new"
    place.mkdir()
    take_over(tmp_path, place, PLANNED)
    assert newest_step(only(place)) == 9
    assert (only(place) / ATTEMPT).read_text() == "2"
    (tmp_path / ATTEMPTS / "1" / f"{KEY[:8]}-{NAME}" / "ckpt" / "step-9" / "state").write_bytes(b"?")
    place = tmp_path / ATTEMPTS / "newer"
    place.mkdir()
    (only(tmp_path / ATTEMPTS / "new") / "ckpt" / "step-9" / "state").write_bytes(b"?")
    take_over(tmp_path, place, PLANNED)
    assert newest_step(only(place)) == 5
    remove_attempts(tmp_path)
    assert not (tmp_path / ATTEMPTS).exists()


def test_a_result_published_between_look_and_move_is_put_back(tmp_path: Path, monkeypatch) -> None:
    """A failed result stood when this attempt looked; another attempt finished before it moved."""
    list(run_attempt(committing(RunStatus.DONE, "other"), PACK, config(tmp_path)))
    looks = iter([False, True])
    monkeypatch.setattr(attempts, "_is_final", lambda _: next(looks))
    staged = tmp_path / ATTEMPTS / "late" / f"{KEY[:8]}-{NAME}"
    staged.mkdir(parents=True)
    assert publish(staged, tmp_path, KEY) is False
    assert (only(tmp_path) / "mark").read_text() == "other"


def test_a_worker_says_what_it_cannot_work_with(tmp_path: Path) -> None:
    """A folder that is not shared, another version of the code: bad input, in one plain line."""
    task = committing(RunStatus.DONE, "")
    remote = with_absolute_paths(config(tmp_path))
    (unseen,) = run_remote_task(task, PACK, remote, tmp_path / ".driver-elsewhere", code_hash())
    assert isinstance(unseen, TaskFailed) and unseen.failure.kind is FailureKind.INPUT
    assert "does not see the driver's files" in unseen.failure.message
    marker = create_marker(tmp_path)
    (other,) = run_remote_task(task, PACK, remote, marker, "another")
    assert isinstance(other, TaskFailed) and other.failure.kind is FailureKind.INPUT
    assert "a different version of the harness" in other.failure.message
    assert create_marker(tmp_path) != marker and not marker.exists()


def test_a_worker_stops_when_the_drivers_marker_is_removed(tmp_path: Path) -> None:
    marker = create_marker(tmp_path)

    def waiting(task: BuildTask, _: WorkerConfig) -> Iterator[Event]:
        stop = stop_handler(worker=True)
        marker.unlink()
        until = time.monotonic() + 20
        while not stop.received and time.monotonic() < until:
            time.sleep(0.05)
        yield RunDone(task.number, KEY, RunStatus.STOPPED if stop.received else RunStatus.DONE)

    with catching_signals() as stop, stop.deferring():
        (event,) = run_remote_task(
            waiting, BuildTask(1, ()), with_absolute_paths(config(tmp_path)), marker, code_hash()
        )
    assert isinstance(event, RunDone) and event.status is RunStatus.STOPPED


def test_other_machines_get_absolute_paths(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = config(Path("runs"))
    remote = with_absolute_paths(here)
    assert (remote.folder, remote.cache) == (tmp_path / "runs", tmp_path / "runs/cache")
    assert remote.session == here.session
