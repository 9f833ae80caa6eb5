"""The structures that a box serves: their key pairs, loaded once, and how each acts towards the others.

A structure whose pair cannot be used (missing, expired, of another structure, of another kind) stops what is done in
its own name, with the reason, and no one else's: the box starts without it.
"""

from __future__ import annotations

import datetime as dt
import logging
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from drimbox.box.services import Services, credential
from drimbox.box.settings.box import StructureSection
from drimbox.box.settings.common import KeyPair
from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Misconfigured
from drimbox.national.dmp.client import Actor, VihfIdentity
from drimbox.reports.report import Structure
from drimbox.trust.keystore import Credential
from drimbox.trust.profiles import Profile, require_profile, require_unit
from drimbox.trust.tls import client_context
from drimbox.trust.watch import TrustWatch

_log = logging.getLogger(__name__)
_SOON = dt.timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Keys:
    """The pairs of a structure: ``tls`` presents its ORG AUTH_CLI, ``sign`` is its ORG SIGN.

    ``expires_at`` is when the first of the two ends.
    """

    tls: ssl.SSLContext
    sign: Credential
    expires_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Served:
    """One structure with its pairs; ``keys`` is None when they cannot be used, and ``problem`` says why."""

    settings: StructureSection
    clock: Clock
    keys: Keys | None
    problem: str = ""

    @property
    def id(self) -> str:
        return self.settings.id

    @property
    def identifiers(self) -> tuple[str, ...]:
        """Every Struct_IdNat by which a message or a practice may name it; the first is its own."""
        known = (self.settings.identifier, self.settings.legal_identifier, *self.settings.also_known_as)
        return tuple(dict.fromkeys(i for i in known if i))

    @property
    def in_submissions(self) -> Structure:
        """The one that stands in submission sets: the geographic FINESS, but in the discouraged mode EJ."""
        return submitting(self.settings)

    @property
    def in_vihf(self) -> Structure:
        """The one that stands in the VIHF (ans-faq.md 3.1): in mode EJ/EG, the one or the other."""
        if self.settings.identification == "EJ/EG" and self.settings.vihf_finess == "EJ":
            return Structure(self.settings.legal_identifier, self.settings.name)
        return self.in_submissions

    def usable(self) -> Keys:
        """The pairs, as long as they hold. Raises ``Misconfigured`` (``structure-keys``) with the reason otherwise."""
        if self.keys is None:
            raise unusable(self.id, self.problem)
        if self.clock.now() > self.keys.expires_at:
            raise unusable(self.id, f"expirés depuis le {self.keys.expires_at:%d/%m/%Y}")
        return self.keys

    def actor(self, identity: VihfIdentity, *, secret_connection: bool = False) -> Actor:
        """Who acts at the DMP: this identity, with this structure's certificates. Raises as ``usable``."""
        keys = self.usable()
        return Actor(identity, keys.tls, keys.sign, secret_connection)


def unusable(structure: str, problem: str) -> Misconfigured:
    """Why nothing can be done in the name of a structure, and what to do."""
    return Misconfigured(
        f"Certificats de la structure {structure} inutilisables : {problem.rstrip('. ')}. "
        "Installez une paire valide, redémarrez la passerelle, puis réessayez",
        code="structure-keys",
    )


def served(services: Services) -> Mapping[str, Served]:
    """Every structure of the configuration, by its short name, those that cannot act included."""
    return {section.id: serve(section, services.trust, services.clock) for section in services.settings.structures}


def serve(section: StructureSection, trust: TrustWatch, clock: Clock) -> Served:
    """One structure with its pairs, as far as they can be used."""
    try:
        keys = _keys(section, trust)
    except Misconfigured as error:
        _log.error("structure %s cannot act: %s", section.id, error.reason)
        return Served(section, clock, None, error.reason)
    if keys.expires_at - clock.now() < _SOON:
        _log.warning("structure %s: its certificates end on %s", section.id, f"{keys.expires_at:%Y-%m-%d}")
    return Served(section, clock, keys)


def _keys(section: StructureSection, trust: TrustWatch) -> Keys:
    auth = checked(section, section.auth, Profile.AUTH)
    sign = checked(section, section.sign, Profile.SIGN)
    tls = trust.enrol(client_context(trust.trust, auth))
    return Keys(tls, sign, min(auth.expires_at, sign.expires_at))


def checked(section: StructureSection, pair: KeyPair, profile: Profile) -> Credential:
    """One of the two pairs of a structure. Raises ``Misconfigured`` when it is not what its place asks for."""
    loaded = credential(pair)
    require_profile(loaded, profile)
    require_unit(loaded, [section.unit])
    return loaded


def submitting(section: StructureSection) -> Structure:
    """The structure that stands in submission sets (ans-faq.md 3.1)."""
    legal = section.identification == "EJ"
    return Structure(section.legal_identifier if legal else section.identifier, section.name)


def pacs_of(section: StructureSection, known: Sequence[str]) -> tuple[str, ...]:
    """The PACSs that may hold the studies of a structure: those it names, else all."""
    return section.pacs or tuple(known)
