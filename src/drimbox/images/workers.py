"""A few processes that decode and encode images, so that a hostile one can neither stop nor slow down anybody else."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import drimbox
from drimbox.foundation.errors import IdentityMismatch, Refused
from drimbox.identity.ins import Ins
from drimbox.images.pixels import BETWEEN

_log = logging.getLogger(__name__)

_MAX_ANSWER = 4096


class Transcoder(Protocol):
    """Turns files into other files, elsewhere than in this process."""

    async def transcode(self, source: Path, target: Path, syntax: str) -> None:
        """``images.transcode.transcode``. Raises ``Refused`` when it cannot be done, whatever the cause."""

    async def metadata(self, source: Path, target: Path, ins: Ins) -> None:
        """``images.metadata.write_metadata``. Raises ``Refused``, ``IdentityMismatch``."""


class WorkerPool:
    """``size`` processes, started when they are first needed, replaced when they die.

    A job that kills its process, or takes longer than ``timeout`` seconds, fails alone; ``memory`` is the address space
    that a process may take.
    """

    def __init__(self, *, size: int = os.cpu_count() or 1, timeout: float = 120.0, memory: int = 6 * 2**30) -> None:
        self._timeout = timeout
        self._memory = memory
        self._slots: asyncio.Queue[_Slot] = asyncio.LifoQueue()
        self._all = tuple(_Slot() for _ in range(size))
        for slot in self._all:
            self._slots.put_nowait(slot)

    @property
    def size(self) -> int:
        return len(self._all)

    async def warm(self) -> None:
        """Start one process now, so that the first image to be transcoded does not wait for it."""
        async with self._slot() as slot:
            await slot.running(self._memory)

    async def close(self) -> None:
        """Stop every process."""
        await asyncio.gather(*(slot.stop() for slot in self._all))

    async def transcode(self, source: Path, target: Path, syntax: str) -> None:
        await self._run({"do": "transcode", "source": str(source), "target": str(target), "syntax": syntax}, target)

    async def metadata(self, source: Path, target: Path, ins: Ins) -> None:
        request = {"do": "metadata", "source": str(source), "target": str(target)}
        await self._run(request | {"matricule": ins.matricule, "oid": ins.oid}, target)

    async def _run(self, request: dict[str, str], target: Path) -> None:
        try:
            async with self._slot() as slot:
                answer = await slot.ask(request, self._memory, self._timeout)
            _raise_refusal(answer)
        except BaseException:
            _remove(target)
            raise

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[_Slot]:
        slot = await self._slots.get()
        try:
            yield slot
        finally:
            self._slots.put_nowait(slot)


class _Slot:
    """The place of one process."""

    def __init__(self) -> None:
        self._process: Process | None = None
        self._dying: list[Process] = []

    async def running(self, memory: int) -> Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "drimbox.images.worker",
                str(memory),
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
                limit=_MAX_ANSWER,
                # Nothing of our own environment: it may name secrets.
                env={"PYTHONPATH": str(Path(drimbox.__file__).parents[1]), "LANG": "C.UTF-8"},
            )
        return self._process

    async def ask(self, request: dict[str, str], memory: int, timeout: float) -> dict[str, str]:
        try:
            async with asyncio.timeout(timeout):
                process = await self.running(memory)
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(json.dumps(request).encode() + b"\n")
                await process.stdin.drain()
                line = await process.stdout.readline()
        except TimeoutError:
            self._kill()
            raise Refused("Image DICOM trop longue à convertir", code="codec-timeout") from None
        except (OSError, ValueError):
            line = b""
        except BaseException:
            # Cancelled: the answer to this request must not be taken for that to the next.
            self._kill()
            raise
        if not line.endswith(b"\n"):
            self._kill()
            _log.error("an image killed the process that decoded it")
            raise Refused("Image DICOM illisible : elle a arrêté son décodeur", code="codec-crash")
        answer: dict[str, str] = json.loads(line)
        return answer

    async def stop(self) -> None:
        self._kill()
        for process in self._dying:
            await process.wait()
        self._dying.clear()

    def _kill(self) -> None:
        self._dying = [p for p in self._dying if p.returncode is None]
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            process.kill()
        self._dying.append(process)


@asynccontextmanager
async def worker_pool(*, size: int = os.cpu_count() or 1, timeout: float = 120.0) -> AsyncIterator[WorkerPool]:
    """A pool for as long as the block lasts."""
    pool = WorkerPool(size=size, timeout=timeout)
    try:
        yield pool
    finally:
        await pool.close()


def _remove(target: Path) -> None:
    for path in (target, target.with_name(target.name + BETWEEN)):
        path.unlink(missing_ok=True)


def _raise_refusal(answer: dict[str, str]) -> None:
    if "mismatch" in answer:
        raise IdentityMismatch(answer["reason"], code=answer["mismatch"])
    if "refused" in answer:
        if kind := answer.get("kind"):
            _log.warning("an image could not be decoded: %s", kind)
        raise Refused(answer["reason"], code=answer["refused"])
