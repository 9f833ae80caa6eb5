"""The structures that a box serves: their key pairs, loaded once, and how each acts towards the others."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from drimbox.box.services import Services, credential
from drimbox.box.settings import StructureSection
from drimbox.national.dmp.client import Actor, VihfIdentity
from drimbox.reports.report import Structure
from drimbox.trust.keystore import Credential
from drimbox.trust.tls import client_context


@dataclass(frozen=True, slots=True)
class Served:
    """One structure with its certificates: ``tls`` presents its ORG AUTH_CLI, ``sign`` is its ORG SIGN."""

    settings: StructureSection
    tls: ssl.SSLContext
    sign: Credential

    @property
    def id(self) -> str:
        return self.settings.id

    @property
    def identifiers(self) -> tuple[str, ...]:
        """Every Struct_IdNat by which a message or a practice may name it."""
        known = (self.settings.identifier, self.settings.legal_identifier, *self.settings.also_known_as)
        return tuple(dict.fromkeys(i for i in known if i))

    @property
    def in_submissions(self) -> Structure:
        """The one that stands in submission sets: the geographic FINESS, but in the discouraged mode EJ."""
        legal = self.settings.identification == "EJ"
        return Structure(self.settings.legal_identifier if legal else self.settings.identifier, self.settings.name)

    def actor(self, identity: VihfIdentity, *, secret_connection: bool = False) -> Actor:
        """Who acts at the DMP: this identity, with this structure's certificates."""
        return Actor(identity, self.tls, self.sign, secret_connection)


def served(services: Services) -> Mapping[str, Served]:
    """Every structure of the configuration, by its short name. Raises ``Misconfigured`` for an unusable pair."""
    return {section.id: _one(services, section) for section in services.settings.structures}


def _one(services: Services, section: StructureSection) -> Served:
    tls = services.trust.enrol(client_context(services.trust.trust, credential(section.auth)))
    return Served(section, tls, credential(section.sign))


def pacs_of(section: StructureSection, known: Sequence[str]) -> tuple[str, ...]:
    """The PACSs that may hold the studies of a structure: those it names, else all."""
    return section.pacs or tuple(known)
