"""What goes wrong around and inside a box, at random: each fault alone on what it strikes, and healed in the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from chaos_site import Site

from drimbox.demo.processes import NotStarted
from drimbox.foundation.errors import DrimboxError
from drimbox.foundation.http_client import HttpClient

_DMP_FAULTS = ("fault", "busy", "unavailable", "drop", "cut", "timeout", "slow", "partial")
_DMP_SERVICES = ("repository", "repository", "registry", "")


@dataclass(slots=True)
class Monkey:
    """Strikes until told to stop. ``pace`` is the mean of seconds between two faults, ``spare`` makes outages short."""

    site: Site
    rng: random.Random
    http: HttpClient
    tls: ssl.SSLContext
    pace: float
    spare: float = 1.0
    counts: Counter[str] = field(default_factory=Counter)
    _at_work: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    async def rage(self) -> None:
        """Until cancelled: a fault now, a fault then; never two on the same thing."""
        faults = self._faults()
        while True:
            await asyncio.sleep(self.rng.expovariate(1 / self.pace))
            target, _, strike = self.rng.choices(faults, [weight for _, weight, _ in faults])[0]
            running = self._at_work.get(target)
            if running is None or running.done():
                self._at_work[target] = asyncio.create_task(self._struck(strike))

    async def heal(self) -> None:
        """Let what is broken be repaired, and stop."""
        await asyncio.gather(*self._at_work.values())
        for relay in self.site.relays.values():
            relay.heal()
        self.site.stand_in.repair()
        if not self.site.services.alive:
            await self.site.services.start()
        await self._view("DELETE")
        await self._start_box()

    async def watch(self) -> None:
        """Start the box again if it ended without being told to, as a supervisor would, and remember that it did."""
        while True:
            await asyncio.sleep(1)
            running = self._at_work.get("box")
            if (running is None or running.done()) and not self.site.box.alive:
                self.problems.append("the box ended by itself")
                await self.site.box.stop()
                await self._start_box()

    async def _start_box(self) -> None:
        """As a supervisor starts it: again after a moment where it could not."""
        for _ in range(20):
            if self.site.box.alive:
                return
            try:
                await self.site.box.start()
            except NotStarted:
                self.counts["box: start that failed"] += 1
                await self.site.box.stop()
                await asyncio.sleep(1)
        raise AssertionError("the box does not start any more")

    async def _struck(self, strike: Callable[[], Awaitable[str]]) -> None:
        try:
            self.counts[await strike()] += 1
        except Exception as error:  # noqa: BLE001 - told at the end of the run
            self.problems.append(f"{getattr(strike, '__name__', strike)}: {type(error).__name__}: {error}")

    def _faults(self) -> list[tuple[str, int, Callable[[], Awaitable[str]]]]:
        """(what it strikes, how often, what it does)"""
        return [
            ("dmp-order", 14, self._order_dmp_faults),
            ("dmp-line", 10, lambda: self._line("DMP")),
            ("dmp", 4, self._kill_dmp),
            ("pacs-line", 8, lambda: self._line("PACS")),
            ("stand-in-line", 3, lambda: self._line("stand-in")),
            ("stand-in", 4, self._spoil_stand_in),
            ("pacs", 4, self._kill_pacs),
            ("box", 5, self._kill_box),
            ("box", 2, self._freeze_box),
            ("postgres", 3, self._kill_postgres),
            ("postgres", 2, self._kill_backend),
            ("postgres", 2, self._stall_postgres),
            ("postgres", 2, self._terminate_connections),
        ]

    async def _pause(self, low: float, high: float) -> None:
        await asyncio.sleep(self.rng.uniform(low, high) * self.spare)

    # --- the DMP ------------------------------------------------------------------------------------------------------

    async def _order_dmp_faults(self) -> str:
        kind = self.rng.choice(_DMP_FAULTS)
        # A withheld answer is one that the box has given up.
        seconds = {"timeout": 6, "slow": self.rng.uniform(0.2, 3), "unavailable": 1}.get(kind, 1)
        order = {
            "kind": kind,
            "count": self.rng.choice((1, 1, 2, 4)),
            "service": self.rng.choice(_DMP_SERVICES),
            "seconds": seconds,
        }
        with contextlib.suppress(DrimboxError):
            await self._view("POST", order)
        return f"DMP: answers with {kind}"

    async def _kill_dmp(self) -> str:
        await self.site.services.stop(signal.SIGKILL)
        await self._pause(0, 3)
        await self.site.services.start()
        return "DMP: killed, started again"

    async def _view(self, method: str, body: object = None) -> None:
        content = json.dumps(body).encode() if body is not None else None
        await self.http.send(method, f"{self.site.view}/faults", tls=self.tls, body=content)

    # --- lines --------------------------------------------------------------------------------------------------------

    async def _line(self, name: str) -> str:
        relay = self.site.relays[name]
        kind = self.rng.choice(("refuse", "stall", "cut", "cut in mid-answer", "answer lost"))
        if kind == "refuse":
            relay.refuse()
            await self._pause(0.5, 5)
        elif kind == "stall":
            relay.stall()
            await self._pause(0.5, 8)
        elif kind == "cut":
            relay.cut()
        else:
            relay.cut_answer(self.rng.randrange(1, 6000) if kind == "cut in mid-answer" else 0)
            await self._pause(1, 4)
        relay.heal()
        return f"line to {name}: {kind}"

    # --- PACS ---------------------------------------------------------------------------------------------------------

    async def _kill_pacs(self) -> str:
        number = self.rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM))
        await self.site.orthanc.stop(number)
        await self._pause(0, 4)
        await self.site.orthanc.start()
        return f"PACS: {number.name}, started again"

    async def _spoil_stand_in(self) -> str:
        faults = self.site.stand_in
        # It stalls until it is repaired.
        faults.released.clear()
        kind = self.rng.choice(("failure status", "aborts", "stalls", "fewer answers", "answers too much"))
        if kind == "failure status":
            faults.find_status = self.rng.choice((0xA700, 0xC001, 0xFE00))
        elif kind == "aborts":
            faults.find_aborts = True
        elif kind == "stalls":
            faults.find_stalls = True
        elif kind == "fewer answers":
            faults.find_after, faults.find_status = 0, 0xC000
        else:
            faults.find_ignores_keys = True
        await self._pause(0.5, 5)
        faults.repair()
        return f"stand-in PACS: {kind}"

    # --- the box ------------------------------------------------------------------------------------------------------

    async def _kill_box(self) -> str:
        number = self.rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM))
        await self.site.box.stop(number)
        await self._pause(0, 2)
        await self._start_box()
        return f"box: {number.name}, started again"

    async def _freeze_box(self) -> str:
        """Stopped like a virtual machine that is moved: at times for longer than it may go without a sign of life."""
        self.site.box.tell(signal.SIGSTOP)
        try:
            await self._pause(0.5, 10)
        finally:
            self.site.box.tell(signal.SIGCONT)
        return "box: frozen"

    # --- PostgreSQL ---------------------------------------------------------------------------------------------------

    async def _kill_postgres(self) -> str:
        pid = self.site.postmaster()
        if pid is None:
            return "PostgreSQL: was not there"
        with contextlib.suppress(ProcessLookupError):
            _kill(pid, signal.SIGKILL)
        return "PostgreSQL: SIGKILL"

    async def _kill_backend(self) -> str:
        pid = self.site.postmaster()
        victims = _children(pid) if pid is not None else []
        if not victims:
            return "PostgreSQL: was not there"
        with contextlib.suppress(ProcessLookupError):
            _kill(self.rng.choice(victims), signal.SIGKILL)
        return "PostgreSQL: one process SIGKILL"

    async def _stall_postgres(self) -> str:
        pid = self.site.postmaster()
        if pid is None:
            return "PostgreSQL: was not there"
        stopped = [pid, *_children(pid)]
        for one in stopped:
            with contextlib.suppress(ProcessLookupError):
                _kill(one, signal.SIGSTOP)
        await self._pause(0.5, 5)
        for one in stopped:
            with contextlib.suppress(ProcessLookupError):
                _kill(one, signal.SIGCONT)
        return "PostgreSQL: frozen"

    async def _terminate_connections(self) -> str:
        with contextlib.suppress(psycopg.Error, OSError, IndexError):
            async with await psycopg.AsyncConnection.connect(self.site.dsn, connect_timeout=3) as connection:
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
                )
        return "PostgreSQL: connections cut"


def _kill(pid: int, number: signal.Signals) -> None:
    os.kill(pid, number)


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []
