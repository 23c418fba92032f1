"""`harness doctor`: what each check says of a machine that is fit, and of one that is not."""

import json
import socket

import pytest

from harness.cli import run
from harness.commands import doctor
from harness.commands.doctor import BAD, CHECKS, NOTE, OK, Finding, examine, lines


def test_this_machine_is_fit(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # no look-up of names in a test
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert run(["doctor", "--json", "--out", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == list(CHECKS)
    assert found["versions"]["state"] == OK and "torch 2" in found["versions"]["text"]
    assert "HF_HUB_OFFLINE" in found["hub"]["text"]


def test_a_bad_finding_is_exit_1_and_says_what_to_do(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "CHECKS", {})
    monkeypatch.setattr(doctor, "examine", lambda out: {"disk": Finding(BAD, "full", "free some")})
    assert run(["doctor"]) == 1
    assert capsys.readouterr().out == "bad   disk      full; free some\n"


def test_a_check_that_breaks_is_a_finding():
    def broken(_):
        raise ImportError("no torch here")

    found = examine(None, {"device": broken})
    assert found["device"].state == BAD and "no torch here" in found["device"].text and found["device"].fix


def test_versions_are_held_against_the_ranges(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda _: ["torch>=99", "no-such-thing>=1", "rich"])
    found = doctor.versions(tmp_path)
    assert found.state == BAD
    assert "torch" in found.text and ">=99" in found.text and "no-such-thing is missing" in found.text
    assert "rich" not in found.text


@pytest.mark.parametrize(("free", "kind", "state"), [(10, "ext4", OK), (0.5, "ext4", BAD), (10, "nfs4", NOTE)])
def test_disk(monkeypatch, tmp_path, free, kind, state):
    usage = doctor.shutil.disk_usage(tmp_path)._replace(free=int(free * 2**30))
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(doctor, "file_system", lambda _: kind)
    assert doctor.disk(tmp_path / "not" / "yet").state == state


def test_an_out_that_is_a_file_is_bad(tmp_path):
    (tmp_path / "file").write_text("")
    assert doctor.disk(tmp_path / "file").state == BAD


def test_the_tracking_server_is_asked_and_its_password_never_shown(monkeypatch, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{port}")
        found = doctor.tracking(tmp_path)
    assert found.state == OK and f"127.0.0.1:{port}" in found.text and "secret" not in found.text
    gone = doctor.tracking(tmp_path)
    assert gone.state == NOTE and "harness sync" in gone.fix and "secret" not in gone.text


def test_a_name_that_never_resolves_costs_no_more_than_the_limit(monkeypatch):
    import threading

    never = threading.Event()
    monkeypatch.setattr(doctor.socket, "create_connection", lambda *_, **__: never.wait(5))
    assert doctor.reachable("hub.invalid", 443, seconds=0.05) is False
    never.set()


def test_little_memory_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "free_memory", lambda: 1.5)
    assert doctor.cores(tmp_path).state == NOTE and "--workers 1" in doctor.cores(tmp_path).fix


def test_a_wrong_product_is_bad(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "GEMM_TOLERANCE", 0.0)
    assert doctor.gemm(tmp_path).state == BAD


def test_lines_have_a_row_each():
    assert lines({"a": Finding(OK, "fine"), "b": Finding(NOTE, "so so", "do")}) == [
        "ok    a         fine",
        "note  b         so so; do",
    ]
