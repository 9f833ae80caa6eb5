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
    iocm_a: int
    console_a: int
    console_b: int
    vi_a: int
    phone: int
    citizens: int


def ports(state: Path, first: int = FIRST_PORT) -> Ports:
    """The ports of this state folder: chosen once, from ``first`` on, and kept with it: published KOS name them.

    A listener that the folder does not know yet, because an earlier version made it, gets a port beside the others.
    Raises ``Misconfigured`` (``ports-taken``) when another program has taken some of them since.
    """
    file = state / "ports.json"
    told: dict[str, int] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    chosen = {name: told[name] for name in Ports.__dataclass_fields__ if name in told}
    if taken := [str(port) for port in chosen.values() if not _free(port)]:
        reason = f"Un autre programme tient des ports de cette démonstration ({', '.join(taken)}) : arrêtez-le"
        raise Misconfigured(f"{reason}, ou prenez un autre dossier (--state)", code="ports-taken")
    candidate = max(chosen.values(), default=first - 1)
    for name in Ports.__dataclass_fields__:
        if name not in chosen:
            candidate = _next_free(candidate + 1)
            chosen[name] = candidate
    result = Ports(**chosen)
    state.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(result), indent=2), "utf-8")
    return result


def _next_free(candidate: int) -> int:
    while not _free(candidate):
        candidate += 1
    return candidate


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
