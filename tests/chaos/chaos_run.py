"""One chaos run, from its seed to its report."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from chaos_changes import Changes
from chaos_monkey import Monkey
from chaos_site import Site, catalogue, playing
from chaos_traffic import Post, Sent, Writer
from chaos_truth import Watch, judge

from drimbox.foundation.http_client import HttpClient
from drimbox.sandbox.listeners import caller_context
from drimbox.sandbox.pki import TestAuthority

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much, how fast, how bad.

    ``rate`` is messages a second in all, ``pace`` the mean of seconds between two faults, ``spare`` makes outages
    shorter; ``drag`` is how long the faults go on once all is sent, ``patience`` how long the box may then take.
    """

    seed: int
    messages: int
    lanes: int = 10
    rate: float = 5.0
    pace: float = 2.5
    spare: float = 1.0
    drag: float = 60.0
    patience: float = 300.0


@dataclass(slots=True)
class Outcome:
    """What came of it."""

    plan: Plan
    folder: Path
    seconds: float = 0.0
    messages: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    line: Counter[str] = field(default_factory=Counter)
    figures: dict[str, int] = field(default_factory=dict)
    discrepancies: list[str] = field(default_factory=list)

    def report(self) -> str:
        """For people."""
        parts = [f"chaos run, seed {self.plan.seed}: {self.seconds:.0f} s, {self.folder}"]
        for title, counts in (
            ("messages", self.messages),
            ("faults", self.faults),
            ("the sender's line", self.line),
            ("at the end", self.figures),
        ):
            parts.append(f"{title}:")
            parts += [f"  {count:6d}  {what}" for what, count in sorted(counts.items())]
        parts.append(f"discrepancies: {len(self.discrepancies)}")
        parts += [f"  {text}" for text in self.discrepancies[:200]]
        return "\n".join(parts)


async def run(plan: Plan, folder: Path, say: Say) -> Outcome:
    """Play it in ``folder``."""
    begun = time.monotonic()
    rng = random.Random(plan.seed)
    outcome = Outcome(plan, folder)
    known = catalogue(rng, max(plan.messages // 12, 12), max(plan.messages * 9 // 20, 30))
    async with playing(folder, known) as site, HttpClient() as http:
        say(f"{time.monotonic() - begun:.0f} s: everything runs")
        tls = caller_context(TestAuthority(folder / "national" / "pki"))
        monkey = Monkey(site, random.Random(rng.random()), http, tls, plan.pace, plan.spare)
        post = Post(site.mllp, random.Random(rng.random()))
        watch = Watch(folder / "national" / "dmp", known)
        lanes = _lanes(plan, rng, site)
        changes = [Changes(site, writer, random.Random(rng.random())) for writer, _, _ in lanes]
        tasks = [
            asyncio.create_task(monkey.rage()),
            asyncio.create_task(monkey.watch()),
            asyncio.create_task(_looking(watch, outcome)),
            asyncio.create_task(_telling(site, lanes, say, begun)),
        ]
        try:
            await asyncio.gather(*(_lane(plan, post, c, *lane) for c, lane in zip(changes, lanes, strict=True)))
            say(f"{time.monotonic() - begun:.0f} s: all was sent; the faults go on until little is left to do")
            await _until(site, max(plan.messages // 50, 3), plan.drag)
            await _ended(tasks[0])
            await monkey.heal()
            say(f"{time.monotonic() - begun:.0f} s: all is healed")
            if not await _until(site, 0, plan.patience):
                outcome.discrepancies.append(f"work was still left {plan.patience:.0f} s after everything was healed")
        finally:
            for task in tasks:
                await _ended(task)
        sent = [one for writer, _, _ in lanes for one in writer.written]
        watch.look()
        notes = [note for one in changes for note in one.notes]
        (folder / "sent.pickle").write_bytes(pickle.dumps((known, sent, notes)))
        verdict = await judge(site, sent, notes)
        outcome.discrepancies += [*dict.fromkeys(watch.violations), *monkey.problems, *verdict.discrepancies]
        outcome.discrepancies += _answers(post)
        outcome.figures = verdict.figures | {"looks at the registry meanwhile": watch.looks}
        outcome.messages = _counted(sent, post)
        for one in changes:
            outcome.messages.update(one.counts)
        outcome.faults = monkey.counts
        outcome.line = Counter({what: n for what, n in post.counts.items() if what.startswith("line")})
    outcome.seconds = time.monotonic() - begun
    (folder / "discrepancies.txt").write_text("\n".join(outcome.discrepancies), "utf-8")
    return outcome


def _lanes(plan: Plan, rng: random.Random, site: Site) -> list[tuple[Writer, int, random.Random]]:
    """Each lane speaks of its own patients, so that what came first is known; (writer, how many, its chance)."""
    people = list(site.catalogue.people)
    shares = [plan.messages // plan.lanes + (n < plan.messages % plan.lanes) for n in range(plan.lanes)]
    return [
        (
            Writer(f"L{n}", random.Random(rng.random()), site.catalogue, people[n :: plan.lanes]),
            share,
            random.Random(rng.random()),
        )
        for n, share in enumerate(shares)
    ]


async def _lane(plan: Plan, post: Post, changes: Changes, writer: Writer, count: int, rng: random.Random) -> None:
    """Messages one after the other; now and then several at once, or an old one again, or a change to a study."""
    left = count
    while left > 0:
        chance = rng.random()
        if chance < 0.1:
            if chance < 0.03:
                await changes.note()
            elif (order := changes.order() if chance < 0.07 else await changes.pacs()) is not None:
                await post.deliver(order)
                left -= 1
            await asyncio.sleep(rng.expovariate(plan.rate / plan.lanes))
            continue
        at_once = min(left, rng.choices((1, 2, 3), (92, 6, 2))[0])
        await asyncio.gather(*(post.deliver(writer.next()) for _ in range(at_once)))
        left -= at_once
        old = [s for s in writer.written if s.verdict == "AA"]
        if old and rng.random() < 0.05 and not await post.again(rng.choice(old)):
            post.counts["answered differently"] += 1
        await asyncio.sleep(rng.expovariate(plan.rate / plan.lanes) * at_once)


async def _looking(watch: Watch, outcome: Outcome) -> None:
    while True:
        await asyncio.sleep(2)
        try:
            await asyncio.to_thread(watch.look)
        except Exception as error:  # noqa: BLE001 - told at the end of the run
            outcome.discrepancies.append(f"the registry could not be looked at: {type(error).__name__}: {error}")


async def _telling(site: Site, lanes: list[tuple[Writer, int, random.Random]], say: Say, begun: float) -> None:
    while True:
        await asyncio.sleep(20)
        written = sum(len(writer.written) for writer, _, _ in lanes)
        say(f"{time.monotonic() - begun:.0f} s: {written} messages, {await _backlog(site)} pieces of work left")


async def _until(site: Site, left: int, patience: float) -> bool:
    """Wait until no more than that is left to do; False when patience ends first."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        backlog = await _backlog(site)
        if backlog is not None and backlog <= left:
            return True
        await asyncio.sleep(0.3)
    return False


async def _backlog(site: Site) -> int | None:
    """Pieces of work that are not done; None when the database does not tell."""
    with contextlib.suppress(psycopg.Error, OSError, IndexError, TimeoutError):
        async with asyncio.timeout(10), await psycopg.AsyncConnection.connect(site.dsn, connect_timeout=3) as base:
            cursor = await base.execute("SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')")
            row = await cursor.fetchone()
            return int(row[0]) if row else None
    return None


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _answers(post: Post) -> list[str]:
    found = [f"message {c} got {len(a)} different answers AA" for c, a in post.answers.items() if len(a) > 1]
    if post.counts["answered differently"]:
        found.append(f"{post.counts['answered differently']} messages sent again were not answered as before")
    return found


def _counted(sent: list[Sent], post: Post) -> Counter[str]:
    counts = Counter({"sent": len(sent)})
    for one in sent:
        counts[f"answered {one.verdict or 'nothing'}"] += 1
        counts[f"  {one.what}"] += 1
    for what in ("repeated", "answered AR", "no answer", "sent again later"):
        counts[what if what != "answered AR" else "answered AR, sent again"] += post.counts[what]
    return counts
