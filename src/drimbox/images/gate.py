"""Who may have which images: the checks before anything is asked of the PACS, in their order.

DB.SO.33 to DB.SO.38, decisions 14 to 17: the box, the token, the profession, then the KOS.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from starlette.requests import Request

from drimbox.foundation.errors import DrimboxError
from drimbox.foundation.http_server import client_certificate
from drimbox.foundation.uids import is_uid
from drimbox.images.media import KOS_HEADER
from drimbox.images.ports import Archive, ArchivedKos, CurrentWhitelist, Introspect, Professions

_T = TypeVar("_T")

_BEARER = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9\-._~+/]+=*) *")
_MAX_TOKEN = 8192
_MAX_HEADERS = 128
_MAX_HEADER_CHARACTERS = 64 * 1024


class Denied(Exception):
    """A request that ends here, with its HTTP status. ``reason`` is French and holds no health data."""

    def __init__(
        self, status: int, code: str, reason: str, *, headers: Mapping[str, str] | None = None, more: object = None
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.code = code
        self.reason = reason
        self.headers = dict(headers or {})
        self.more = more


@dataclass(slots=True)
class Caller:
    """Who asks, as far as it has been found out: kept while the checks go on, for the journal of what they refused."""

    certificate: bytes | None = field(repr=False)
    address: str = ""
    name: str = ""
    national_id: str = ""
    profession: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked for; what is not named is empty. ``frames`` are numbers from 1."""

    study_uid: str
    series_uid: str = ""
    instance_uid: str = ""
    frames: tuple[int, ...] = ()


class Gate:
    """Lets a request in, or says why not."""

    def __init__(
        self,
        *,
        whitelist: CurrentWhitelist,
        introspect: Introspect,
        professions: Collection[str],
        professions_of: Professions | None = None,
    ) -> None:
        """``professions`` are the codes that may fetch images (DB.SO.34), empty for any.

        ``professions_of`` tells the professions behind a token when its introspection tells none.
        """
        self._whitelist = whitelist
        self._introspect = introspect
        self._professions = frozenset(professions)
        self._professions_of = professions_of

    async def admit(self, request: Request, caller: Caller) -> None:
        """Fill in ``caller``. Raises ``Denied``: 403, 401, 503."""
        check_size(request)
        await self._check_box(caller)
        token = _bearer(request)
        introspection = await _asked(
            lambda: self._introspect(token), "psc-unreachable", "Pro Santé Connect injoignable"
        )
        if not introspection.active:
            raise _unauthorised("token-refused", "Jeton refusé par Pro Santé Connect", "invalid_token")
        caller.national_id = introspection.national_id
        if not introspection.allows(caller.certificate):
            raise _unauthorised("token-binding", "Jeton lié à un autre certificat", "invalid_token")
        await self._check_profession(token, introspection.profession, caller)

    async def _check_box(self, caller: Caller) -> None:
        certificate = caller.certificate
        if certificate is None:
            raise Denied(403, "certificate-absent", "Certificat client exigé")
        whitelist = await _asked(self._whitelist, "whitelist-unavailable", "Liste blanche indisponible")
        domain = whitelist.domain_of(certificate)
        if domain is None:
            raise Denied(403, "box-not-listed", "DRIMbox absente de la liste blanche")
        caller.name = domain.name or domain.identifier

    async def _check_profession(self, token: str, told: str | None, caller: Caller) -> None:
        if not self._professions:
            caller.profession = told or ""
            return
        held: Collection[str] = [told] if told else []
        if not held and self._professions_of is not None:
            ask = self._professions_of
            held = await _asked(lambda: ask(token), "psc-unreachable", "Pro Santé Connect injoignable")
        allowed = [profession for profession in held if profession in self._professions]
        caller.profession = (allowed or list(held) or [""])[0]
        if not allowed:
            raise Denied(403, "profession-refused", "Profession non habilitée à récupérer des images")


async def find_kos(request: Request, target: Target, archive: Archive) -> ArchivedKos:
    """The KOS that the caller holds, if it is ours, current, and of this study (DB.SO.37, 38). Raises ``Denied``."""
    given = request.headers.getlist(KOS_HEADER)
    if len(given) != 1 or not is_uid(given[0].strip()):
        raise Denied(400, "kos-header", f"En-tête {KOS_HEADER} absent ou mal formé")
    kos_uid = given[0].strip()
    kos = await _asked(lambda: archive.by_kos_uid(kos_uid), "archive-unavailable", "Archive locale indisponible")
    if kos is None or kos.study_uid != target.study_uid or kos.state == "abandoned":
        raise Denied(404, "kos-unknown", "Aucun KOS de cet identifiant pour cet examen")
    if kos.state == "depublished":
        raise Denied(410, "kos-depublished", "Examen dépublié")
    if kos.state == "prepared":
        raise Denied(503, "kos-pending", "Publication en cours", headers={"Retry-After": "5"})
    if kos.state != "current":
        raise Denied(404, "kos-replaced", "Ce KOS a été remplacé par un autre")
    return kos


def read_target(path: Mapping[str, str]) -> Target:
    """What the path names. Raises ``Denied`` (400) for what is no UID or no list of frames."""
    target = Target(
        study_uid=path["study"],
        series_uid=path.get("series", ""),
        instance_uid=path.get("instance", ""),
        frames=_frames(path["frames"]) if "frames" in path else (),
    )
    if not all(is_uid(uid) for uid in (target.study_uid, target.series_uid, target.instance_uid) if uid):
        raise Denied(400, "uid", "Identifiant DICOM mal formé")
    return target


def caller_of(request: Request) -> Caller:
    """What is known of the caller before any check."""
    return Caller(client_certificate(request), request.client.host if request.client else "")


def check_size(request: Request) -> None:
    """Raises ``Denied`` (431) for headers that are too many or too long."""
    headers = request.scope["headers"]
    if len(headers) > _MAX_HEADERS or sum(len(k) + len(v) for k, v in headers) > _MAX_HEADER_CHARACTERS:
        raise Denied(431, "headers-size", "En-têtes trop longs")


def _frames(text: str) -> tuple[int, ...]:
    if len(text) > 4096 or not re.fullmatch(r"[1-9][0-9]{0,8}(?:,[1-9][0-9]{0,8})*", text):
        raise Denied(400, "frames", "Liste de trames mal formée")
    return tuple(int(number) for number in text.split(","))


def _bearer(request: Request) -> str:
    given = request.headers.getlist("authorization")
    if not given:
        raise _unauthorised("token-absent", "Jeton d'accès exigé", "")
    found = _BEARER.fullmatch(given[0]) if len(given) == 1 and len(given[0]) <= _MAX_TOKEN else None
    if found is None:
        raise _unauthorised("token-syntax", "En-tête Authorization mal formé", "invalid_request")
    return found[1]


def _unauthorised(code: str, reason: str, error: str) -> Denied:
    challenge = 'Bearer realm="DRIMbox"' + (f', error="{error}"' if error else "")
    return Denied(401, code, reason, headers={"WWW-Authenticate": challenge})


async def _asked(ask: Callable[[], Awaitable[_T]], code: str, reason: str) -> _T:
    """What a dependency answers. One that fails is 503, never a yes and never a no."""
    try:
        return await ask()
    except DrimboxError as error:
        raise Denied(503, code, reason, headers={"Retry-After": "10"}) from error
