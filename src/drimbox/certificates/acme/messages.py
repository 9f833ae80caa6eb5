"""What an authority answers (RFC 8555 7.1), read strictly; whatever else it says is left aside."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

from drimbox.foundation.errors import Rejected

T = TypeVar("T")
MAX_ITEMS = 20


@dataclass(frozen=True, slots=True)
class Directory:
    """Where everything is (RFC 8555 7.1.1). ``renewal_info`` is empty when the authority has none (RFC 9773)."""

    new_nonce: str
    new_account: str
    new_order: str
    revoke: str
    key_change: str
    renewal_info: str = ""
    terms: str = ""
    external_account: bool = False
    profiles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Problem:
    """An error document (RFC 7807, RFC 8555 6.7): ``kind`` without its namespace, ``detail`` in the peer's words."""

    kind: str = ""
    detail: str = ""
    instance: str = ""

    @property
    def told(self) -> str:
        """For the operator: the peer's code and words."""
        return f"{self.kind}: {self.detail}".strip(": ")


@dataclass(frozen=True, slots=True)
class Challenge:
    kind: str
    url: str
    status: str
    token: str
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class Authorization:
    status: str
    name: str
    challenges: tuple[Challenge, ...]


@dataclass(frozen=True, slots=True)
class Order:
    status: str
    names: tuple[str, ...]
    authorizations: tuple[str, ...]
    finalize: str
    certificate: str = ""
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class RenewalWindow:
    """When the authority would like a certificate to be renewed (RFC 9773 4.2), and why where it says so."""

    start: dt.datetime
    end: dt.datetime
    why: str = ""
    ask_again: dt.datetime | None = field(default=None, compare=False)


def directory(body: bytes) -> Directory:
    found = _object(body)
    meta = found.get("meta", {})
    meta = meta if isinstance(meta, dict) else {}
    profiles = meta.get("profiles")
    return Directory(
        new_nonce=_url(found, "newNonce"),
        new_account=_url(found, "newAccount"),
        new_order=_url(found, "newOrder"),
        revoke=_url(found, "revokeCert"),
        key_change=_url(found, "keyChange"),
        renewal_info=_url(found, "renewalInfo") if found.get("renewalInfo") else "",
        terms=_text(meta, "termsOfService"),
        external_account=meta.get("externalAccountRequired") is True,
        profiles=tuple(map(str, profiles)) if isinstance(profiles, dict) else (),
    )


def problem(body: bytes) -> Problem:
    """The error document of an answer that is no success; empty when it is none."""
    try:
        return _problem(_object(body)) or Problem()
    except Rejected:
        return Problem()


def order(body: bytes) -> Order:
    found = _object(body)
    return Order(
        status=_text(found, "status"),
        names=tuple(_each(found, "identifiers", lambda i: _text(i, "value").lower())),
        authorizations=tuple(https_url(url) for url in _list(found, "authorizations")),
        finalize=_url(found, "finalize"),
        certificate=_url(found, "certificate") if found.get("certificate") else "",
        problem=_problem(found.get("error")),
    )


def authorization(body: bytes) -> Authorization:
    found = _object(body)
    identifier = found.get("identifier")
    return Authorization(
        status=_text(found, "status"),
        name=_text(identifier, "value").lower() if isinstance(identifier, dict) else "",
        challenges=tuple(_each(found, "challenges", _challenge)),
    )


def renewal_window(body: bytes, ask_again: dt.datetime) -> RenewalWindow:
    """Raises ``Rejected`` (``acme-syntax``) for a window that ends before it begins, too."""
    found = _object(body)
    window = found.get("suggestedWindow")
    if not isinstance(window, dict):
        raise _bad("suggestedWindow")
    start, end = _instant(window, "start"), _instant(window, "end")
    if end <= start:
        raise _bad("suggestedWindow")
    return RenewalWindow(start, end, _text(found, "explanationURL"), ask_again)


def _challenge(found: Mapping[str, Any]) -> Challenge:
    return Challenge(
        kind=_text(found, "type"),
        url=_url(found, "url"),
        status=_text(found, "status"),
        token=_text(found, "token"),
        problem=_problem(found.get("error")),
    )


def _problem(found: object) -> Problem | None:
    if not isinstance(found, dict):
        return None
    subs = found.get("subproblems")
    first = next((s for s in subs if isinstance(s, dict)), {}) if isinstance(subs, list) else {}
    kind = _text(found, "type").rpartition(":")[2]
    if kind == "compound" and first:
        kind = _text(first, "type").rpartition(":")[2]
    detail = " ; ".join(filter(None, (_text(found, "detail"), _text(first, "detail"))))
    return Problem(_plain(kind, 60), _plain(detail, 300), _text(found, "instance")[:300])


def _plain(text: str, size: int) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:size]


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise _bad("JSON") from None
    if not isinstance(found, dict):
        raise _bad("JSON")
    return found


def _text(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name, "")
    return value if isinstance(value, str) else ""


def _list(found: Mapping[str, Any], name: str) -> Sequence[Any]:
    value = found.get(name)
    if not isinstance(value, list) or len(value) > MAX_ITEMS:
        raise _bad(name)
    return value


def _each(found: Mapping[str, Any], name: str, read: Callable[[Mapping[str, Any]], T]) -> list[T]:
    values = _list(found, name)
    if not all(isinstance(value, dict) for value in values):
        raise _bad(name)
    return [read(value) for value in values]


def _url(found: Mapping[str, Any], name: str) -> str:
    return https_url(found.get(name))


def https_url(value: object) -> str:
    if isinstance(value, str) and len(value) < 2000:
        try:
            parts = urlsplit(value)
        except ValueError:
            raise _bad("URL") from None
        if parts.scheme == "https" and parts.hostname and value.isascii() and value.isprintable():
            return value
    raise _bad("URL")


def _instant(found: Mapping[str, Any], name: str) -> dt.datetime:
    try:
        instant = dt.datetime.fromisoformat(_text(found, name))
        # Time zones at the ends of the calendar overflow.
        return instant.astimezone(dt.UTC)
    except (ValueError, OverflowError):
        raise _bad(name) from None


def _bad(what: str) -> Rejected:
    return Rejected("L'autorité a répondu hors du protocole ACME", code="acme-syntax", peer_code=what)
