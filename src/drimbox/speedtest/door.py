"""How the command reaches the box that runs: a socket in its state folder, for its own account alone.

The images must come to the box's own listener and by its own associations; a second process could have neither. One
JSON line asks, JSON lines answer: what is being done, then what was measured, or why it could not be. No identifier of
a patient passes.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Busy, DrimboxError, Misconfigured, Unavailable
from drimbox.pacs.access import PacsAccess
from drimbox.speedtest.measured import Measured, decoded, encoded
from drimbox.speedtest.measuring import Progress, Record, Tell, measure

_log = logging.getLogger(__name__)
_NAME = "speedtest.sock"
_MOST_ASKED = 4096
_LONGEST_NAME = 100
_MOST_ANSWERED = 64 * 2**20


@asynccontextmanager
async def listening(
    state: Path, accesses: Mapping[str, PacsAccess], clock: Clock, recording: Callable[[str], Record]
) -> AsyncIterator[None]:
    """Measure for who asks, one at a time, until the block ends. Raises ``OSError``.

    ``recording`` gives what writes a measurement into the audit journal, for who asked for it.
    """
    busy = asyncio.Lock()
    tasks: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await _answer(reader, writer, accesses, clock, busy, recording)
        finally:
            tasks.discard(task)
            writer.close()

    with _bound(state) as listener:
        server = await asyncio.start_unix_server(answer, sock=listener, limit=_MOST_ASKED)
        try:
            yield
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            (state / _NAME).unlink(missing_ok=True)


async def asked(state: Path, pacs: str, study_uid: str, tell: Tell, *, by: str) -> Measured:
    """Have the box that runs measure for ``by``. Raises what it says, and ``Unavailable`` where it does not answer."""
    try:
        with _short(state) as path:
            reader, writer = await asyncio.open_unix_connection(path, limit=_MOST_ANSWERED)
    except OSError as error:
        raise _silent() from error
    try:
        writer.write(json.dumps({"pacs": pacs, "study": study_uid, "by": by}).encode() + b"\n")
        while line := await reader.readline():
            said = json.loads(line)
            if "progress" in said:
                tell(Progress(**said["progress"]))
            elif "measured" in said:
                return decoded(said["measured"])
            else:
                raise _error(said)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _silent() from error
    finally:
        writer.close()
    raise _silent()


async def _answer(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    accesses: Mapping[str, PacsAccess],
    clock: Clock,
    busy: asyncio.Lock,
    recording: Callable[[str], Record],
) -> None:
    def say(what: dict[str, Any]) -> None:
        writer.write(json.dumps(what).encode() + b"\n")

    try:
        question = json.loads(await reader.readline())
        pacs, study_uid = str(question["pacs"]), str(question["study"])
        record = recording(str(question["by"])[:_LONGEST_NAME])
        access = chosen(accesses, pacs)
        if busy.locked():
            raise Busy("Une mesure est déjà en cours sur cette passerelle.", code="measuring")
        async with busy:
            tell: Tell = lambda now: say({"progress": asdict(now)})  # noqa: E731
            measured = await _unless_left(reader, measure(access, study_uid, clock, tell, record))
        if measured is not None:
            say({"measured": encoded(measured)})
    except DrimboxError as error:
        say({"reason": error.reason, "code": error.code, "peer_code": error.peer_code})
    except (ValueError, KeyError, TypeError):
        say({"reason": "La demande de mesure est illisible.", "code": "question", "peer_code": None})
    with suppress(OSError):
        await writer.drain()


async def _unless_left(reader: asyncio.StreamReader, work: Any) -> Measured | None:
    """The result, or None, and the work cancelled, where the one who asked leaves."""
    running = asyncio.ensure_future(work)
    left = asyncio.ensure_future(reader.read(1))
    try:
        await asyncio.wait((running, left), return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            _log.info("speed test given up by who asked for it")
            return None
        result: Measured = running.result()
        return result
    finally:
        for task in (running, left):
            task.cancel()
        await asyncio.gather(running, left, return_exceptions=True)


def chosen(accesses: Mapping[str, PacsAccess], pacs: str) -> PacsAccess:
    """The PACS of that id, or the only one. Raises ``Misconfigured``."""
    if not pacs and len(accesses) == 1:
        return next(iter(accesses.values()))
    if pacs not in accesses:
        names = ", ".join(accesses) or "aucun"
        what = f"Le PACS {pacs} n'est pas dans la configuration" if pacs else "Plusieurs PACS sont configurés"
        raise Misconfigured(f"{what} : nommez l'un de ceux-ci par --pacs : {names}.", code="pacs-unknown")
    return accesses[pacs]


def _error(said: Mapping[str, Any]) -> DrimboxError:
    return DrimboxError(str(said["reason"]), code=str(said["code"]), peer_code=said["peer_code"])


def _silent() -> Unavailable:
    reason = "La passerelle en marche ne répond pas à la demande de mesure : consultez son journal."
    return Unavailable(reason, code="box-silent")


@contextmanager
def _bound(state: Path) -> Iterator[socket.socket]:
    (state / _NAME).unlink(missing_ok=True)
    # The path stays good for as long as the socket: the event loop may look at it when it closes.
    with _short(state) as path, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        os.chmod(state / _NAME, 0o600)
        yield listener


@contextmanager
def _short(state: Path) -> Iterator[str]:
    """A path to the socket that is short enough for one (unix(7)), however deep its folder lies."""
    folder = os.open(state, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{_NAME}"
    finally:
        os.close(folder)
