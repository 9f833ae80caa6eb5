"""nginx, started with a configuration of the box's own making."""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def quiet_ports(count: int) -> list[int]:
    """Ports that the system gives to no outgoing connection: what is free stays so until nginx takes it."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(10_000, 17_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


@contextmanager
def nginx(folder: Path, servers: str, *, master: bool = False) -> Iterator[None]:
    """nginx with these server blocks until the block ends; what it says is in ``folder/error.log``.

    With its ``master`` process it can be told to read its configuration again.
    """
    program = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if program is None:
        pytest.skip("nginx is not installed: apt-get install nginx-light")
    folder.mkdir(exist_ok=True)
    (folder / "drimbox.conf").write_text(servers, "utf-8")
    temporary = "\n".join(
        f"    {name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        # Workers of another account could not come to the folder of a test.
        f"daemon off;\n{'user root;' if master else 'master_process off;'}\npid {folder}/pid;\n"
        f"error_log {folder}/error.log info;\n"
        f"events {{ worker_connections 256; }}\nhttp {{\n    access_log off;\n{temporary}\n"
        f"    include {folder}/drimbox.conf;\n}}\n",
        "utf-8",
    )
    command = [program, "-p", str(folder), "-e", f"{folder}/error.log", "-c", str(folder / "nginx.conf")]
    tried = subprocess.run([*command, "-t"], capture_output=True, text=True, timeout=20, check=False)
    assert tried.returncode == 0, tried.stderr
    process = subprocess.Popen(command)
    try:
        _until(lambda: (folder / "pid").exists() and (folder / "pid").read_text().strip() != "")
        yield
    finally:
        process.terminate()
        process.wait(10)


def _until(true: Callable[[], bool]) -> None:
    for _ in range(200):
        if true():
            return
        time.sleep(0.02)
    raise AssertionError("nginx did not start")
