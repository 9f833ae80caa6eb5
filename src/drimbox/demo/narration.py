"""What the boxes do while the demonstration stays, told as it happens: their logs, in plain words."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

_EVENTS = "drimbox.record.audit"
_WORDS = {
    "REPORT_RECEIVED": "le RIS a envoyé un compte rendu (ORU)",
    "MDM_RECEIVED": "le RIS a envoyé un compte rendu (MDM)",
    "KOS_PUBLISHED": "publication d'un KOS dans le DMP",
    "KOS_DEPUBLISHED": "un KOS est retiré du DMP",
    "CONTEXTUAL_CALL": "le RIS a fait l'appel contextuel",
    "LOGIN": "le professionnel s'identifie avec Pro Santé Connect",
    "LOGOUT": "le professionnel se déconnecte",
    "DMP_ACCESS_CHECKED": "l'existence du DMP et le droit d'accès sont vérifiés (TD0.2)",
    "DMP_ACCESS_CHANGED": "le professionnel enregistre l'autorisation du patient (TD0.3)",
    "EMERGENCY_STARTED": "le professionnel ouvre un accès en urgence (bris de glace)",
    "EMERGENCY_STOPPED": "l'accès en urgence est terminé",
    "IDENTITY_DECIDED": "le professionnel ouvre un document malgré une différence de traits",
    "NOTICE_ACCEPTED": "le professionnel a pris connaissance de la traçabilité (DMP/AIRS.07)",
    "DMP_QUERIED": "les documents du patient sont cherchés dans le DMP (TD3.1)",
    "DOCUMENT_RETRIEVED": "un document est lu dans le DMP (TD3.2)",
    "IMAGES_SERVED": "des images sont servies à une autre DRIMbox (WADO-RS)",
    "IMAGES_FETCHED": "une série est reçue du site source",
    "IMAGES_VIEWED": "la visionneuse est ouverte",
    "NODE_REFUSED": "un appelant est refusé",
    "TOKEN_REFUSED": "un jeton est refusé",
}


@asynccontextmanager
async def following(logs: Sequence[Path], say: Callable[[str], None]) -> AsyncIterator[None]:
    """Tell what the logs say from now on, until the block ends."""
    tasks = [asyncio.create_task(_follow(log, say)) for log in logs]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _follow(log: Path, say: Callable[[str], None]) -> None:
    position = await asyncio.to_thread(_size, log)
    rest = b""
    while True:
        await asyncio.sleep(0.25)
        data = await asyncio.to_thread(_read, log, position)
        position += len(data)
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            words = told(line)
            if words:
                say(f"  {log.stem} : {words}")


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


def _read(log: Path, position: int) -> bytes:
    with log.open("rb") as file:
        file.seek(position)
        return file.read(2**20)


def told(line: bytes) -> str:
    """One line of a box's log in plain words; empty for what is not worth telling."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        record = json.loads(line)
        if record["logger"] == _EVENTS:
            name, _, outcome = str(record["message"]).partition(", outcome ")
            words = _WORDS.get(name, "")
            return (
                words if not words or outcome == "0" else f"{words} – arrêtée ou refusée (voir la file de l'opérateur)"
            )
    return ""
