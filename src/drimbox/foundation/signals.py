"""How a process is told to stop."""

from __future__ import annotations

import asyncio
import signal

TOLD_TO_STOP = (signal.SIGINT, signal.SIGTERM)


def stop_on(event: asyncio.Event, *numbers: signal.Signals) -> None:
    """Set ``event`` when one of the signals arrives (``TOLD_TO_STOP`` by default), on the running loop.

    Whoever starts us may have blocked or ignored them, as the launchers of services do, and a blocked signal stays so
    in all that it starts: we could never be told.
    """
    chosen = numbers or TOLD_TO_STOP
    for number in chosen:
        asyncio.get_running_loop().add_signal_handler(number, event.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, chosen)
