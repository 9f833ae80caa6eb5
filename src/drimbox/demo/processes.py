"""Processes of the mesh: started, waited for, watched, stopped in order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

READY = "READY"


class NotStarted(Exception):
    """A process ended, or stayed silent, before it was ready; its log says why."""


@dataclass(frozen=True, slots=True)
class Running:
    """A process that said it is ready."""

    name: str
    process: asyncio.subprocess.Process
    log: Path
    started_in: float

    def memory(self) -> int:
        """Resident bytes of the process and its children; an embedded PostgreSQL is none of them (``memory_of``)."""
        return sum(_resident(pid) for pid in _family(self.process.pid))

    @property
    def alive(self) -> bool:
        return self.process.returncode is None


@asynccontextmanager
async def started(
    name: str, arguments: Sequence[str], *, log: Path, environment: dict[str, str] | None = None, patience: float = 60.0
) -> AsyncIterator[Running]:
    """Run ``python -m drimbox ARGUMENTS`` until the block ends; entered once it has printed ``READY``.

    Its log (standard error) goes to ``log``. Raises ``NotStarted``.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    # A pipe of our own: asyncio would wait for the end of its pipes too, and whatever the process leaves behind holds
    # them open.
    reading, writing = os.pipe()
    try:
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *_bound_to_us(),
                sys.executable,
                "-m",
                "drimbox",
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writing,
                stderr=output,
                env={**os.environ, **(environment or {})},
                # Ctrl-C is for the one who stops them in order, not for each of them at once.
                start_new_session=True,
            )
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    try:
        async with _lines(reading) as said:
            await _until_ready(said, name, log, patience)
            yield Running(name, process, log, loop.time() - begun)
    finally:
        await _stopped(process)


def _bound_to_us() -> tuple[str, ...]:
    """Where the system can, what we start is told to stop when we are killed and cannot tell it ourselves."""
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "TERM", "--") if setpriv else ()


@asynccontextmanager
async def _lines(descriptor: int) -> AsyncIterator[asyncio.StreamReader]:
    """What is written into a pipe, until the block ends."""
    said = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(said), os.fdopen(descriptor, "rb", 0)
    )
    try:
        yield said
    finally:
        transport.close()


async def _until_ready(said: asyncio.StreamReader, name: str, log: Path, patience: float) -> None:
    try:
        async with asyncio.timeout(patience):
            while line := await said.readline():
                if line.decode("utf-8", "replace").strip() == READY:
                    return
    except TimeoutError:
        raise NotStarted(f"{name} was not ready after {patience:.0f} s; see {log}") from None
    raise NotStarted(f"{name} ended before it was ready; see {log}\n{_tail(log)}")


def _tail(log: Path, lines: int = 12) -> str:
    text = log.read_text("utf-8", "replace") if log.exists() else ""
    return "\n".join(_short(line) for line in text.splitlines()[-lines:])


def _short(line: str) -> str:
    """A line of a log as a person reads it: what was said, and of an error its last line."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        record = json.loads(line)
        error = str(record.get("error", "")).strip().rpartition("\n")[2]
        return f"  {record['message']}" + (f": {error}" if error else "")
    return line


async def _stopped(process: asyncio.subprocess.Process, patience: float = 20.0) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(patience):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def memory_of(pid: int) -> int:
    """Resident bytes of a process and its children, what they share counted once (PSS); 0 for one that is gone."""
    return sum(_proportional(member) for member in _family(pid))


def _proportional(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def _family(pid: int) -> list[int]:
    """The process and all of its descendants."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            # The name in parentheses may hold spaces; what follows it does not.
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
            parents.setdefault(int(stat[1]), []).append(int(entry.name))
    family, waiting = [], [pid]
    while waiting:
        current = waiting.pop()
        family.append(current)
        waiting += parents.get(current, [])
    return family


def _resident(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
