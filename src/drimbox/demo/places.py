"""Where everything of a demonstration listens: ports that stay the same from one start to the next."""

from __future__ import annotations

import json
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from drimbox.foundation.errors import Misconfigured

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
    """The ports of this state folder: chosen once, from ``first`` on, and kept with it: published KOS name them.

    Raises ``Misconfigured`` (``ports-taken``) when another program has taken some of them since.
    """
    file = state / "ports.json"
    if file.exists():
        kept = Ports(**json.loads(file.read_text("utf-8")))
        if taken := [str(port) for port in asdict(kept).values() if not _free(port)]:
            reason = f"Un autre programme tient des ports de cette démonstration ({', '.join(taken)}) : arrêtez-le"
            raise Misconfigured(f"{reason}, ou prenez un autre dossier (--state)", code="ports-taken")
        return kept
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
