"""``python -m drimbox.bench.receiver DSN FOLDER``: the reception of a source alone, in a process of its own.

The parts and the loop are the box's; what is left out is the work on what was received, which is measured apart.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from drimbox.foundation import event_loop
from drimbox.foundation.clock import SystemClock
from drimbox.foundation.signals import stop_on
from drimbox.publication.incidents import Incidents
from drimbox.record import logs
from drimbox.record.audit import Journal
from drimbox.record.pseudonym import load_patient_key
from drimbox.reports.intake import Intake
from drimbox.reports.mllp import Limits, listening
from drimbox.store import database


def main() -> None:
    """Receive until told to stop; the port goes to standard output."""
    logs.configure("INFO")
    dsn, folder = sys.argv[1:]
    event_loop.run(_receive(dsn, Path(folder)))


async def _receive(dsn: str, folder: Path) -> None:
    stop = asyncio.Event()
    stop_on(stop)
    clock = SystemClock()
    async with database.opened(dsn) as pool:
        intake = Intake(
            pool,
            clock,
            structure_of=lambda _: "ambroise",
            open_incident=Incidents(pool, clock).open_for_message,
            journal=Journal(pool, load_patient_key(folder / "audit.key")),
        )
        async with listening(intake.receive, host="127.0.0.1", port=0, limits=Limits()) as port:
            print(port, flush=True)
            await stop.wait()


if __name__ == "__main__":
    main()
