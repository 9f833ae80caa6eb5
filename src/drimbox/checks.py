"""What ``./drimbox test`` runs: style, types, and the tests, in two runs of pytest side by side.

The tests that start a whole mesh or a PACS mostly wait; the others mostly compute. Together they take little longer
than the longer half.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

# Tests that mostly wait: for programs to start, for work to be taken up again, for pages.
_WAITING = ("tests/mesh", "tests/chaos", "tests/bench", "tests/consumer", "tests/reconciliation")
_UNHURRIED = ("-o", "faulthandler_timeout=0")
_LAST_WORDS = 5.0


def check(home: Path, *, slow: bool, arguments: Sequence[str]) -> int:
    """Style, types, tests; the first exit status that is not 0.

    ``arguments`` go to pytest, which then runs once, for a part of the tests.
    """
    tools = Path(sys.executable).parent
    for command in (["ruff", "format", "--check", "src", "tests"], ["ruff", "check", "src", "tests"], ["mypy"]):
        status = subprocess.run([str(tools / command[0]), *command[1:]], cwd=home, check=False).returncode  # noqa: S603
        if status:
            return status
    pytest = [str(tools / "pytest"), "-q", "--durations=10", "--durations-min=5"]
    marked = [*_UNHURRIED, "-m", "not chaos"] if slow else ["-m", "not slow and not chaos"]
    if arguments:
        return subprocess.run([*pytest, *marked, *arguments], cwd=home, check=False).returncode  # noqa: S603
    # Each run has its own cache of what failed last.
    first = [*pytest, *marked, "-o", "cache_dir=.pytest_cache/waiting", *_WAITING]
    second = [*pytest, *marked, *(f"--ignore={folder}" for folder in _WAITING)]
    return side_by_side({"1": first, "2": second}, home)


def chaos(home: Path, arguments: Sequence[str]) -> int:
    """The chaos run alone."""
    pytest = [str(Path(sys.executable).parent / "pytest"), "-q", *_UNHURRIED, "-m", "chaos", "tests/chaos"]
    return subprocess.run([*pytest, *arguments], cwd=home, check=False).returncode  # noqa: S603


def side_by_side(commands: dict[str, list[str]], home: Path) -> int:
    """Run commands at the same time, each line of theirs with a name before it; the highest exit status."""
    running = {
        name: subprocess.Popen(  # noqa: S603
            command, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", bufsize=1
        )
        for name, command in commands.items()
    }
    readers = []
    for name, process in running.items():
        assert process.stdout is not None
        # A daemon: what a test left running may hold the pipe open for ever.
        reader = threading.Thread(target=_pass_on, args=(name, process.stdout), daemon=True)
        reader.start()
        readers.append(reader)
    try:
        statuses = [process.wait() for process in running.values()]
    except KeyboardInterrupt:
        # The terminal has told them too.
        statuses = [process.wait() for process in running.values()]
    for reader in readers:
        reader.join(_LAST_WORDS)
    # One that a signal ended has a negative status.
    return max(abs(status) for status in statuses)


def _pass_on(name: str, lines: IO[str]) -> None:
    with lines:
        for line in lines:
            sys.stdout.write(f"{name}| {line}")
            sys.stdout.flush()
