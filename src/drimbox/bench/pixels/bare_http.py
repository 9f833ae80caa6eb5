"""The least that a server of images can do: the files as they lie, from the disk to the socket, nothing checked.

``python -m drimbox.bench.pixels.bare_http FILE``: a JSON file says what to send (``Offered``). It listens in the clear
and with mutual TLS, as the box does; one JSON line tells both ports. What this machine, this client and OpenSSL give.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from drimbox.trust.keystore import load_credential
from drimbox.trust.tls import load_trust, server_context

_BUFFER = 1 << 18


@dataclass(frozen=True, slots=True)
class Offered:
    """The files of each path, and what TLS takes (``box.Keys``)."""

    files: Mapping[str, Sequence[str]]
    roots: str
    revocations: Sequence[str]
    certificate: str
    key: str


def write_offered(path: Path, offered: Offered) -> None:
    """For ``main``."""
    path.write_text(json.dumps(asdict(offered)), "utf-8")


def main() -> None:
    """Serve until killed."""
    offered = Offered(**json.loads(Path(sys.argv[1]).read_text("utf-8")))
    trust = load_trust([Path(offered.roots)], [Path(path) for path in offered.revocations])
    tls = server_context(load_credential(Path(offered.certificate), Path(offered.key)), trust)
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    for listener, context in zip(listeners, (None, tls), strict=True):
        threading.Thread(target=_serve, args=(listener, context, offered.files), daemon=True).start()
    clear, secure = (listener.getsockname()[1] for listener in listeners)
    print(json.dumps({"clear": clear, "tls": secure}), flush=True)
    sys.stdin.read()


def _serve(listener: socket.socket, tls: ssl.SSLContext | None, files: Mapping[str, Sequence[str]]) -> None:
    """One after the other: it is asked by one client."""
    while True:
        peer, _ = listener.accept()
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with peer if tls is None else tls.wrap_socket(peer, server_side=True) as connection:
            _answer(connection, files)


def _answer(connection: socket.socket, files: Mapping[str, Sequence[str]]) -> None:
    request = b""
    while b"\r\n\r\n" not in request:
        request += connection.recv(65536)
    wanted = files[request.split(b" ", 2)[1].decode()]
    size = sum(os.stat(path).st_size for path in wanted)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
    buffer = memoryview(bytearray(_BUFFER))
    for path in wanted:
        with open(path, "rb", buffering=0) as file:
            while got := file.readinto(buffer):
                connection.sendall(buffer[:got])


if __name__ == "__main__":
    main()
