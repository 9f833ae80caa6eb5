"""The programs that others use, as Debian ships them, started for the time of a measurement."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from drimbox.foundation.errors import Misconfigured

# By their full path: pynetdicom puts programs of the same names beside the interpreter.
STORESCU, STORESCP, MOVESCU = Path("/usr/bin/storescu"), Path("/usr/bin/storescp"), Path("/usr/bin/movescu")
_NO_NAGLE = "TCP_NODELAY"
_PATIENCE = 900.0


def require_dcmtk() -> None:
    """Raises ``Misconfigured`` where DCMTK's programs are not there."""
    if missing := [path.name for path in (STORESCU, STORESCP, MOVESCU) if not path.exists()]:
        raise Misconfigured(f"DCMTK n'est pas installé ({', '.join(missing)}) : apt-get install dcmtk", code="dcmtk")


def free_port() -> int:
    """A port that nothing listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def running(command: Sequence[str], port: int, log: Path) -> Iterator[int]:
    """A program that listens on ``port`` for the time of the block; gives its process number.

    Raises ``Misconfigured``.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment())
    try:
        _until_listening(process, port, log)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def storescp(port: int, folder: Path) -> list[str]:
    """A storescp that takes every syntax and writes what it gets."""
    folder.mkdir(parents=True, exist_ok=True)
    return [str(STORESCP), "-aet", "STORESCP", "+xa", "-od", str(folder), str(port)]


def ours(module: str, *arguments: object) -> list[str]:
    """One of our own measuring processes."""
    return [sys.executable, "-m", f"drimbox.bench.pixels.{module}", *map(str, arguments)]


@contextmanager
def storing(port: int, title: str, folder: Path, *, nagle: bool, syntax: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """storescu at work: one association, every file of the folder. It is waited for at the end of the block."""
    propose = {"1.2.840.10008.1.2.4.80": ["-xt"]}.get(syntax, [])
    command = [str(STORESCU), "-aec", title, "-aet", "STORESCU", *propose, "127.0.0.1", str(port)]
    process = subprocess.Popen([*command, "+sd", "+r", str(folder)], env=environment(nagle=nagle))
    try:
        yield process
        _ended(process, "storescu")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def moved(pacs: tuple[str, int], destination: str, study_uid: str) -> float:
    """Seconds that movescu takes to have a study moved."""
    title, port = pacs
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study_uid}"]
    command = [str(MOVESCU), "-S", "-aet", "MOVESCU", "-aec", title, "-aem", destination, *keys, "127.0.0.1", str(port)]
    begun = time.monotonic()
    process = subprocess.Popen(command, env=environment())
    _ended(process, "movescu")
    return time.monotonic() - begun


def environment(*, nagle: bool = True) -> Mapping[str, str]:
    """With Nagle's algorithm as the programs have it, or without (DCMTK heeds ``TCP_NODELAY``)."""
    plain = {name: value for name, value in os.environ.items() if name != _NO_NAGLE}
    return plain if nagle else plain | {_NO_NAGLE: "1"}


def _ended(process: subprocess.Popen[bytes], name: str) -> None:
    if status := process.wait(_PATIENCE):
        raise Misconfigured(f"{name} a échoué (code {status}).", code="peer-failed")


def _until_listening(process: subprocess.Popen[bytes], port: int, log: Path, patience: float = 30.0) -> None:
    end = time.monotonic() + patience
    while time.monotonic() < end and process.poll() is None:
        if _listens(port):
            return
        time.sleep(0.02)
    raise Misconfigured(f"{Path(str(process.args)).name} ne démarre pas (voir {log}).", code="peer-failed")


def _listens(port: int) -> bool:
    """Asked of the kernel, for a connection that only looks would be an association to the peer (proc(5))."""
    wanted = f":{port:04X}"
    lines = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return any(fields[1].endswith(wanted) and fields[3] == "0A" for fields in lines)
