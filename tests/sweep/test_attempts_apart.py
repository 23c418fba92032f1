"""Attempts at a run in folders of their own: the first to finish is published, the next goes on from the last."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from harness.config.load import load_sweep
from harness.identity import run_key
from harness.storage import runs as store
from harness.storage.atomic import write_atomic
from harness.storage.checkpoints import newest_step, save_checkpoint
from harness.storage.verify import verify
from harness.sweep.engines.attempts import ATTEMPTS, perform_apart, publish, sweep_up, take_over
from harness.sweep.engines.remote_worker import carry_out_far, code, put_up_sign, shared
from harness.sweep.packing import PackTask
from harness.sweep.signals import listen, listening
from harness.worker.protocol import Event, WorkerConfig, WorkerTask

ROOT = Path(__file__).resolve().parents[2]
RUN = load_sweep(ROOT / "experiments/smoke.yaml", []).runs[0]
KEY = run_key(RUN)
NAME = "a-run"


def order() -> WorkerTask:
    return WorkerTask("pack", 3, PackTask(3, (RUN,)))


def shop(home: Path) -> WorkerConfig:
    return WorkerConfig(str(home / "cache"), str(home), "cpu", {KEY: NAME})


def committing(status: str, mark: str, step: int = 0):
    """A task function that commits its run with `status`, leaving `mark` in a file and a checkpoint at `step`."""

    def run_task(task: WorkerTask, own: WorkerConfig) -> Iterator[Event]:
        folder, _ = store.open_run(Path(own.folder), KEY, NAME, keep="ckpt")
        write_atomic(folder / "mark", mark.encode())
        if step:
            save_checkpoint(folder, step, {"state": mark.encode()})
        result = {"run_key": KEY, "status": status, "steps": 1, "results": {}, "costs": {}, "t0_ms": 0}
        store.commit(folder, result)
        yield Event("done", task.number, key=KEY, status=status)

    return run_task


def only(home: Path) -> Path:
    (folder,) = home.glob(f"{KEY[:8]}-*")
    return folder


def test_the_later_of_two_attempts_loses(tmp_path: Path) -> None:
    """The second was begun before the first was done: its work is dropped, and both report the run as done."""
    first = perform_apart(committing("done", "first"), order(), shop(tmp_path))
    second = perform_apart(committing("done", "second"), order(), shop(tmp_path))
    assert [message.kind for message in first] == ["done"]
    inode = (only(tmp_path) / store.RESULT).stat().st_ino
    assert [message.kind for message in second] == ["done"]
    assert (only(tmp_path) / "mark").read_text() == "first"
    assert (only(tmp_path) / store.RESULT).stat().st_ino == inode
    assert verify(tmp_path) == []


def test_a_stopped_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    """Its folder gives way to the finished one; attempts are counted through."""
    list(perform_apart(committing("stopped", "half", step=7), order(), shop(tmp_path)))
    assert newest_step(only(tmp_path)) == 7
    seen = []

    def going_on(task: WorkerTask, own: WorkerConfig) -> Iterator[Event]:
        seen.append(newest_step(only(Path(own.folder))))
        yield from committing("done", "whole")(task, own)

    list(perform_apart(going_on, order(), shop(tmp_path)))
    assert seen == [7]
    result = store.load_result(only(tmp_path))
    assert result is not None and (result["status"], result["attempt"]) == ("done", 2)
    assert {path.name for path in only(tmp_path).iterdir()} == {"mark", store.RESULT}


def test_the_checkpoints_of_an_attempt_that_died_are_taken_over(tmp_path: Path) -> None:
    """The newest of all attempts; what is damaged is passed over."""
    for number, step in enumerate((5, 9)):
        dead = tmp_path / ATTEMPTS / str(number) / f"{KEY[:8]}-{NAME}"
        dead.mkdir(parents=True)
        save_checkpoint(dead, step, {"state": str(step).encode()})
    place = tmp_path / ATTEMPTS / "new"
    place.mkdir()
    take_over(tmp_path, place, KEY, NAME)
    assert newest_step(only(place)) == 9
    assert (only(place) / store.ATTEMPT).read_text() == "2"
    (tmp_path / ATTEMPTS / "1" / f"{KEY[:8]}-{NAME}" / "ckpt" / "step-9" / "state").write_bytes(b"?")
    place = tmp_path / ATTEMPTS / "newer"
    place.mkdir()
    (only(tmp_path / ATTEMPTS / "new") / "ckpt" / "step-9" / "state").write_bytes(b"?")
    take_over(tmp_path, place, KEY, NAME)
    assert newest_step(only(place)) == 5
    sweep_up(tmp_path)
    assert not (tmp_path / ATTEMPTS).exists()


def test_a_result_published_between_look_and_move_is_put_back(tmp_path: Path, monkeypatch) -> None:
    """A failed result stood when this attempt looked; another attempt finished before it moved."""
    from harness.sweep.engines import attempts as apart

    list(perform_apart(committing("done", "other"), order(), shop(tmp_path)))
    looks = iter([False, True])
    monkeypatch.setattr(apart, "_stands", lambda _: next(looks))
    staged = tmp_path / ATTEMPTS / "late" / f"{KEY[:8]}-{NAME}"
    staged.mkdir(parents=True)
    assert publish(staged, tmp_path, KEY) is False
    assert (only(tmp_path) / "mark").read_text() == "other"


def test_a_worker_says_what_it_cannot_work_with(tmp_path: Path) -> None:
    """A folder that is not shared, another version of the code: bad input, in one plain line."""
    far = shared(shop(tmp_path))
    (unseen,) = carry_out_far(committing("done", ""), order(), far, tmp_path / ".driver-elsewhere", code())
    assert unseen.kind == "input" and "does not see the driver's files" in unseen.text
    sign = put_up_sign(tmp_path)
    (other,) = carry_out_far(committing("done", ""), order(), far, sign, "another")
    assert other.kind == "input" and "a different version of the harness" in other.text
    assert put_up_sign(tmp_path) != sign and not sign.exists()


def test_a_worker_is_told_to_stop_when_the_drivers_sign_goes(tmp_path: Path) -> None:
    sign = put_up_sign(tmp_path)

    def looking(task: WorkerTask, own: WorkerConfig) -> Iterator[Event]:
        stop = listen(worker=True)
        sign.unlink()
        until = time.monotonic() + 20
        while not stop.heard and time.monotonic() < until:
            time.sleep(0.05)
        yield Event("built", task.number, status="stopped" if stop.heard else "went on")

    with listening() as stop, stop.softly():
        (message,) = carry_out_far(looking, WorkerTask("build", 1, ()), shared(shop(tmp_path)), sign, code())
    assert message.status == "stopped"


def test_what_is_shared_names_places_in_full(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    far = shared(replace(shop(Path("runs")), live={"workshop": object()}))
    assert (far.folder, far.cache, far.live) == (str(tmp_path / "runs"), str(tmp_path / "runs/cache"), {})
