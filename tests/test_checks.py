"""The runs that ``./drimbox test`` starts side by side."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from drimbox.checks import side_by_side


def program(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def test_both_run_at_once_and_every_line_says_whose_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    waits = "import os, time\nwhile not os.path.exists({!r}): time.sleep(0.01)\nopen({!r}, 'w')\nprint({!r})"
    first = f"open('one', 'w')\n{waits.format('two', 'three', 'one is done')}"
    second = waits.format("one", "two", "two is done")
    assert side_by_side({"1": program(first), "2": program(second)}, tmp_path) == 0
    assert sorted(capsys.readouterr().out.splitlines()) == ["1| one is done", "2| two is done"]


@pytest.mark.parametrize(("failing", "status"), [("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", 9)])
def test_one_that_fails_fails_both(tmp_path: Path, failing: str, status: int) -> None:
    for commands in ({"1": program(failing), "2": program("")}, {"1": program(""), "2": program(failing)}):
        assert side_by_side(commands, tmp_path) == status


def test_what_a_test_left_running_does_not_hold_the_end_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left = "import subprocess\nprint(subprocess.Popen(['sleep', '30']).pid)"
    assert side_by_side({"1": program(left)}, tmp_path) == 0
    pid = int(capsys.readouterr().out.removeprefix("1| "))
    assert Path(f"/proc/{pid}").exists()
