"""The structures that a box serves: their key pairs as they are in service, and how each acts towards the others.

A structure whose pair cannot be used (missing, expired, of another structure, of another kind) stops what is done in
its own name, with the reason, and no one else's: the box starts without it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from drimbox.box.places import structure_place, structure_places
from drimbox.box.services import Services
from drimbox.box.settings.box import StructureSection
from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Misconfigured
from drimbox.keyring.keeper import Keyring
from drimbox.national.dmp.client import Actor, VihfIdentity
from drimbox.reports.report import Structure
from drimbox.trust.keystore import Credential
from drimbox.trust.reload import ReloadableClientContext, reloadable_client
from drimbox.trust.tls import client_context
from drimbox.trust.watch import TrustWatch

_log = logging.getLogger(__name__)
_SOON = dt.timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Keys:
    """The pairs of a structure: ``tls`` presents its ORG AUTH_CLI, ``sign`` is its ORG SIGN.

    ``tls`` is always at the ORG AUTH_CLI in service; ``own_tls`` is of these pairs for good, for a piece of work that
    began with them and ends with them. ``expires_at`` is when the first of the two ends.
    """

    tls: ssl.SSLContext
    own_tls: ssl.SSLContext
    sign: Credential
    expires_at: dt.datetime


@dataclass(slots=True)
class Served:
    """One structure with its pairs; ``keys`` is None when they cannot be used, and ``problem`` says why."""

    settings: StructureSection
    clock: Clock
    keyring: Keyring
    _lasting: ReloadableClientContext
    _tls: ssl.SSLContext | None = None

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

    @property
    def keys(self) -> Keys | None:
        """The pairs in service, None when one of the two cannot be used."""
        auth, sign = (self.keyring.standing(structure_place(self.id, word)).pair for word in ("auth", "sign"))
        if auth is None or sign is None or self._tls is None:
            return None
        return Keys(self._lasting, self._tls, sign, min(auth.expires_at, sign.expires_at))

    @property
    def problem(self) -> str:
        standings = [self.keyring.standing(structure_place(self.id, word)) for word in ("auth", "sign")]
        return next((one.problem for one in standings if one.pair is None), "")

    def take(self, pair: Credential, trust: TrustWatch) -> Callable[[], None]:
        """Make ready for an ORG AUTH_CLI; what is given back puts it in service (``Keyring.follow``)."""
        ready = trust.enrol(client_context(trust.trust, pair))

        def use() -> None:
            self._tls = ready
            self._lasting.present(ready)

        return use

    def usable(self) -> Keys:
        """The pairs, as long as they hold. Raises ``Misconfigured`` (``structure-keys``) with the reason otherwise."""
        keys = self.keys
        if keys is None:
            raise unusable(self.id, self.problem)
        if self.clock.now() > keys.expires_at:
            raise unusable(self.id, f"expirés depuis le {keys.expires_at:%d/%m/%Y}")
        return keys

    def actor(self, identity: VihfIdentity, *, secret_connection: bool = False) -> Actor:
        """Who acts at the DMP: this identity, with this structure's certificates. Raises as ``usable``."""
        keys = self.usable()
        return Actor(identity, keys.own_tls, keys.sign, secret_connection)


def unusable(structure: str, problem: str) -> Misconfigured:
    """Why nothing can be done in the name of a structure, and what to do."""
    return Misconfigured(
        f"Certificats de la structure {structure} inutilisables : {problem.rstrip('. ')}. "
        "Installez une paire valide, puis réessayez",
        code="structure-keys",
    )


def served(services: Services) -> Mapping[str, Served]:
    """Every structure of the configuration, by its short name, those that cannot act included."""
    settings = services.settings
    return {
        section.id: serve(section, services.trust, services.clock, services.keyring) for section in settings.structures
    }


def serve(section: StructureSection, trust: TrustWatch, clock: Clock, keyring: Keyring | None = None) -> Served:
    """One structure with its pairs, as far as they can be used; without ``keyring``, those of its files."""
    ring = keyring or Keyring(structure_places(section, "test", lambda: trust.trust), clock)
    # Until a pair is fit, no certificate is shown.
    one = Served(section, clock, ring, reloadable_client(trust.enrol(client_context(trust.trust))))
    # A pair that OpenSSL refuses stops this structure, which says why, and no other.
    with contextlib.suppress(Misconfigured):
        ring.follow(structure_place(section.id, "auth"), lambda pair: one.take(pair, trust))
    keys = one.keys
    if keys is None:
        _log.error("structure %s cannot act: %s", section.id, one.problem)
    elif keys.expires_at - clock.now() < _SOON:
        _log.warning("structure %s: its certificates end on %s", section.id, f"{keys.expires_at:%Y-%m-%d}")
    return one


def submitting(section: StructureSection) -> Structure:
    """The structure that stands in submission sets (ans-faq.md 3.1)."""
    legal = section.identification == "EJ"
    return Structure(section.legal_identifier if legal else section.identifier, section.name)


def pacs_of(section: StructureSection, known: Sequence[str]) -> tuple[str, ...]:
    """The PACSs that may hold the studies of a structure: those it names, else all."""
    return section.pacs or tuple(known)
