"""One exchange with the DMP: a fresh VIHF, one request, and an answer understood or an error that says what to do.

Whether nothing was done or nobody knows depends on the transaction: when one that changes the DMP gets no answer that
can be read, its outcome is unknown; one that only reads can simply be asked again.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import (
    Busy,
    DrimboxError,
    IdentityMismatch,
    Misconfigured,
    OutcomeUnknown,
    Refused,
    Rejected,
    Unavailable,
)
from drimbox.foundation.http_client import HttpClient, Reply
from drimbox.foundation.uids import new_uuid_urn
from drimbox.foundation.xml import Element, to_bytes
from drimbox.identity.ins import Ins
from drimbox.national.dmp import mtom, soap, vihf, xmldsig
from drimbox.national.dmp.actor import Actor, Software
from drimbox.national.dmp.codes import RS
from drimbox.national.dmp.errors import DmpRejected, DmpUnavailable, RegistryError, safe_word

_log = logging.getLogger(__name__)

_MAX_ANSWER = 64 * 2**20
# Parsing a larger answer would hold up every other task of the process.
_PARSE_ASIDE = 256 * 1024
# The server itself says that it does not take requests now: nothing was done.
_BUSY = (429, 503)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """What one transaction sends. ``changes``: does it change the DMP?"""

    url: str
    action: str
    body: Element
    changes: bool
    attachments: Sequence[mtom.Attachment] = ()
    max_answer: int = _MAX_ANSWER


@dataclass(frozen=True, slots=True)
class Transport:
    """Sends requests to the DMP in the name of an actor, about a patient."""

    http: HttpClient
    software: Software
    clock: Clock
    vihf_version: str
    vihf_algorithm: xmldsig.Algorithm
    timeout: float
    test: bool

    async def exchange(self, actor: Actor, patient: Ins, request: Request, read: Callable[[soap.Answer], T]) -> T:
        """Send, and give what ``read`` makes of the answer: a SOAP body that relates to this request, and no fault.

        Raises ``Rejected``, ``Busy``, ``Unavailable``, ``OutcomeUnknown`` (only when ``request.changes``),
        ``IdentityMismatch`` (the answer is about another patient), ``Misconfigured`` (``ins-range``, ``sign-key``),
        ``Refused`` (``vihf-…``: the identity lacks something; nothing was sent).
        """
        self._check_range(patient)
        message_id = new_uuid_urn()
        envelope = self.envelope(actor, patient, request, message_id)
        if request.attachments:
            content_type, body = mtom.write(envelope, request.attachments, request.action)
        else:
            content_type, body = soap.content_type(request.action), envelope
        started = self.clock.monotonic()
        try:
            received = await self._sent(actor, request, message_id, content_type, body, read)
        except DrimboxError as error:
            _log.warning(
                "%s %s failed after %.1f s: %s %s",
                request.action,
                message_id,
                self.clock.monotonic() - started,
                error.code,
                error.peer_code or "",
            )
            raise
        _log.info("%s %s answered in %.1f s", request.action, message_id, self.clock.monotonic() - started)
        return received

    async def _sent(
        self,
        actor: Actor,
        request: Request,
        message_id: str,
        content_type: str,
        body: bytes,
        read: Callable[[soap.Answer], T],
    ) -> T:
        # Before anything is sent: a token that cannot be had leaves the DMP as it is.
        token = {"Authorization": f"Bearer {await actor.bearer()}"} if actor.bearer is not None else {}
        try:
            reply = await self.http.send(
                "POST",
                request.url,
                tls=actor.tls,
                headers={
                    "Content-Type": content_type,
                    "Accept": "application/soap+xml, multipart/related, application/xop+xml",
                    # What comes is signed, hashed and bounded as it is: no compression on the way.
                    "Accept-Encoding": "identity",
                    **token,
                },
                body=body,
                timeout=self.timeout,
                max_bytes=request.max_answer,
            )
        except OutcomeUnknown as error:
            raise _lost(request, error.code, error.peer_code) from error
        except Rejected as error:
            # An answer over the limit: it was given, so what was asked may well have been done.
            raise (_lost(request, error.code, error.peer_code) if request.changes else error) from error
        if len(reply.body) > _PARSE_ASIDE:
            return await asyncio.to_thread(understand, reply, request, message_id, read)
        return understand(reply, request, message_id, read)

    def envelope(self, actor: Actor, patient: Ins, request: Request, message_id: str) -> bytes:
        """The whole request message, its assertion signed in place."""
        assertion = vihf.assertion(actor, patient, self.software, version=self.vihf_version, now=self.clock.now())
        root = soap.envelope(request.action, request.url, message_id, assertion, request.body)
        vihf.sign(assertion, actor.sign, self.vihf_algorithm)
        return to_bytes(root)

    def _check_range(self, patient: Ins) -> None:
        if (patient.authority.range == "test") != self.test:
            raise Misconfigured(
                "INS de test et de production ne se mélangent pas : vérifiez l'environnement de la DRIMbox",
                code="ins-range",
            )


def understand(reply: Reply, request: Request, message_id: str, read: Callable[[soap.Answer], T]) -> T:
    """From an HTTP reply to what the transaction makes of it, or to the error that it means."""
    answer = _message(reply, request)
    if answer.relates_to and answer.relates_to != message_id:
        raise _lost(request, "answer-mismatch", None)
    if answer.fault is not None:
        raise _fault_error(answer.fault, reply, request)
    if not 200 <= reply.status < 300 and not _says_failure(answer):
        raise _lost(request, "answer-http", f"HTTP {reply.status}")
    try:
        return read(answer)
    except IdentityMismatch:
        raise
    except Refused as error:
        raise _lost(request, error.code, error.peer_code) from error


def _message(reply: Reply, request: Request) -> soap.Answer:
    encoding = reply.headers.get("Content-Encoding", "identity").strip().lower()
    try:
        if encoding not in ("", "identity"):
            raise Refused("Réponse compressée sans qu'on l'ait demandé", code="answer-encoding")
        return soap.read(reply.headers.get("Content-Type", ""), reply.body)
    except Refused as error:
        raise _http_error(reply, request, error) from error


def _http_error(reply: Reply, request: Request, cause: Refused) -> DrimboxError:
    """What an answer means that holds no SOAP message: its HTTP status is all there is."""
    status = reply.status
    peer_code = f"HTTP {status}"
    if status in _BUSY:
        return _busy(reply, peer_code)
    if 300 <= status < 500:
        return DmpRejected(f"Le DMP a refusé la requête (HTTP {status})", code="dmp-http", peer_code=peer_code)
    return _lost(request, cause.code, peer_code)


def _busy(reply: Reply, peer_code: str) -> Busy:
    return Busy("Le DMP est surchargé", code="dmp-busy", peer_code=peer_code, retry_after=_retry_after(reply))


def _fault_error(fault: soap.Fault, reply: Reply, request: Request) -> DrimboxError:
    code = fault.subcodes[-1] if fault.subcodes else fault.code
    errors = (RegistryError(code, fault.reason),)
    peer_code = safe_word(code)
    if reply.status in _BUSY:
        return _busy(reply, peer_code)
    if fault.code != "Receiver":
        return DmpRejected(
            f"Le DMP a refusé le message (code {peer_code})", code="dmp-fault", peer_code=peer_code, errors=errors
        )
    if request.changes:
        return OutcomeUnknown(
            "Le DMP a échoué en traitant la demande : son effet n'est pas connu", code="dmp-fault", peer_code=peer_code
        )
    return DmpUnavailable(
        "Le DMP a échoué en traitant la demande", code="dmp-fault", peer_code=peer_code, errors=errors
    )


def _lost(request: Request, code: str, peer_code: str | None) -> DrimboxError:
    if request.changes:
        return OutcomeUnknown(
            "Aucune réponse lisible du DMP : l'effet de la demande n'est pas connu", code=code, peer_code=peer_code
        )
    return Unavailable("Aucune réponse lisible du DMP", code=code, peer_code=peer_code)


def _says_failure(answer: soap.Answer) -> bool:
    """A registry answer that says Failure means it, even under an HTTP error."""
    body = answer.body
    if body is None:
        return False
    response = body.find(f"{{{RS}}}RegistryResponse")
    status = (response if response is not None else body).get("status", "")
    return status.rpartition(":")[2] == "Failure"


def _retry_after(reply: Reply) -> float | None:
    value = reply.headers.get("Retry-After", "").strip()
    return float(value) if re.fullmatch(r"\d{1,6}", value) else None
