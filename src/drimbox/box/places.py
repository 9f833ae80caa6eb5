"""Every place of the configuration that takes a pair, and what each asks of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel

from drimbox.box.settings import Settings
from drimbox.box.settings.box import StructureSection
from drimbox.box.settings.certificates import MarketCertificateSection
from drimbox.box.settings.common import KeyPair
from drimbox.box.settings.source import WadoSection
from drimbox.certificates.roots import read_roots
from drimbox.keyring.places import Place
from drimbox.trust.chain import TrustStore
from drimbox.trust.fitness import Demand, Range
from drimbox.trust.profiles import Profile

Believed = Callable[[], TrustStore | None]
"""Whom the box believes at that moment; None where its roots cannot be read."""

Where = tuple[str | int, ...]
"""The way to a setting: ``("structures", 0, "auth")``."""

_AGENCY_DOMAIN = ".mesimagesmedicales.fr"


def places_of(settings: Settings, believed: Believed) -> tuple[Place, ...]:
    """Every place that takes a pair, in the order of the configuration."""
    return tuple(place_at(where, pair, settings, believed) for where, pair in pairs_of(settings))


def pairs_of(settings: Settings) -> Iterator[tuple[Where, KeyPair]]:
    """Every pair of the configuration, and where it stands."""
    return _pairs(settings, ())


def _pairs(value: Any, where: Where) -> Iterator[tuple[Where, KeyPair]]:
    if isinstance(value, KeyPair):
        yield where, value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _pairs(getattr(value, name), (*where, name))
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _pairs(item, (*where, index))


def place_at(where: Where, pair: KeyPair, settings: Settings, believed: Believed) -> Place:
    """The place of one pair. Raises ``Misconfigured`` for market roots that cannot be read."""
    box = settings.box.name
    match where:
        case ("structures", int(index), "auth" | "sign" as word):
            both = structure_places(settings.structures[index], settings.box.environment, believed)
            return both[0] if word == "auth" else both[1]
        case ("source", "wado", "tls"):
            assert settings.source is not None
            demand = _db_demand(settings, settings.source.wado, believed)
            return Place("source.wado.tls", box, "serveur TLS db", pair.source, demand)
        case ("psc", "auth"):
            asked = Demand(Profile.AUTH, range=settings.box.environment)
            use = "ORG AUTH_CLI (Pro Santé Connect)"
            return Place("psc.auth", box, use, pair.source, lambda: replace(asked, trust=believed()))
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where).lstrip(".")
    side, kind = ("serveur", Profile.SERVER) if where[-1] == "tls" else ("client", None)
    asked = Demand(kind)
    return Place(name, box, f"{side} TLS ({name})", pair.source, lambda: asked)


def structure_places(section: StructureSection, environment: Range, believed: Believed) -> tuple[Place, Place]:
    """The ORG AUTH_CLI and the ORG SIGN of a structure."""

    def place(word: str, use: str, pair: KeyPair, profile: Profile) -> Place:
        demand = Demand(profile, (section.unit,), environment)
        name = structure_place(section.id, word)
        return Place(name, section.name, use, pair.source, lambda: replace(demand, trust=believed()))

    return (
        place("auth", "ORG AUTH_CLI", section.auth, Profile.AUTH),
        place("sign", "ORG SIGN", section.sign, Profile.SIGN),
    )


def pacs_place(settings: Settings, pacs_id: str, way: Literal["tls", "dicomweb"]) -> str:
    """The name of the place of the pair that we show to a PACS."""
    index = next(number for number, one in enumerate(settings.pacs) if one.id == pacs_id)
    return f"pacs[{index}].{way}.client"


def structure_place(structure: str, word: str) -> str:
    """The name of the place of a structure's ``auth`` or ``sign``."""
    return f"structures.{structure}.{word}"


def _db_demand(settings: Settings, wado: WadoSection, believed: Believed) -> Callable[[], Demand]:
    shown = urlsplit(wado.public_url).hostname or ""
    host = wado.db_host or (shown if shown.endswith(_AGENCY_DOMAIN) else "")
    if wado.certificate_of == "igc-sante":
        demand = Demand(Profile.SERVER, range=settings.box.environment, host=host, wildcard=False)
        return lambda: replace(demand, trust=believed())
    if wado.certificate_of == "market":
        market = settings.market_certificate
        roots = market.roots if market is not None else MarketCertificateSection.model_fields["roots"].default
        demand = Demand(Profile.SERVER, trust=TrustStore(read_roots(roots)), host=host, wildcard=False)
    else:
        demand = Demand(Profile.SERVER)
    return lambda: demand
