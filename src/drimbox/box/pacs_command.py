"""``drimbox pacs``: what each PACS of the configuration answers, for the engineer who connects it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from drimbox.box import keys
from drimbox.box.pacs_links import linked_for_echo, ways_of, web_finder
from drimbox.box.settings import Settings
from drimbox.box.settings.pacs import PacsSection
from drimbox.box.trusting import trust_at_rest
from drimbox.foundation.clock import Clock, SystemClock
from drimbox.foundation.errors import Misconfigured
from drimbox.foundation.http_client import HttpClient
from drimbox.keyring.keeper import Keyring
from drimbox.pacs.access import Abilities, probed
from drimbox.trust.watch import TrustWatch

_NAMES = {"dimse": "C-FIND", "move": "C-MOVE", "get": "C-GET", "dicomweb": "DICOMweb"}


@dataclass(frozen=True, slots=True)
class _Means:
    """What the ways to a PACS need of a box (``pacs_links.Means``)."""

    settings: Settings
    clock: Clock
    http: HttpClient
    trust: TrustWatch
    keyring: Keyring


def told(settings: Settings, pacs: str = "") -> tuple[str, bool]:
    """What each PACS, or this one, answers; and whether there was no problem. Raises ``Misconfigured``."""
    chosen = [section for section in settings.pacs if pacs in ("", section.id)]
    if not chosen:
        names = ", ".join(section.id for section in settings.pacs) or "aucun"
        raise Misconfigured(f"Le PACS {pacs} n'est pas dans la configuration : {names}.", code="pacs-unknown")
    return asyncio.run(_told(settings, chosen))


async def _told(settings: Settings, chosen: list[PacsSection]) -> tuple[str, bool]:
    trust = trust_at_rest(settings)
    async with HttpClient() as http:
        clock = SystemClock()
        # No database is opened for it: a pair that was installed there is not shown.
        means = _Means(settings, clock, http, trust, keys.of_neighbours(settings, trust, clock))
        found = await asyncio.gather(*(_probed(section, means) for section in chosen))
    lines = [line for section, one in zip(chosen, found, strict=True) for line in _lines(section, one, means)]
    return "\n".join(lines), not any(one.problems for one in found)


async def _probed(section: PacsSection, means: _Means) -> Abilities:
    link = linked_for_echo(section, means)
    try:
        return await probed(link, web_finder(section, link, means))
    finally:
        link.close()


def _lines(section: PacsSection, found: Abilities, means: _Means) -> Iterator[str]:
    security = "TLS" if section.tls is not None else "en clair"
    yield f"{section.id} : {section.ae_title} à {section.host}:{section.port} ({security})"
    services = {"C-ECHO": found.echo, "C-FIND": found.find, "C-MOVE": found.move, "C-GET": found.get}
    if section.dicomweb is not None:
        services["DICOMweb"] = found.web
    yield "  services       " + ", ".join(f"{name} {_word(answer)}" for name, answer in services.items())
    finding, retrieving = ways_of(section, means)
    yield f"  interrogation  {_order(finding)}"
    yield f"  récupération   {_order(retrieving)}"
    for problem in found.problems:
        yield f"  PROBLÈME       {problem}"


def _word(answer: bool | None) -> str:
    return {True: "oui", False: "non", None: "?"}[answer]


def _order(ways: tuple[str, ...]) -> str:
    return ", puis ".join(_NAMES[way] for way in ways)
