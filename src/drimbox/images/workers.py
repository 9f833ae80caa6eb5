"""A few processes that decode and encode images, so that a hostile one can neither stop nor slow down anybody else."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import drimbox
from drimbox.foundation.errors import IdentityMismatch, Refused
from drimbox.identity.ins import Ins
from drimbox.images.reencode import BETWEEN
from drimbox.images.threads import in_thread

_log = logging.getLogger(__name__)

_MAX_ANSWER = 2**20
_AT_ONCE = 2**20


@dataclass(frozen=True, slots=True)
class Made:
    """What a transcoder made: ``content``, or the file that was named when it was not to be held in memory.

    ``lengths`` are those of the frames that were asked for; the identifiers are those of the source.
    """

    size: int
    content: bytes | None
    lengths: tuple[int, ...] = ()
    study_uid: str = ""
    series_uid: str = ""
    sop_instance_uid: str = ""


class Transcoder(Protocol):
    """Turns images into other forms, elsewhere than in this process.

    ``target`` is a file that does not exist yet: what is made lies there unless ``in_memory``, for what is known to be
    short. All raise ``Refused`` when it cannot be done, whatever the cause; nothing is then left.
    """

    async def image(self, source: Path, target: Path, syntax: str, ins: Ins, *, in_memory: bool) -> Made:
        """The whole image in ``syntax`` with the INS of its patient. Raises ``IdentityMismatch`` also."""

    async def frames(self, source: Path, target: Path, syntax: str, numbers: Sequence[int], *, in_memory: bool) -> Made:
        """Some frames in ``syntax``, one after the other."""

    async def metadata(self, source: Path, target: Path, ins: Ins) -> None:
        """``images.metadata.write_metadata``. Raises ``IdentityMismatch`` also."""


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
        """Start every process now, and wait until they are ready: no image is to wait for that."""

        async def one() -> None:
            async with self._slot() as slot:
                await slot.ask({"do": "nothing"}, self._memory, self._timeout)

        await asyncio.gather(*(one() for _ in self._all))

    async def close(self) -> None:
        """Stop every process."""
        await asyncio.gather(*(slot.stop() for slot in self._all))

    async def transcode(self, source: Path, target: Path, syntax: str) -> None:
        """The image in ``syntax`` at ``target``, nothing put in. Raises ``Refused``."""
        await self._run("image", source, target, {"syntax": syntax}, in_memory=False)

    async def image(self, source: Path, target: Path, syntax: str, ins: Ins, *, in_memory: bool) -> Made:
        return await self._run("image", source, target, {"syntax": syntax} | _named(ins), in_memory=in_memory)

    async def frames(self, source: Path, target: Path, syntax: str, numbers: Sequence[int], *, in_memory: bool) -> Made:
        more = {"syntax": syntax, "frames": list(numbers)}
        return await self._run("frames", source, target, more, in_memory=in_memory)

    async def metadata(self, source: Path, target: Path, ins: Ins) -> None:
        await self._run("metadata", source, target, _named(ins), in_memory=False)

    async def _run(self, what: str, source: Path, target: Path, more: Mapping[str, object], *, in_memory: bool) -> Made:
        request = {"do": what, "source": str(source), "target": str(target), "in_memory": in_memory, **more}
        try:
            async with self._slot() as slot:
                answer = await slot.ask(request, self._memory, self._timeout)
                _raise_refusal(answer)
                content = await slot.taken(answer["size"]) if in_memory else None
            image = answer.get("image", ["", "", ""])
            return Made(answer.get("size", 0), content, tuple(answer.get("lengths", ())), *image)
        except BaseException:
            if not in_memory:
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
        self._shared: int | None = None
        self._dying: list[Process] = []

    async def running(self, memory: int) -> Process:
        if self._process is None or self._process.returncode is not None:
            self._forget()
            self._shared = os.memfd_create("made", os.MFD_CLOEXEC)
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "drimbox.images.worker",
                str(memory),
                str(self._shared),
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
                limit=_MAX_ANSWER,
                pass_fds=(self._shared,),
                # Nothing of our own environment: it may name secrets.
                env={"PYTHONPATH": str(Path(drimbox.__file__).parents[1]), "LANG": "C.UTF-8"},
            )
        return self._process

    async def taken(self, size: int) -> bytes:
        """What the process made in the memory that it shares. Raises ``Refused`` when it is not there."""
        shared = self._shared
        assert shared is not None
        content = os.pread(shared, size, 0) if size <= _AT_ONCE else await in_thread(os.pread, shared, size, 0)
        if len(content) != size:
            raise Refused("Image DICOM illisible : son décodeur n'a pas rendu ce qu'il annonce", code="codec-crash")
        if size > _AT_ONCE:
            os.ftruncate(shared, 0)
        return content

    async def ask(self, request: Mapping[str, object], memory: int, timeout: float) -> dict[str, Any]:
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
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def stop(self) -> None:
        self._kill()
        for process in self._dying:
            await process.wait()
        self._dying.clear()

    def _kill(self) -> None:
        self._dying = [p for p in self._dying if p.returncode is None]
        self._forget()
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            process.kill()
        self._dying.append(process)

    def _forget(self) -> None:
        if self._shared is not None:
            os.close(self._shared)
            self._shared = None


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


def _named(ins: Ins) -> dict[str, object]:
    return {"matricule": ins.matricule, "oid": ins.oid}


def _raise_refusal(answer: Mapping[str, Any]) -> None:
    if "mismatch" in answer:
        raise IdentityMismatch(answer["reason"], code=answer["mismatch"])
    if "refused" in answer:
        if kind := answer.get("kind"):
            _log.warning("an image could not be decoded: %s", kind)
        raise Refused(answer["reason"], code=answer["refused"])
