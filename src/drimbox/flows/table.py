"""A flow, and whether it is as control point C17 asks (ans-faq.md 10.4): encrypted, but for four exceptions."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import StrEnum


class Direction(StrEnum):
    """Who opens the connection."""

    IN = "entrant"
    OUT = "sortant"


class Exception17(StrEnum):
    """What may go in the clear, and no more: each of them carries its own proof."""

    ACME = "validation ACME HTTP-01 : seule l'empreinte de la clé de compte y passe"
    CRL = "téléchargement de listes de révocation (CRL) : elles sont signées"
    AUTHORITIES = "téléchargement de certificats d'autorité : ils sont signés"
    OCSP = "répondeur OCSP : ses réponses sont signées"


class State(StrEnum):
    """What control point C17 finds."""

    ENCRYPTED = "chiffré"
    EXCEPTION = "exception C17"
    LOCAL = "interne à la machine"
    CLEAR = "EN CLAIR"


@dataclass(frozen=True, slots=True)
class Flow:
    """One flow. ``encryption`` is empty in the clear; ``setting`` is where the configuration decides on it.

    ``host`` and ``port`` are where the connection is taken (ours for IN, theirs for OUT); ``host`` is empty, or
    ``port`` 0, where it is not known before a peer has said so: ``name`` tells who says it.
    """

    name: str
    direction: Direction
    host: str
    port: int
    protocol: str
    encryption: str
    setting: str
    authentication: str = ""
    exception: Exception17 | None = None
    path: str = ""

    @property
    def state(self) -> State:
        if self.encryption:
            return State.ENCRYPTED
        if self.exception is not None:
            return State.EXCEPTION
        return State.LOCAL if self.path or is_loopback(self.host) else State.CLEAR

    @property
    def where(self) -> str:
        """``host:port``, or the unix socket."""
        if self.path:
            return self.path
        host = f"[{self.host}]" if ":" in self.host else self.host or "*"
        return f"{host}:{self.port}" if self.port else host


def is_loopback(host: str) -> bool:
    """Does a connection to that address never leave the machine?"""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
