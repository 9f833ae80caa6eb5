"""Where everything of a demonstration listens: ports that stay the same from one start to the next."""

from __future__ import annotations

import json
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

FIRST_PORT = 17400


@dataclass(frozen=True, slots=True)
class Ports:
    """One port per listener, all on loopback."""

    psc: int
    dmp: int
    whitelist: int
    view: int
    wallet: int
    ris_a: int
    ris_b: int
    mllp_a: int
    dicom_a: int
    wado_a: int
    consumer_b: int
    dicom_b: int
    pacs_a: int
    pacs_a_http: int
    pacs_b: int
    pacs_b_http: int
    dicom_client: int


def ports(state: Path, first: int = FIRST_PORT) -> Ports:
    """The ports of this state folder: chosen once, from ``first`` on, and kept with it: published KOS name them."""
    file = state / "ports.json"
    if file.exists():
        return Ports(**json.loads(file.read_text("utf-8")))
    chosen: dict[str, int] = {}
    candidate = first
    for name in Ports.__dataclass_fields__:
        while not _free(candidate):
            candidate += 1
        chosen[name] = candidate
        candidate += 1
    result = Ports(**chosen)
    state.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(result), indent=2), "utf-8")
    return result


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
