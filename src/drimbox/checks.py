"""What ``./drimbox test`` runs: style, then types and the tests, in several runs side by side.

The tests that start a whole mesh, a PACS or a browser mostly wait; the others mostly compute. Together they take little
longer than the longest.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

# Tests that mostly wait: for programs to start, for work to be taken up again, for pages. Those of the mesh share one
# mesh. A last run has all the others.
_WAITING = {
    "1": ("tests/mesh",),
    "2": ("tests/console", "tests/consumer", "tests/link", "tests/link_images"),
    "3": (
        "tests/bench",
        "tests/bench_pixels",
        "tests/certificates",
        "tests/chaos",
        "tests/importing",
        "tests/pacs",
        "tests/reconciliation",
    ),
    "4": ("tests/cache", "tests/fuzz", "tests/images", "tests/portability", "tests/publication"),
}
_UNHURRIED = ("-o", "faulthandler_timeout=0")
_LAST_WORDS = 5.0


def check(home: Path, *, slow: bool, arguments: Sequence[str]) -> int:
    """Style, types, tests; the first exit status that is not 0.

    ``arguments`` go to pytest, which then runs once, for a part of the tests.
    """
    tools = Path(sys.executable).parent
    style = (["ruff", "format", "--check", "src", "tests"], ["ruff", "check", "src", "tests"])
    for command in (*style, ["mypy"]) if arguments else style:
        status = subprocess.run([str(tools / command[0]), *command[1:]], cwd=home, check=False).returncode  # noqa: S603
        if status:
            return status
    pytest = [str(tools / "pytest"), "-q", "--durations=10", "--durations-min=5"]
    marked = [*_UNHURRIED, "-m", "not chaos"] if slow else ["-m", "not slow and not chaos"]
    if arguments:
        return subprocess.run([*pytest, *marked, *arguments], cwd=home, check=False).returncode  # noqa: S603
    left = [f"--ignore={folder}" for folders in _WAITING.values() for folder in folders]
    runs = {
        # Each run has its own cache of what failed last.
        name: [*pytest, *marked, "-o", f"cache_dir=.pytest_cache/{name}", *what]
        for name, what in {**_WAITING, "5": left}.items()
    }
    return side_by_side({"types": [str(tools / "mypy")], **runs}, home)


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
    for name, status in zip(running, statuses, strict=True):
        if status:
            print(f"{name}| ended with {status}", flush=True)
    # One that a signal ended has a negative status.
    return max(abs(status) for status in statuses)


def _pass_on(name: str, lines: IO[str]) -> None:
    with lines:
        for line in lines:
            sys.stdout.write(f"{name}| {line}")
            sys.stdout.flush()
