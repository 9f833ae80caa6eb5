"""The folder of a demonstration: one demonstration at a time, and nobody else's files are ever removed."""

import fcntl
import json
import os
import socket
from pathlib import Path

import pytest

from drimbox.demo.places import Ports, ports
from drimbox.demo.play import Options, play
from drimbox.foundation.errors import Misconfigured


async def test_fresh_never_removes_what_is_not_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "thesis.txt"
    kept.write_text("years of work")
    assert await play(Options(tmp_path, tmp_path, fresh=True, once=True)) == 1
    assert "n'est pas le dossier d'une démonstration" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["thesis.txt"]


async def test_fresh_leaves_a_demonstration_that_runs_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ports.json").write_text("{}")
    with (tmp_path / "demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert await play(Options(tmp_path, tmp_path, fresh=True, once=True)) == 1
    assert "tourne déjà" in capsys.readouterr().err
    assert (tmp_path / "ports.json").exists()


def test_ports_stay_and_one_taken_since_is_named(tmp_path: Path) -> None:
    chosen = ports(tmp_path, 21400)
    assert ports(tmp_path) == chosen
    assert Ports(**json.loads((tmp_path / "ports.json").read_text())) == chosen
    with socket.socket() as other:
        other.bind(("127.0.0.1", chosen.wado_a))
        other.listen()
        with pytest.raises(Misconfigured, match=str(chosen.wado_a)):
            ports(tmp_path)


def test_the_folder_of_an_earlier_version_keeps_its_ports_and_gets_those_that_it_lacks(tmp_path: Path) -> None:
    chosen = ports(tmp_path, 21500)
    told = json.loads((tmp_path / "ports.json").read_text())
    del told["iocm_a"]
    (tmp_path / "ports.json").write_text(json.dumps(told | {"listener_of_old": 21499}))
    now = ports(tmp_path)
    assert {name: getattr(now, name) for name in told} == told
    assert now.iocm_a not in told.values()
    assert ports(tmp_path) == now
    assert chosen.wado_a == now.wado_a
