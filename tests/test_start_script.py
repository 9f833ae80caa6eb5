"""The start script ``./drimbox``: it installs once, one shell at a time, and hands nothing of that on."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Plays the Python of the environment: pip takes its time and counts, drimbox says whether the lock becomes free.
PYTHON = """#!/usr/bin/env bash
case "$*" in
*pip*) echo "$@" >>"$DRIMBOX_VENV/installed"; sleep 0.3; [ -z "${PIP_FAILS:-}" ] ;;
*) flock -w 5 "$DRIMBOX_HOME/.install.lock" echo "free: ${*:3}" || echo held ;;
esac
"""


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """A copy of the script with an environment that installs nothing."""
    shutil.copy(ROOT / "drimbox", tmp_path / "drimbox")
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "runtime.txt").write_text("one==1\n", "utf-8")
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON, "utf-8")
    python.chmod(0o755)
    return tmp_path / "drimbox"


def started(start: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    known = {"PATH": "/usr/bin:/bin", "DRIMBOX_VENV": str(start.parent / "venv"), "DRIMBOX_NO_APT": "1"}
    return subprocess.Popen(
        [str(start), *arguments],
        env=known | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def installs(start: Path) -> int:
    told = start.parent / "venv" / "installed"
    return len(told.read_text("utf-8").splitlines()) if told.exists() else 0


def test_what_is_started_after_an_installation_does_not_hold_its_lock(start: Path) -> None:
    """What it starts in turn, such as a demonstration within the tests, would wait for ever."""
    out, err = started(start, "version", "now").communicate(timeout=60)
    assert out == "free: version now\n", err
    assert installs(start) == 1


def test_two_shells_on_a_fresh_clone_install_once(start: Path) -> None:
    both = [started(start, "version") for _ in range(2)]
    assert [process.communicate(timeout=60)[0] for process in both] == ["free: version\n"] * 2
    assert installs(start) == 1


def test_a_changed_lock_file_installs_again(start: Path) -> None:
    for _ in range(2):
        started(start, "version").communicate(timeout=60)
    (start.parent / "requirements" / "runtime.txt").write_text("one==2\n", "utf-8")
    started(start, "version").communicate(timeout=60)
    assert installs(start) == 2


def test_an_installation_that_fails_is_said_and_tried_again(start: Path) -> None:
    process = started(start, "version", PIP_FAILS="1")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert "pip could not install requirements/runtime.txt" in err
    assert started(start, "version").communicate(timeout=60)[0] == "free: version\n"
